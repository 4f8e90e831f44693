//! Sweeps: the sweep decides, its trials are jobs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::event::{Answer, Refusal};
use super::{Machine, Turn};
use crate::id::{JobId, SweepId, TrialId};
use crate::job::{AfterStop, Origin, Phase};
use crate::sweep::{Sweep, SweepAction, SweepEvent, SweepOutcome, SweepSpec, SweepStatus};
use crate::time::Timestamp;

/// A sweep as recorded in the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepRecord {
    pub id: SweepId,
    pub submitted: Timestamp,
    pub checkpoint_uri: String,
    pub sweep: Sweep,
    /// The job of the newest attempt of each trial.
    pub trials: BTreeMap<TrialId, JobId>,
}

impl SweepRecord {
    /// One word for tables.
    pub fn status_word(&self) -> &'static str {
        match self.sweep.status() {
            SweepStatus::New => "new",
            SweepStatus::Running => "running",
            SweepStatus::Paused => "paused",
            SweepStatus::Ended(SweepOutcome::Finished) => "completed",
            SweepStatus::Ended(SweepOutcome::Stopped) => "stopped",
            SweepStatus::Ended(SweepOutcome::Failed { .. }) => "failed",
        }
    }

    /// Whether nothing more will happen to it.
    pub fn ended(&self) -> bool {
        matches!(self.sweep.status(), SweepStatus::Ended(_))
    }
}

impl Machine {
    pub(super) fn sweep_run(
        &mut self,
        turn: &mut Turn,
        key: Option<String>,
        spec: SweepSpec,
        checkpoint_uri: String,
    ) -> Result<Answer, Refusal> {
        if let Some(&sweep) = key.as_ref().and_then(|key| self.state.sweep_keys.get(key)) {
            return Ok(Answer::Sweep { sweep, new: false });
        }
        // A parameter that no job accepts would fail every trial: better to say so now.
        spec.trial_job(TrialId(0)).map_err(|error| Refusal::BadSweep(error.to_string()))?;
        let id = SweepId(self.state.next_sweep);
        self.state.next_sweep += 1;
        let trials = BTreeMap::new();
        let record = SweepRecord { id, submitted: turn.now, checkpoint_uri, sweep: Sweep::new(spec), trials };
        self.state.sweeps.insert(id, record);
        if let Some(key) = key {
            self.state.sweep_keys.insert(key, id);
        }
        self.drive(turn, id, SweepEvent::Started);
        Ok(Answer::Sweep { sweep: id, new: true })
    }

    pub(super) fn sweep_pause(&mut self, turn: &mut Turn, sweep: SweepId) -> Result<Answer, Refusal> {
        self.sweep_command(turn, sweep, "pause", SweepEvent::Paused)
    }

    pub(super) fn sweep_resume(&mut self, turn: &mut Turn, sweep: SweepId) -> Result<Answer, Refusal> {
        self.sweep_command(turn, sweep, "resume", SweepEvent::Resumed)
    }

    pub(super) fn sweep_stop(&mut self, turn: &mut Turn, sweep: SweepId) -> Result<Answer, Refusal> {
        self.sweep_command(turn, sweep, "stop", SweepEvent::Stopped)
    }

    fn sweep_command(
        &mut self,
        turn: &mut Turn,
        sweep: SweepId,
        action: &str,
        event: SweepEvent,
    ) -> Result<Answer, Refusal> {
        let record = self.state.sweeps.get(&sweep).ok_or(Refusal::UnknownSweep(sweep))?;
        if let SweepStatus::Ended(_) = record.sweep.status() {
            let status = record.status_word().to_owned();
            return Err(Refusal::WrongSweepStatus { sweep, action: action.to_owned(), status });
        }
        self.drive(turn, sweep, event);
        Ok(Answer::Done)
    }

