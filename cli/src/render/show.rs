//! Everything about one job on a page.

use std::fmt::Write;

use jiff::tz::TimeZone;
use owo_colors::OwoColorize;
use unimse_core::time::Timestamp;
use unimse_core::view::{JobDetail, JobView};

use super::amount::{count, number};
use super::checkpoint;
use super::job::{eta, headline, state, state_style};
use super::table::{Column, Table, clean};
use super::time::{date_and_time, short, time_of_day};
use crate::error::split_hint;

/// Most of the changes that a page shows; `-o json` has all.
const HISTORY: usize = 20;

/// Writes a page about a job.
pub(crate) fn page(detail: &JobDetail, now: Timestamp, zone: &TimeZone, width: Option<usize>) -> String {
    let job = &detail.job;
    let mut text = format!("{}  {}  {}\n", job.id.bold(), job.name.bold(), job.state.style(state_style(&job.state)));
    for (name, value) in facts(job, now, zone) {
        let _ = writeln!(text, "  {name:<11} {}", clean(&value));
    }
    if !detail.ranks.is_empty() {
        let mut table = Table::new([
            ("rank", Column::Right),
            ("node", Column::Left),
            ("slot", Column::Right),
            ("state", Column::Left),
        ]);
        let forming = job.state == "starting";
        for rank in &detail.ranks {
            let word = if rank.ready || !forming { job.state.as_str() } else { "starting" };
            let word = if rank.ready && forming { "ready" } else { word };
            table.row([
                rank.rank.to_string().into(),
                rank.node.clone().into(),
                rank.slot.to_string().into(),
                state(word),
            ]);
        }
        section(&mut text, "ranks", &table.render(width.map(|width| width.saturating_sub(2))));
    }
    if !job.metrics.is_empty() {
        let at = job.evaluated_step.map_or_else(|| "metrics".to_owned(), |step| format!("metrics at step {step}"));
        let longest = job.metrics.keys().map(String::len).max().unwrap_or(0);
        let lines: String = job.metrics.iter().fold(String::new(), |mut lines, (name, &value)| {
            let _ = writeln!(lines, "{:<longest$}  {}", clean(name), number(value));
            lines
        });
        section(&mut text, &at, &lines);
    }
    if !detail.checkpoints.is_empty() {
        let table = checkpoint::list(&detail.checkpoints, &job.metric, now);
        section(&mut text, "checkpoints", &table.render(width.map(|width| width.saturating_sub(2))));
    }
    if !detail.history.is_empty() {
        let left_out = detail.history.len().saturating_sub(HISTORY);
        let title = if left_out > 0 { format!("history (the last {HISTORY})") } else { "history".to_owned() };
        let lines: String = detail.history[left_out..].iter().fold(String::new(), |mut lines, entry| {
            let _ = writeln!(lines, "{}  {}", time_of_day(entry.at, zone), headline(&entry.what));
            lines
        });
        section(&mut text, &title, &lines);
    }
    text
}

fn section(text: &mut String, title: &str, body: &str) {
    let _ = writeln!(text, "\n{}", title.bold());
    for line in body.lines() {
        let _ = writeln!(text, "  {line}");
    }
}

