//! The sweep as a state machine: events in, actions out.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::SweepSpec;
use super::asha::{Ladder, Outcome};
use super::trial::{Trial, TrialResult, TrialRow, TrialStatus};
use crate::id::{Step, TrialId};
use crate::metrics::nan_if_null;

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SweepEvent {
    /// The sweep was submitted.
    Started,
    /// A trial's job evaluated its metric. After a crash the same step may be reported again.
    TrialReported {
        trial: TrialId,
        step: Step,
        #[serde(deserialize_with = "nan_if_null")]
        value: f64,
    },
    /// A trial's job ran to its end; `value` is what it is judged by.
    TrialFinished {
        trial: TrialId,
        #[serde(deserialize_with = "nan_if_null")]
        value: f64,
    },
    /// A trial's job failed after all its own restarts.
    TrialFailed { trial: TrialId, reason: String },
    /// A person ended a trial.
    TrialCancelled { trial: TrialId },
    /// A person pauses the sweep.
    Paused,
    /// A person lets it go on.
    Resumed,
    /// A person ends it.
    Stopped,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SweepAction {
    /// Submit the trial's job, or retry it when `attempt` is above 0.
    StartTrial { trial: TrialId, attempt: u32, overrides: BTreeMap<String, Value> },
    /// Let its job save its state at a step boundary and give its slots back.
    PauseTrial { trial: TrialId, reason: String },
    /// Let its job go on from where it was paused.
    ResumeTrial { trial: TrialId, reason: String },
    /// Cancel its job; it will not be needed again.
    StopTrial { trial: TrialId, reason: String },
    /// Nothing will happen any more.
    Complete { outcome: SweepOutcome, best: Option<TrialResult> },
}

/// How a sweep ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SweepOutcome {
    /// Every trial has run as far as it deserved.
    Finished,
    /// A person ended it.
    Stopped,
    /// Too many trials failed.
    Failed { reason: String },
}

/// Where a sweep is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SweepStatus {
    /// Not started yet.
    New,
    Running,
    Paused,
    Ended(SweepOutcome),
}

impl SweepStatus {
    /// Whether nothing will happen any more.
    pub fn ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

impl fmt::Display for SweepStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::New => "new",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Ended(SweepOutcome::Finished) => "finished",
            Self::Ended(SweepOutcome::Stopped) => "stopped",
            Self::Ended(SweepOutcome::Failed { .. }) => "failed",
        })
    }
}

/// A sweep: its specification and all that has come of it. Serialised, it is its own snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    spec: SweepSpec,
    status: SweepStatus,
    trials: Vec<Trial>,
    /// Present with early stop.
    ladder: Option<Ladder>,
}

impl Sweep {
    /// Plans a sweep; nothing happens before [`SweepEvent::Started`].
    pub fn new(spec: SweepSpec) -> Self {
        let count = spec.trial_count();
        let ladder = spec.early_stop.map(|asha| Ladder::new(asha, spec.metric.goal, count));
        Self { trials: (0..count).map(|_| Trial::new()).collect(), status: SweepStatus::New, ladder, spec }
    }

    /// Takes note of what happened and says what is to be done. Events that come late, twice or for an unknown trial do no harm.
    pub fn step(&mut self, event: SweepEvent) -> Vec<SweepAction> {
        if self.status.ended() {
            return Vec::new();
        }
        let mut actions = Vec::new();
        match event {
            SweepEvent::Started if self.status == SweepStatus::New => self.status = SweepStatus::Running,
            SweepEvent::Started => {}
            SweepEvent::TrialReported { trial, step, value } => self.reported(trial, step, value),
            SweepEvent::TrialFinished { trial, value } => self.finished(trial, value),
            SweepEvent::TrialFailed { trial, reason } => self.failed(trial, &reason),
            SweepEvent::TrialCancelled { trial } => self.lost(trial, TrialStatus::Stopped, "cancelled".into()),
            SweepEvent::Paused => {
                self.status = SweepStatus::Paused;
                self.pause_all(&mut actions);
            }
            SweepEvent::Resumed => self.status = SweepStatus::Running,
            SweepEvent::Stopped => {
                self.end(SweepOutcome::Stopped, &mut actions);
                return actions;
            }
        }
        self.advance(&mut actions);
        actions
    }

    /// What the sweep was made from.
    pub fn spec(&self) -> &SweepSpec {
        &self.spec
    }

