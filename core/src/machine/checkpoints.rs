//! Which checkpoints count, and which go.

use std::collections::BTreeMap;

use super::effect::Effect;
use super::event::{Answer, Refusal};
use super::{Machine, Turn};
use crate::checkpoint::{CheckpointRecord, CheckpointRef, CheckpointState};
use crate::id::{JobId, Step};
use crate::job::{Job, Phase};
use crate::metrics::Goal;
use crate::retention::{self, Committed, Policy};

impl Machine {
    /// Accepts a checkpoint; the caller has checked that it comes from the current generation.
    pub(super) fn commit(
        &mut self,
        turn: &mut Turn,
        job: JobId,
        at: CheckpointRef,
        bytes: u64,
        world_size: u32,
        mut metrics: BTreeMap<String, f64>,
    ) {
        let record = self.state.jobs.get_mut(&job).expect("looked up by the caller");
        if record.checkpoints.iter().any(|known| known.at.manifest == at.manifest) {
            return;
        }
        metrics.retain(|_, value| value.is_finite());
        let state = CheckpointState::Committed;
        record.checkpoints.push(CheckpointRecord { at, state, bytes, world_size, metrics, committed: turn.now });
        turn.changed(job);
        self.retain(turn, job);
    }

    /// Lets retention choose what goes, marks it and orders the deletion.
    fn retain(&mut self, turn: &mut Turn, job: JobId) {
        let in_use = self.referenced(job);
        let record = self.state.jobs.get_mut(&job).expect("looked up by the caller");
        let spec = &record.spec.checkpoint;
        let policy = Policy { latest: spec.keep.latest, best: spec.keep.best, goal: spec.metric.goal };
        let list: Vec<Committed> = record
            .checkpoints
            .iter()
            .filter(|own| own.usable())
            .map(|own| Committed {
                step: own.at.step,
                generation: own.at.generation,
                metric: own.metrics.get(&spec.metric.name).copied(),
                verified: true,
                in_use: in_use.contains(&own.at.manifest),
            })
            .collect();
        for deletion in retention::decide(&list, policy) {
            let found = record
                .checkpoints
                .iter_mut()
                .find(|own| own.usable() && own.at.step == deletion.step && own.at.generation == deletion.generation);
            if let Some(own) = found {
                own.state = CheckpointState::Deleting { reason: deletion.reason };
                turn.effects.push(Effect::DeleteCheckpoint { job, at: own.at.clone() });
            }
        }
    }

    /// Manifests of this job from which another job is to begin.
    fn referenced(&self, job: JobId) -> Vec<String> {
        let others = self.state.jobs.values().filter(|other| other.id != job && !other.phase.ended());
        others.filter_map(|other| other.resume_from.as_ref().map(|at| at.manifest.clone())).collect()
    }

    /// A trainer found it damaged: it never counts again, and the job goes back to the one before.
    pub(super) fn damaged(&mut self, turn: &mut Turn, job: JobId, manifest: &str, message: &str) {
        let record = self.state.jobs.get_mut(&job).expect("looked up by the caller");
        if let Some(own) = record.checkpoints.iter_mut().find(|own| own.at.manifest == manifest) {
            own.state = CheckpointState::Damaged { reason: message.to_owned() };
        }
        let damaged_start = record.resume_from.as_ref().is_some_and(|at| at.manifest == manifest);
        match record.latest().map(|own| own.at.step) {
            Some(step) => {
                let why = format!("checkpoint {manifest} is damaged ({message}); goes back to step {step}");
                self.regenerate(turn, job, &why);
            }
            None if damaged_start || record.resume_from.is_none() => {
                let why = format!(
                    "checkpoint {manifest} is damaged ({message}) and no other is left; \
                     it does not start from scratch by itself: submit it again if that is what you want"
                );
                self.fail(turn, job, &why);
            }
            None => self.regenerate(turn, job, &format!("checkpoint {manifest} is damaged ({message}); begins again")),
        }
    }