fn facts(job: &JobView, now: Timestamp, zone: &TimeZone) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if !job.reason.is_empty() {
        let (what, hint) = split_hint(&job.reason);
        facts.push(("because", what.to_owned()));
        facts.extend(hint.map(|hint| ("hint", hint.to_owned())));
    }
    facts.push(("step", step_line(job)));
    if let Some(progress) = job.progress.as_ref().filter(|_| job.state == "running") {
        let mut parts = vec![
            format!("loss {}", number(progress.loss)),
            format!("learning rate {}", number(progress.learning_rate)),
            format!("{} samples/s", number(progress.samples_per_second)),
        ];
        if job.eta_seconds.is_some() {
            parts.push(format!("{} left", eta(job)));
        }
        facts.push(("training", parts.join(", ")));
        if !progress.step_parts.is_empty() {
            let parts = progress.step_parts.iter().map(|(name, seconds)| format!("{name} {:.1} ms", seconds * 1e3));
            facts.push(("step time", parts.collect::<Vec<_>>().join(", ")));
        }
    }
    facts.push((
        "slots",
        format!("{} of {}, at least {}, priority {}", job.slots_held, job.slots_wanted, job.min_slots, job.priority),
    ));
    facts.push(("generation", job.generation.to_string()));
    facts.push(("restarts", format!("{} of {}", job.restarts, job.max_restarts)));
    if let Some(sweep) = job.sweep {
        let trial = job.trial.map_or_else(String::new, |trial| format!(", trial {trial}"));
        facts.push(("sweep", format!("{sweep}{trial}")));
    }
    if !job.labels.is_empty() {
        let labels = job.labels.iter().map(|(name, value)| format!("{name}={value}"));
        facts.push(("labels", labels.collect::<Vec<_>>().join(", ")));
    }
    facts.push((
        "submitted",
        format!("{} ({} ago)", date_and_time(job.submitted, zone), short(now.since(job.submitted))),
    ));
    if let Some(ended) = job.ended {
        facts.push(("ended", format!("{} (after {})", date_and_time(ended, zone), short(ended.since(job.submitted)))));
    }
    facts
}

fn step_line(job: &JobView) -> String {
    let mut line = match job.total_steps {
        Some(total) if total > 0 => format!("{} of {total} ({}%)", job.step, job.step.0 * 100 / total),
        _ => job.step.to_string(),
    };
    if let Some(progress) = &job.progress {
        let _ = write!(line, ", epoch {}", progress.epoch);
    }
    let behind = job.step.0.saturating_sub(job.durable_step.0);
    let _ = match (job.durable_step.0, behind) {
        (0, 0) => Ok(()),
        (0, _) => write!(line, ", no checkpoint yet"),
        (_, 0) => write!(line, ", saved"),
        (_, behind) => write!(line, ", saved up to {} ({} behind)", job.durable_step, count(behind, "step")),
    };
    line
}

#[cfg(test)]
mod tests {
    use unimse_core::id::{Generation, Rank};
    use unimse_core::job::HistoryEntry;
    use unimse_core::view::RankView;

    use super::super::job::tests::{NOW, failed, running};
    use super::*;

    fn plain(detail: &JobDetail) -> String {
        anstream::adapter::strip_str(&page(detail, NOW, &TimeZone::UTC, None)).to_string()
    }

    #[test]
    fn a_running_job_fills_a_page() {
        let detail = JobDetail {
            job: running(),
            ranks: vec![RankView { rank: Rank(0), node: "lab1".into(), slot: 3, ready: true }],
            checkpoints: vec![],
            history: vec![HistoryEntry { at: NOW, generation: Generation(2), what: "rank 1 killed (SIGKILL)".into() }],
            spec: serde_json::Value::Null,
        };
        let id = detail.job.id;
        let expected = format!(
            "\
{id}  mosi-meld  running
  step        12400 of 50000 (24%), epoch 3, saved up to 12200 (200 steps behind)
  training    loss 1.234, learning rate 3e-4, 86.40 samples/s, 2h10m left
  slots       4 of 4, at least 2, priority 50
  generation  2
  restarts    1 of 5
  submitted   2026-11-21 20:00:03 (41m ago)

ranks
  RANK  NODE  SLOT  STATE
     0  lab1     3  running

metrics at step 12400
  valid/mae  0.5310

history
  20:41:03  rank 1 killed (SIGKILL)
"
        );
        assert_eq!(plain(&detail), expected);
    }

    #[test]
    fn a_failed_job_says_why_at_once() {
        let detail = JobDetail {
            job: failed(),
            ranks: vec![],
            checkpoints: vec![],
            history: vec![],
            spec: serde_json::Value::Null,
        };
        let text = plain(&detail);
        assert_eq!(text.lines().nth(1), Some("  because     lab2/gpu1: CUDA out of memory"));
        assert!(text.contains("ended       2026-11-21 20:41:03 (after 3h)"), "{text}");
    }
}
