//! What happened to a job since somebody began to look, in lines for people. Pure: views in, lines out.

use std::fmt::Write;

use jiff::tz::TimeZone;
use unimse_core::id::{Generation, JobId, Step};
use unimse_core::job::HistoryEntry;
use unimse_core::time::Timestamp;
use unimse_core::view::JobView;

use crate::error::split_hint;
use crate::render::amount::number;
use crate::render::job::{eta, has_ended, headline, steps};
use crate::render::table::clean;
use crate::render::time::{short, time_of_day};

/// Milliseconds between two lines of progress, where no bar shows it.
const PROGRESS_EVERY: u64 = 30_000;

/// How a story is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Telling {
    /// Each line begins with the job's id.
    pub(crate) named: bool,
    /// Evaluations and checkpoints are told, because no log lines do.
    pub(crate) milestones: bool,
    /// Progress is told from time to time, because nothing else shows it.
    pub(crate) progress: bool,
}

/// One job as far as it has been told.
#[derive(Debug)]
pub(crate) struct Story {
    job: JobId,
    telling: Telling,
    view: Option<JobView>,
    /// The newest change that was told, or was there before.
    told: Option<HistoryEntry>,
    /// The newest generation that was told.
    generation: Generation,
    progress_told: Timestamp,
}

impl Story {
    /// Begins without knowing anything.
    pub(crate) fn new(job: JobId, telling: Telling) -> Self {
        Self { job, telling, view: None, told: None, generation: Generation(0), progress_told: Timestamp::default() }
    }

    /// Takes a new view and says what is new in it.
    pub(crate) fn update(
        &mut self,
        view: &JobView,
        history: &[HistoryEntry],
        zone: &TimeZone,
        now: Timestamp,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        let before = self.view.replace(view.clone());
        match &before {
            // Of a job that has ended already, the ending is all that is left to tell.
            None if has_ended(&view.state) => {}
            None => {
                self.generation = view.generation;
                lines.push(opening(view));
                self.progress_told = now;
            }
            Some(before) => {
                let news = self.news(history).to_vec();
                for entry in &news {
                    let generation = if entry.generation > self.generation.max(Generation(1)) {
                        format!(" (generation {})", entry.generation)
                    } else {
                        String::new()
                    };
                    self.generation = self.generation.max(entry.generation);
                    lines.push(format!("{}  {}{generation}", time_of_day(entry.at, zone), headline(&entry.what)));
                }
                lines.extend(
                    changes(before, view, self.telling.milestones)
                        .into_iter()
                        .map(|line| format!("{}  {line}", time_of_day(now, zone))),
                );
                let due = now.0.saturating_sub(self.progress_told.0) >= PROGRESS_EVERY;
                if self.telling.progress && due && view.state == "running" && view.step > before.step {
                    lines.push(format!("{}  {}", time_of_day(now, zone), progress(view)));
                    self.progress_told = now;
                }
            }
        }
        if let Some(newest) = history.last() {
            self.told = Some(newest.clone());
        }
        if self.telling.named {
            for line in &mut lines {
                if before.is_some() {
                    line.insert_str(0, &format!("{}  ", self.job));
                }
            }
        }
        lines
    }

    /// The entries after the newest that was told; the list is a window that moves on.
    fn news<'a>(&self, history: &'a [HistoryEntry]) -> &'a [HistoryEntry] {
        let known = self.told.as_ref().and_then(|told| history.iter().rposition(|entry| entry == told));
        known.map_or(history, |known| &history[known + 1..])
    }

    pub(crate) fn job(&self) -> JobId {
        self.job
    }

    pub(crate) fn view(&self) -> Option<&JobView> {
        self.view.as_ref()
    }

    pub(crate) fn into_view(self) -> Option<JobView> {
        self.view
    }

    /// Whether the job needs no more watching.
    pub(crate) fn has_ended(&self) -> bool {
        self.view.as_ref().is_some_and(|view| has_ended(&view.state))
    }

    /// Says where a job stands that has not ended.
    pub(crate) fn unfinished_line(&self) -> Option<String> {
        match &self.view {
            None => Some(format!("{} was not heard of", self.job)),
            Some(view) if has_ended(&view.state) => None,
            Some(view) => Some(format!("{} is {} at step {}", self.job, view.state, steps(view))),
        }
    }
}

/// Says where a job stands when somebody begins to look.
fn opening(view: &JobView) -> String {
    let mut line = format!("{} {}: {}", view.id, view.name, view.state);
    if view.step > Step(0) {
        let _ = write!(line, ", step {}", steps(view));
    }
    if view.generation > Generation(1) {
        let _ = write!(line, ", generation {}", view.generation);
    }
    if !view.reason.is_empty() {
        let _ = write!(line, " ({})", headline(&view.reason));
    }
    line
}

/// Says what moved between two views and is in no history.
fn changes(before: &JobView, view: &JobView, milestones: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if milestones && view.evaluated_step.is_some() && view.evaluated_step != before.evaluated_step {
        let step = view.evaluated_step.unwrap_or_default();
        let value = view.metrics.get(&view.metric).map(|&value| format!(": {} {}", view.metric, number(value)));
        lines.push(format!("evaluated at step {step}{}", value.unwrap_or_default()));
    }
    if milestones && view.durable_step > before.durable_step {
        lines.push(format!("checkpoint of step {} saved", view.durable_step));
    }
    let waits = matches!(view.state.as_str(), "queued" | "paused");
    if waits && view.state == before.state && view.reason != before.reason && !view.reason.is_empty() {
        lines.push(format!("still {}: {}", view.state, headline(&view.reason)));
    }
    lines
}