    /// How parameters are chosen, in one word.
    pub fn method(&self) -> &'static str {
        self.spec.method.word()
    }

    /// Where it is in its life.
    pub fn status(&self) -> &SweepStatus {
        &self.status
    }

    /// The best trial that ran to its end; before any did, the one with the best newest report. The smaller number among equals.
    pub fn best(&self) -> Option<TrialResult> {
        let goal = self.spec.metric.goal;
        let trials = || self.trials.iter().enumerate();
        let results = trials().filter_map(|(at, trial)| Some((at, self.result(trial)?)));
        let reports = trials().filter_map(|(at, trial)| Some((at, trial.latest?.1)));
        let (finished, (at, value)) = match goal.best_by(results, |(_, value)| *value) {
            Some(best) => (true, best),
            None => (false, goal.best_by(reports, |(_, value)| *value)?),
        };
        let trial = TrialId(at as u32);
        Some(TrialResult { trial, value, finished, overrides: self.spec.overrides(trial) })
    }

    /// All trials, for people.
    pub fn table(&self) -> Vec<TrialRow> {
        let row = |(at, trial): (usize, &Trial)| TrialRow {
            trial: TrialId(at as u32),
            status: trial.status,
            failures: trial.failures,
            // How much further it ran before its pause arrived is timing, and counts for nothing.
            rungs: trial.passed.len().min(trial.rung + 1) as u32,
            latest: trial.latest,
            result: trial.result,
            shown: self.spec.shown(TrialId(at as u32)),
            reason: trial.reason.clone(),
        };
        self.trials.iter().enumerate().map(row).collect()
    }

    /// How far each trial may go, in rungs.
    #[cfg(test)]
    pub(super) fn allowed(&self) -> Vec<usize> {
        self.trials.iter().map(|trial| trial.rung).collect()
    }

    fn trial(&mut self, id: TrialId) -> Option<&mut Trial> {
        self.trials.get_mut(id.0 as usize).filter(|trial| !trial.status.is_final())
    }

    fn reported(&mut self, id: TrialId, step: Step, value: f64) {
        // Not `self.trial`, because the ladder is borrowed beside it.
        let Some(trial) = self.trials.get_mut(id.0 as usize).filter(|trial| !trial.status.is_final()) else { return };
        if value.is_finite() && trial.latest.is_none_or(|(latest, _)| step >= latest) {
            trial.latest = Some((step, value));
        }
        let Some(ladder) = &mut self.ladder else { return };
        // The first report at or after a rung's step counts; a trial that was rewound by a crash reports the same value again.
        while ladder.step(trial.passed.len()).is_some_and(|rung| step >= rung) {
            trial.passed.push(Outcome::of(value));
        }
        for (rung, outcome) in trial.passed.iter().enumerate().take(trial.rung + 1) {
            ladder.record(id, rung, *outcome);
        }
    }

    fn finished(&mut self, id: TrialId, value: f64) {
        let Some(trial) = self.trial(id) else { return };
        trial.status = TrialStatus::Finished;
        trial.result = value.is_finite().then_some(value);
        trial.reason = match trial.result {
            Some(_) => "ran to its end".into(),
            None => "ran to its end without a finite metric".into(),
        };
        self.settle(id, Outcome::of(value));
    }

    fn failed(&mut self, id: TrialId, reason: &str) {
        let retry = self.spec.on_failure.retry;
        let Some(trial) = self.trial(id) else { return };
        trial.failures += 1;
        if trial.failures <= retry {
            trial.status = TrialStatus::Pending;
            trial.reason = format!("to be tried again ({} of {retry}): {reason}", trial.failures);
        } else {
            self.lost(id, TrialStatus::Failed, reason.to_owned());
        }
    }

    fn lost(&mut self, id: TrialId, status: TrialStatus, reason: String) {
        let Some(trial) = self.trial(id) else { return };
        trial.status = status;
        trial.reason = reason;
        self.settle(id, Outcome::Lost);
    }

    /// A trial that will report no more passes all further rungs with what it ended with, so that nobody waits for it.
    fn settle(&mut self, id: TrialId, outcome: Outcome) {
        let Some(ladder) = &mut self.ladder else { return };
        let trial = &mut self.trials[id.0 as usize];
        trial.passed.resize(ladder.len(), outcome);
        for (rung, outcome) in trial.passed.iter().enumerate().take(trial.rung + 1) {
            ladder.record(id, rung, *outcome);
        }
    }

    /// Everything that follows from the state alone: promotions, pauses, new trials, the end.
    fn advance(&mut self, actions: &mut Vec<SweepAction>) {
        self.promote();
        if let Some(reason) = self.failure() {
            return self.end(SweepOutcome::Failed { reason }, actions);
        }
        if self.status != SweepStatus::Running {
            return;
        }
        self.pause_at_rungs(actions);
        loop {
            self.fill(actions);
            if self.trials.iter().any(|trial| trial.status == TrialStatus::Running) {
                return;
            }
            match self.strongest() {
                Some(id) => self.trials[id.0 as usize].rung = self.top(),
                None => return self.end(self.verdict(), actions),
            }
        }
    }

    /// The number of rungs; a trial that may run to its end has this rung.
    fn top(&self) -> usize {
        self.ladder.as_ref().map_or(0, Ladder::len)
    }

    /// What a trial ended with, if it was meant to run to its end.
    ///
    /// A trial may reach its end while the order to pause is still on its way. Whether it does is a matter of timing, so its
    /// result counts only if the rungs let it go that far.
    fn result(&self, trial: &Trial) -> Option<f64> {
        trial.result.filter(|_| trial.rung >= self.top())
    }

    fn promote(&mut self) {
        let Some(ladder) = &mut self.ladder else { return };
        while let Some(promotions) = ladder.judge() {
            for promotion in promotions {
                let trial = &mut self.trials[promotion.trial.0 as usize];
                trial.rung = trial.rung.max(promotion.rung);
                if let Some(outcome) = trial.passed.get(promotion.rung) {
                    ladder.record(promotion.trial, promotion.rung, *outcome);
                }
            }
        }
    }

    /// With a ladder and no finished trial, the strongest of those that wait runs to its end: a sweep has something to show.
    fn strongest(&self) -> Option<TrialId> {
        let finished = self.trials.iter().any(|trial| self.result(trial).is_some());
        let ladder = self.ladder.as_ref().filter(|_| !finished)?;
        let lost = [TrialStatus::Failed, TrialStatus::Stopped];
        ladder.strongest(|id| {
            let trial = &self.trials[id.0 as usize];
            trial.rung < self.top() && !lost.contains(&trial.status)
        })
    }

    fn failure(&self) -> Option<String> {
        let failed = self.trials.iter().filter(|trial| trial.status == TrialStatus::Failed).count();
        let limit = self.spec.on_failure.max_failed? as usize;
        (failed > limit).then(|| format!("{failed} trials failed, the limit is {limit}"))
    }

    fn verdict(&self) -> SweepOutcome {
        if self.trials.iter().any(|trial| trial.status == TrialStatus::Finished && trial.rung >= self.top()) {
            return SweepOutcome::Finished;
        }
        let first = self.trials.iter().position(|trial| trial.status == TrialStatus::Failed);
        let why = first.map_or_else(String::new, |at| format!("; trial {at}: {}", self.trials[at].reason));
        SweepOutcome::Failed { reason: format!("no trial ran to its end{why}") }
    }

    fn pause_all(&mut self, actions: &mut Vec<SweepAction>) {
        for (at, trial) in self.trials.iter_mut().enumerate() {
            if trial.status == TrialStatus::Running {
                trial.status = TrialStatus::Paused;
                trial.reason = "the sweep is paused".into();
                actions.push(SweepAction::PauseTrial { trial: TrialId(at as u32), reason: trial.reason.clone() });
            }
        }
    }

    /// Trials that have got as far as they may wait for the verdict without slots.
    fn pause_at_rungs(&mut self, actions: &mut Vec<SweepAction>) {
        let Some(ladder) = &self.ladder else { return };
        for (at, trial) in self.trials.iter_mut().enumerate() {
            if trial.status == TrialStatus::Running && trial.rung < ladder.len() && trial.passed.len() > trial.rung {
                let step = ladder.step(trial.rung).unwrap_or_default();
                trial.status = TrialStatus::Paused;
                trial.reason = format!("at rung {} (step {step}), not among the best so far", trial.rung);
                actions.push(SweepAction::PauseTrial { trial: TrialId(at as u32), reason: trial.reason.clone() });
            }
        }
    }

    /// Gives free places to promoted trials, the highest rung first, then to new ones in order.
    fn fill(&mut self, actions: &mut Vec<SweepAction>) {
        let running = self.trials.iter().filter(|trial| trial.status == TrialStatus::Running).count();
        for _ in running..self.spec.parallel as usize {
            let waiting = self.trials.iter().enumerate().filter(|(_, trial)| trial.may_run());
            let next = waiting.max_by_key(|(at, trial)| (trial.rung, std::cmp::Reverse(*at))).map(|(at, _)| at);
            let Some(at) = next else { return };
            let id = TrialId(at as u32);
            let overrides = self.spec.overrides(id);
            let trial = &mut self.trials[at];
            if trial.status == TrialStatus::Paused {
                trial.reason = match &self.ladder {
                    Some(ladder) if trial.rung >= ladder.len() => "promoted: runs to its end".into(),
                    Some(_) if trial.rung > 0 => format!("promoted to rung {}", trial.rung),
                    _ => "the sweep goes on".into(),
                };
                actions.push(SweepAction::ResumeTrial { trial: id, reason: trial.reason.clone() });
            } else {
                trial.reason = "runs".into();
                actions.push(SweepAction::StartTrial { trial: id, attempt: trial.failures, overrides });
            }
            trial.status = TrialStatus::Running;
        }
    }

    fn end(&mut self, outcome: SweepOutcome, actions: &mut Vec<SweepAction>) {
        let why = match &outcome {
            SweepOutcome::Finished => "others were better",
            SweepOutcome::Stopped => "the sweep was stopped",
            SweepOutcome::Failed { .. } => "the sweep failed",
        };
        for (at, trial) in self.trials.iter_mut().enumerate() {
            if matches!(trial.status, TrialStatus::Running | TrialStatus::Paused) {
                actions.push(SweepAction::StopTrial { trial: TrialId(at as u32), reason: why.to_owned() });
            }
            if !trial.status.is_final() {
                trial.status = TrialStatus::Stopped;
                why.clone_into(&mut trial.reason);
            }
        }
        self.status = SweepStatus::Ended(outcome.clone());
        actions.push(SweepAction::Complete { outcome, best: self.best() });
    }
}