    /// Removes by request. What something needs stays; the newest and the best go only when that is meant.
    pub(super) fn remove_checkpoint(
        &mut self,
        turn: &mut Turn,
        job: JobId,
        step: Step,
        force: bool,
    ) -> Result<Answer, Refusal> {
        let record = self.job(job)?;
        let found = record
            .checkpoints
            .iter()
            .rfind(|own| own.at.step == step && !matches!(own.state, CheckpointState::Deleting { .. }));
        let Some(own) = found else {
            return Err(Refusal::NoCheckpoint { job, which: format!(" of step {step}") });
        };
        let manifest = own.at.manifest.clone();
        if let Some((why, hint)) = self.why_kept(record, &manifest, force) {
            return Err(Refusal::CheckpointInUse { job, step, why: why.to_owned(), hint: hint.to_owned() });
        }
        let record = self.state.jobs.get_mut(&job).expect("looked up above");
        let own = record.checkpoints.iter_mut().find(|own| own.at.manifest == manifest).expect("found above");
        own.state = CheckpointState::Deleting { reason: "removed by request".to_owned() };
        let at = own.at.clone();
        turn.effects.push(Effect::DeleteCheckpoint { job, at });
        turn.changed(job);
        Ok(Answer::Done)
    }

    /// Why a checkpoint stays although somebody wants it gone, and what would change that.
    fn why_kept(&self, record: &Job, manifest: &str, force: bool) -> Option<(&'static str, &'static str)> {
        let is = |other: Option<&CheckpointRecord>| other.is_some_and(|other| other.at.manifest == manifest);
        let (newest, best) = (is(record.latest()), is(Self::best_checkpoint(record)));
        let active =
            !record.phase.ended() && !matches!(record.phase, Phase::Queued { .. } if record.checkpoints.len() > 1);
        if self.referenced(record.id).iter().any(|needed| needed == manifest) {
            return Some(("where another job begins", "cancel that job first"));
        }
        if newest && active {
            return Some(("what the job goes on from", "cancel the job first"));
        }
        let only = record.checkpoints.iter().filter(|own| own.usable()).count() == 1;
        let why = match (newest, best) {
            _ if force => return None,
            (true, _) if only => "its only one",
            (true, true) => "its newest and its best",
            (true, false) => "its newest",
            (false, true) => "its best",
            (false, false) => return None,
        };
        Some((why, "add --force to remove it all the same"))
    }

    pub(super) fn checkpoint_deleted(&mut self, turn: &mut Turn, job: JobId, manifest: &str) -> Answer {
        if let Some(record) = self.state.jobs.get_mut(&job) {
            let gone = |own: &CheckpointRecord| {
                own.at.manifest == manifest && matches!(own.state, CheckpointState::Deleting { .. })
            };
            record.checkpoints.retain(|own| !gone(own));
            turn.changed(job);
        }
        Answer::Done
    }

    pub(super) fn pending_deletions(&self) -> Vec<Effect> {
        let of = |job: &Job| {
            let id = job.id;
            let pending = job.checkpoints.iter().filter(|own| matches!(own.state, CheckpointState::Deleting { .. }));
            pending.map(move |own| Effect::DeleteCheckpoint { job: id, at: own.at.clone() }).collect::<Vec<_>>()
        };
        self.state.jobs.values().flat_map(of).collect()
    }

    /// The usable checkpoint with the best metric; of equals the later step.
    pub fn best_checkpoint(job: &Job) -> Option<&CheckpointRecord> {
        let spec = &job.spec.checkpoint.metric;
        let goal: Goal = spec.goal;
        let rated = job
            .checkpoints
            .iter()
            .filter(|own| own.usable())
            .filter_map(|own| own.metrics.get(&spec.name).map(|&value| (value, own)));
        rated.max_by(|(a, x), (b, y)| goal.compare(*a, *b).then(x.at.step.cmp(&y.at.step))).map(|(_, own)| own)
    }
}
