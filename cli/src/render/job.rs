//! Lists of jobs, and what is the same wherever a job is shown.

use std::time::Duration;

use owo_colors::Style;
use unimse_core::time::Timestamp;
use unimse_core::view::JobView;

use super::amount::number;
use super::table::{Cell, Column, Table, clean};
use super::time::short;
use crate::error::split_hint;

/// The colour of a state: green moves, yellow waits, red needs somebody.
pub(crate) fn state_style(state: &str) -> Style {
    match state {
        "running" | "alive" | "completed" | "committed" => Style::new().green(),
        "queued" | "starting" | "stopping" | "paused" | "drained" | "leaving" | "deleting" => Style::new().yellow(),
        "failed" | "lost" | "damaged" => Style::new().red(),
        "cancelled" | "stopped" | "left" => Style::new().dimmed(),
        _ => Style::new(),
    }
}

/// Writes a state in its colour.
pub(crate) fn state(word: &str) -> Cell {
    Cell::styled(word, state_style(word))
}

/// Whether nothing more will happen to a job in this state.
pub(crate) fn has_ended(state: &str) -> bool {
    matches!(state, "completed" | "failed" | "cancelled")
}

/// Writes the newest step, out of all where they are known.
pub(crate) fn steps(job: &JobView) -> String {
    match job.total_steps {
        Some(total) => format!("{}/{total}", job.step),
        None => job.step.to_string(),
    }
}

/// Writes what is left, while something moves.
pub(crate) fn eta(job: &JobView) -> String {
    let left = job.eta_seconds.filter(|_| job.state == "running");
    left.map_or_else(|| "-".to_owned(), |seconds| short(Duration::from_secs(seconds)))
}

/// What happened, without the way out that trainers add to their errors.
pub(crate) fn headline(reason: &str) -> String {
    clean(split_hint(reason).0)
}

/// Why a job is where it is, unless its state says the same.
fn reason(job: &JobView) -> String {
    if job.reason == job.state { String::new() } else { headline(&job.reason) }
}

/// Sets jobs below each other, the newest first.
pub(crate) fn list(jobs: &[JobView], now: Timestamp) -> Table {
    // One metric for all makes a column of numbers with its name on top; otherwise each row has to say which it means.
    let first = jobs.first().map(|job| job.metric.as_str()).unwrap_or_default();
    let shared = jobs.iter().all(|job| job.metric == first).then_some(first).filter(|name| !name.is_empty());
    let mut table = Table::new([
        ("id", Column::Left),
        ("name", Column::Left),
        ("state", Column::Left),
        ("slots", Column::Right),
        ("step", Column::Right),
        (shared.unwrap_or("metric"), Column::Right),
        ("eta", Column::Right),
        ("age", Column::Right),
        ("", Column::Note),
    ]);
    let mut ordered: Vec<&JobView> = jobs.iter().collect();
    ordered.sort_by_key(|job| std::cmp::Reverse((job.submitted, job.id)));
    for job in ordered {
        let metric = job.metrics.get(&job.metric).map(|&value| match shared {
            Some(_) => number(value),
            None => format!("{}={}", job.metric, number(value)),
        });
        table.row([
            job.id.to_string().into(),
            job.name.clone().into(),
            state(&job.state),
            format!("{}/{}", job.slots_held, job.slots_wanted).into(),
            steps(job).into(),
            metric.unwrap_or_else(|| "-".to_owned()).into(),
            eta(job).into(),
            short(now.since(job.submitted)).into(),
            reason(job).into(),
        ]);
    }
    table
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use unimse_core::id::{Generation, JobId, Step};
    use unimse_core::view::Progress;

    use super::*;

    pub(crate) const NOW: Timestamp = Timestamp(1_795_293_663_000);

    /// A job in the middle of its life.
    pub(crate) fn running() -> JobView {
        JobView {
            id: JobId(1),
            name: "mosi-meld".into(),
            labels: BTreeMap::new(),
            state: "running".into(),
            reason: String::new(),
            generation: Generation(2),
            slots_held: 4,
            slots_wanted: 4,
            min_slots: 2,
            priority: 50,
            step: Step(12_400),
            total_steps: Some(50_000),
            durable_step: Step(12_200),
            progress: Some(Progress {
                step: Step(12_400),
                total_steps: Some(50_000),
                epoch: 3,
                loss: 1.234,
                learning_rate: 3e-4,
                samples_per_second: 86.4,
                step_parts: BTreeMap::new(),
                at: NOW,
            }),
            eta_seconds: Some(7800),
            evaluated_step: Some(Step(12_400)),
            metrics: BTreeMap::from([("valid/mae".to_owned(), 0.531)]),
            metric: "valid/mae".into(),
            restarts: 1,
            max_restarts: 5,
            submitted: Timestamp(NOW.0 - 2_460_000),
            ended: None,
            sweep: None,
            trial: None,
        }
    }

    /// A job that ran out of memory.
    pub(crate) fn failed() -> JobView {
        JobView {
            id: JobId(0),
            name: "mosi-ablation".into(),
            state: "failed".into(),
            reason: "lab2/gpu1: CUDA out of memory".into(),
            slots_held: 0,
            step: Step(310),
            total_steps: Some(20_000),
            progress: None,
            eta_seconds: None,
            metrics: BTreeMap::new(),
            submitted: Timestamp(NOW.0 - 10_800_000),
            ended: Some(NOW),
            ..running()
        }
    }

    fn plain(table: &Table) -> String {
        anstream::adapter::strip_str(&table.render(None)).to_string()
    }

    #[test]
    fn the_list_reads_as_documented() {
        let (a, b) = (running().id, failed().id);
        let expected = format!(
            "\
ID      NAME           STATE    SLOTS         STEP  VALID/MAE    ETA  AGE
{a}  mosi-meld      running    4/4  12400/50000     0.5310  2h10m  41m
{b}  mosi-ablation  failed     0/4    310/20000          -      -   3h  lab2/gpu1: CUDA out of memory
"
        );
        assert_eq!(plain(&list(&[failed(), running()], NOW)), expected);
    }

    #[test]
    fn jobs_that_are_judged_differently_say_by_what() {
        let other = JobView {
            metric: "valid/score".into(),
            metrics: BTreeMap::from([("valid/score".into(), 0.8)]),
            ..failed()
        };
        let text = plain(&list(&[running(), other], NOW));
        assert!(
            text.contains("METRIC") && text.contains("valid/mae=0.5310") && text.contains("valid/score=0.8000"),
            "{text}"
        );
    }
}
