//! Checkpoints below each other.

use std::fmt::Write;

use owo_colors::OwoColorize;
use unimse_core::time::Timestamp;
use unimse_core::view::CheckpointView;

use super::amount::{bytes, count, number};
use super::job::{state, state_style};
use super::table::{Column, Table};
use super::time::short;

/// Sets checkpoints below each other, oldest first, with the metric that judges them.
pub(crate) fn list(checkpoints: &[CheckpointView], metric: &str, now: Timestamp) -> Table {
    let mut table = Table::new([
        ("step", Column::Right),
        ("state", Column::Left),
        ("size", Column::Right),
        ("ranks", Column::Right),
        ("generation", Column::Right),
        (if metric.is_empty() { "metric" } else { metric }, Column::Right),
        ("age", Column::Right),
        ("", Column::Note),
    ]);
    for checkpoint in checkpoints {
        let value = checkpoint.metrics.get(metric).map_or_else(|| "-".to_owned(), |&value| number(value));
        table.row([
            checkpoint.step.to_string().into(),
            state(&checkpoint.state),
            bytes(checkpoint.bytes).into(),
            checkpoint.world_size.to_string().into(),
            checkpoint.generation.to_string().into(),
            value.into(),
            short(now.since(checkpoint.committed)).into(),
            note(checkpoint).into(),
        ]);
    }
    table
}

/// What is special about a checkpoint.
pub(crate) fn note(checkpoint: &CheckpointView) -> String {
    let marks = [(checkpoint.best, "best"), (checkpoint.latest, "latest")];
    let marks = marks.into_iter().filter_map(|(is, word)| is.then_some(word));
    let reason = (!checkpoint.reason.is_empty()).then_some(checkpoint.reason.as_str());
    marks.chain(reason).collect::<Vec<_>>().join(", ")
}

/// Writes a page about one checkpoint.
pub(crate) fn page(checkpoint: &CheckpointView, now: Timestamp) -> String {
    let mut text =
        format!("{}:{}  {}\n", checkpoint.job, checkpoint.step, checkpoint.state.style(state_style(&checkpoint.state)));
    let mut facts = vec![
        ("size", format!("{} by {}", bytes(checkpoint.bytes), count(u64::from(checkpoint.world_size), "rank"))),
        ("generation", checkpoint.generation.to_string()),
        ("committed", format!("{} ago", short(now.since(checkpoint.committed)))),
        ("store", checkpoint.uri.clone()),
        ("manifest", checkpoint.manifest.clone()),
        ("digest", checkpoint.digest.clone()),
    ];
    let note = note(checkpoint);
    if !note.is_empty() {
        facts.insert(0, ("is", note));
    }
    for (name, value) in facts {
        let _ = writeln!(text, "  {name:<11} {value}");
    }
    if !checkpoint.metrics.is_empty() {
        let longest = checkpoint.metrics.keys().map(String::len).max().unwrap_or(0);
        let _ = writeln!(text, "\n{}", "metrics".bold());
        for (name, &value) in &checkpoint.metrics {
            let _ = writeln!(text, "  {name:<longest$}  {}", number(value));
        }
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use unimse_core::id::{Generation, JobId, Step};

    use super::super::job::tests::NOW;
    use super::*;

    pub(crate) fn checkpoint(step: u64) -> CheckpointView {
        CheckpointView {
            job: JobId(1),
            step: Step(step),
            generation: Generation(1),
            state: "committed".into(),
            reason: String::new(),
            best: false,
            latest: false,
            uri: "file:///ckpt".into(),
            manifest: format!("{}/step-{step:08}/manifest-g0001.json", JobId(1)),
            digest: String::new(),
            bytes: 1_503_238_553,
            world_size: 4,
            metrics: BTreeMap::from([("valid/mae".to_owned(), 0.5)]),
            committed: Timestamp(NOW.0 - 60_000),
        }
    }

    #[test]
    fn best_latest_and_damaged_ones_are_marked() {
        let list = list(
            &[
                CheckpointView { best: true, ..checkpoint(200) },
                CheckpointView { state: "damaged".into(), reason: "a chunk differs".into(), ..checkpoint(400) },
                CheckpointView { latest: true, metrics: BTreeMap::new(), ..checkpoint(600) },
            ],
            "valid/mae",
            NOW,
        );
        let expected = "\
STEP  STATE         SIZE  RANKS  GENERATION  VALID/MAE  AGE
 200  committed  1.4 GiB      4           1     0.5000   1m  best
 400  damaged    1.4 GiB      4           1     0.5000   1m  a chunk differs
 600  committed  1.4 GiB      4           1          -   1m  latest
";
        assert_eq!(anstream::adapter::strip_str(&list.render(None)).to_string(), expected);
    }
}