    /// Feeds one event to a sweep and carries out what it decides, which may cause further events.
    fn drive(&mut self, turn: &mut Turn, sweep: SweepId, event: SweepEvent) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let Some(record) = self.state.sweeps.get_mut(&sweep) else { return };
            for action in record.sweep.step(event) {
                if let Some(caused) = self.act(turn, sweep, action) {
                    events.push_back(caused);
                }
            }
        }
        turn.effects.push(Effect::SweepChanged(sweep));
    }

    fn act(&mut self, turn: &mut Turn, sweep: SweepId, action: SweepAction) -> Option<SweepEvent> {
        match action {
            SweepAction::StartTrial { trial, .. } => {
                let record = &self.state.sweeps[&sweep];
                let uri = record.checkpoint_uri.clone();
                let spec = match record.sweep.spec().trial_job(trial) {
                    Ok(spec) => Arc::new(spec),
                    Err(error) => return Some(SweepEvent::TrialFailed { trial, reason: error.to_string() }),
                };
                let job = self.create_job(turn, spec, uri, Some(Origin { sweep, trial }));
                self.state.sweeps.get_mut(&sweep).expect("looked up above").trials.insert(trial, job);
            }
            SweepAction::PauseTrial { trial, reason } => {
                let job = self.trial_job(sweep, trial)?;
                // A trial that has just ended has nothing to pause; the sweep hears of its end in its own event.
                let _ended = self.pause(turn, job, &reason);
            }
            SweepAction::ResumeTrial { trial, reason } => {
                let job = self.trial_job(sweep, trial)?;
                let record = self.state.jobs.get_mut(&job)?;
                match &mut record.phase {
                    Phase::Stopping { then, .. } => *then = AfterStop::Queued { reason },
                    Phase::Paused { .. } => {
                        record.note(turn.now, reason.as_str());
                        record.phase = Phase::Queued { since: turn.now, not_before: None, reason };
                    }
                    _ => {}
                }
                turn.changed(job);
            }
            SweepAction::StopTrial { trial, reason } => {
                let job = self.trial_job(sweep, trial)?;
                if self.state.jobs.get(&job).is_some_and(|record| !record.phase.ended()) {
                    self.end(turn, job, Phase::Cancelled { at: turn.now }, &reason);
                }
            }
            SweepAction::Complete { .. } => {}
        }
        None
    }

    fn trial_job(&self, sweep: SweepId, trial: TrialId) -> Option<JobId> {
        self.state.sweeps.get(&sweep)?.trials.get(&trial).copied()
    }

    /// The sweep for which this job is the newest attempt of a trial.
    fn trial_of(&self, job: JobId) -> Option<Origin> {
        let origin = self.state.jobs.get(&job)?.origin?;
        (self.trial_job(origin.sweep, origin.trial) == Some(job)).then_some(origin)
    }

    fn sweep_value(&self, job: JobId, sweep: SweepId) -> Option<f64> {
        let name = &self.state.sweeps.get(&sweep)?.sweep.spec().metric.name;
        self.state.jobs.get(&job)?.evaluation.as_ref()?.metrics.get(name).copied()
    }

    pub(super) fn tell_sweep_reported(&mut self, turn: &mut Turn, job: JobId) {
        let Some(Origin { sweep, trial }) = self.trial_of(job) else { return };
        let step = self.state.jobs[&job].evaluation.as_ref().map(|evaluation| evaluation.step).unwrap_or_default();
        // A metric that is not a number counts as the worst there is.
        let value = self.sweep_value(job, sweep).unwrap_or(f64::NAN);
        self.drive(turn, sweep, SweepEvent::TrialReported { trial, step, value });
    }

    pub(super) fn tell_sweep_finished(&mut self, turn: &mut Turn, job: JobId) {
        let Some(Origin { sweep, trial }) = self.trial_of(job) else { return };
        let event = match self.sweep_value(job, sweep) {
            Some(value) => SweepEvent::TrialFinished { trial, value },
            None => SweepEvent::TrialFailed { trial, reason: "ended without a value of the sweep's metric".to_owned() },
        };
        self.drive(turn, sweep, event);
    }

    pub(super) fn tell_sweep_cancelled(&mut self, turn: &mut Turn, job: JobId) {
        let Some(Origin { sweep, trial }) = self.trial_of(job) else { return };
        self.drive(turn, sweep, SweepEvent::TrialCancelled { trial });
    }

    pub(super) fn tell_sweep_failed(&mut self, turn: &mut Turn, job: JobId, reason: &str) {
        let Some(Origin { sweep, trial }) = self.trial_of(job) else { return };
        self.drive(turn, sweep, SweepEvent::TrialFailed { trial, reason: reason.to_owned() });
    }
}