/// Says how far a job is, in one line.
pub(crate) fn progress(view: &JobView) -> String {
    let mut parts = vec![format!("step {}", steps(view))];
    if let Some(progress) = &view.progress {
        parts.push(format!("loss {}", number(progress.loss)));
        parts.push(format!("{} samples/s", number(progress.samples_per_second)));
    }
    if view.eta_seconds.is_some() {
        parts.push(format!("{} left", eta(view)));
    }
    parts.join(", ")
}

/// Says how a job ended, for the person who followed it.
pub(crate) fn ending(view: &JobView) -> String {
    let after = view.ended.map(|ended| format!(" after {}", short(ended.since(view.submitted)))).unwrap_or_default();
    let id = view.id;
    match view.state.as_str() {
        "completed" => {
            let value = view.metrics.get(&view.metric).map(|&value| format!(", {} {}", view.metric, number(value)));
            let saved = if view.durable_step > Step(0) {
                format!("\n  its best checkpoint: unimse ckpt pull {id}:best DIR")
            } else {
                String::new()
            };
            format!("{id} completed{after}: step {}{}{saved}", steps(view), value.unwrap_or_default())
        }
        "failed" => {
            let (what, hint) = split_hint(&view.reason);
            let own = hint.map_or_else(String::new, |hint| format!("\nhint: {}", clean(hint)));
            let reason = format!("{}{own}", clean(what));
            format!(
                "error: {id} failed{after}: {reason}\nhint: see `unimse logs {id}`; when the cause is mended, `unimse retry {id}`"
            )
        }
        state => format!("{id} {state}{after} at step {}", steps(view)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::job::tests::{NOW, failed, running};

    const TALK: Telling = Telling { named: false, milestones: true, progress: true };

    fn entry(seconds: u64, generation: u64, what: &str) -> HistoryEntry {
        HistoryEntry { at: Timestamp(NOW.0 + seconds * 1000), generation: Generation(generation), what: what.into() }
    }

    fn tell(story: &mut Story, view: &JobView, history: &[HistoryEntry], seconds: u64) -> Vec<String> {
        story.update(view, history, &TimeZone::UTC, Timestamp(NOW.0 + seconds * 1000))
    }

    #[test]
    fn what_was_before_is_summed_up_and_what_comes_is_told_once() {
        let mut story = Story::new(running().id, TALK);
        let mut history = vec![entry(0, 2, "formed")];
        let id = running().id;
        assert_eq!(
            tell(&mut story, &running(), &history, 1),
            [format!("{id} mosi-meld: running, step 12400/50000, generation 2")]
        );
        history.push(entry(2, 3, "rank 1 on lab1/slot1: killed (SIGKILL): world size 3"));
        let view = JobView { generation: Generation(3), slots_held: 3, ..running() };
        assert_eq!(
            tell(&mut story, &view, &history, 2),
            ["20:41:05  rank 1 on lab1/slot1: killed (SIGKILL): world size 3 (generation 3)"]
        );
        assert_eq!(tell(&mut story, &view, &history, 3), Vec::<String>::new());
        // The window has moved on while nobody listened.
        let moved = [history[1].clone(), entry(4, 3, "formed; state of step 12399 from rank 0's memory")];
        assert_eq!(tell(&mut story, &view, &moved, 4), ["20:41:07  formed; state of step 12399 from rank 0's memory"]);
    }

    #[test]
    fn evaluations_checkpoints_and_slow_progress_are_told() {
        let mut story = Story::new(running().id, TALK);
        tell(&mut story, &running(), &[], 0);
        let view =
            JobView { evaluated_step: Some(Step(12_600)), durable_step: Step(12_600), step: Step(12_600), ..running() };
        assert_eq!(
            tell(&mut story, &view, &[], 10),
            ["20:41:13  evaluated at step 12600: valid/mae 0.5310", "20:41:13  checkpoint of step 12600 saved"]
        );
        let later = JobView { step: Step(12_700), ..view };
        assert_eq!(
            tell(&mut story, &later, &[], 40),
            ["20:41:43  step 12700/50000, loss 1.234, 86.40 samples/s, 2h10m left"]
        );
        let soon = JobView { step: Step(12_701), ..later };
        assert_eq!(tell(&mut story, &soon, &[], 45), Vec::<String>::new());
    }

    #[test]
    fn several_jobs_are_told_apart() {
        let mut story = Story::new(running().id, Telling { named: true, milestones: true, progress: false });
        tell(&mut story, &running(), &[], 0);
        let lines = tell(&mut story, &running(), &[entry(1, 2, "paused at step 5")], 1);
        assert_eq!(lines, [format!("{}  20:41:04  paused at step 5", running().id)]);
    }

    #[test]
    fn an_ending_says_what_to_do_next() {
        let id = running().id;
        let completed = JobView { state: "completed".into(), ended: Some(NOW), step: Step(50_000), ..running() };
        assert_eq!(
            ending(&completed),
            format!(
                "{id} completed after 41m: step 50000/50000, valid/mae 0.5310\n  its best checkpoint: unimse ckpt pull {id}:best DIR"
            )
        );
        let odd = JobView { reason: "rank 1: no file\n  hint: check the path".into(), ..failed() };
        assert!(
            ending(&odd).contains("rank 1: no file\nhint: check the path\nhint: see `unimse logs"),
            "{}",
            ending(&odd)
        );
        let id = failed().id;
        assert_eq!(
            ending(&failed()),
            format!(
                "error: {id} failed after 3h: lab2/gpu1: CUDA out of memory\n\
                 hint: see `unimse logs {id}`; when the cause is mended, `unimse retry {id}`"
            )
        );
    }
}
