//! Requests of people.

use std::sync::Arc;

use super::event::{Answer, Refusal, ResumeFrom, Submission};
use super::{Machine, Turn};
use crate::checkpoint::CheckpointRef;
use crate::id::{Generation, JobId, WorkerId};
use crate::job::{AfterStop, Job, Origin, Phase};
use crate::spec::{CheckpointName, JobSpec, Pick, Resume};

impl Machine {
    pub(super) fn submit(&mut self, turn: &mut Turn, submission: Submission) -> Result<Answer, Refusal> {
        if let Some(&job) = submission.key.as_ref().and_then(|key| self.state.job_keys.get(key)) {
            return Ok(Answer::Job { job, new: false });
        }
        let resume_from = match &submission.spec.resume {
            Resume::Checkpoint(name) => Some(self.resolve(&ResumeFrom::from(*name))?),
            Resume::Location(place) => Some(self.resolve(&named_checkpoint(place, &submission.checkpoint_uri))?),
            Resume::Auto | Resume::Never => None,
        };
        let job = self.create_job(turn, submission.spec, submission.checkpoint_uri, None);
        self.state.jobs.get_mut(&job).expect("just created").resume_from = resume_from;
        if let Some(key) = submission.key {
            self.state.job_keys.insert(key, job);
        }
        Ok(Answer::Job { job, new: true })
    }

    pub(super) fn create_job(
        &mut self,
        turn: &mut Turn,
        spec: Arc<JobSpec>,
        uri: String,
        origin: Option<Origin>,
    ) -> JobId {
        let id = JobId(self.state.next_job);
        self.state.next_job += 1;
        let mut job = Job {
            id,
            checkpoint_uri: spec.checkpoint.uri.clone().unwrap_or(uri),
            spec,
            submitted: turn.now,
            origin,
            generation: Generation(0),
            phase: Phase::Queued { since: turn.now, not_before: None, reason: "was submitted just now".to_owned() },
            restarts: 0,
            failed_at: None,
            failures_without_progress: 0,
            checkpoints: Vec::new(),
            resume_from: None,
            evaluation: None,
            history: Vec::new(),
        };
        job.note(turn.now, "submitted");
        self.state.jobs.insert(id, job);
        turn.changed(id);
        id
    }

    pub(super) fn cancel(&mut self, turn: &mut Turn, job: JobId) -> Result<Answer, Refusal> {
        let record = self.job(job)?;
        if record.phase.ended() {
            // Asking twice is no mistake; cancelling what has completed is one.
            return if matches!(record.phase, Phase::Cancelled { .. }) {
                Ok(Answer::Done)
            } else {
                Err(wrong_phase(record, "cancel", "it has ended already"))
            };
        }
        self.end(turn, job, Phase::Cancelled { at: turn.now }, "cancelled");
        self.tell_sweep_cancelled(turn, job);
        Ok(Answer::Done)
    }

    pub(super) fn pause(&mut self, turn: &mut Turn, job: JobId, why: &str) -> Result<Answer, Refusal> {
        let record = self.job(job)?;
        match &record.phase {
            Phase::Paused { .. } | Phase::Stopping { then: AfterStop::Paused, .. } => {}
            Phase::Queued { .. } => {
                let record = self.state.jobs.get_mut(&job).expect("looked up above");
                record.phase = Phase::Paused { since: turn.now };
                record.note(turn.now, why);
            }
            Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopping { .. } => {
                self.stop(turn, job, AfterStop::Paused, why);
            }
            _ => return Err(wrong_phase(record, "pause", "it has ended already")),
        }
        turn.changed(job);
        Ok(Answer::Done)
    }

    pub(super) fn resume(
        &mut self,
        turn: &mut Turn,
        job: JobId,
        from: Option<&ResumeFrom>,
        spec: Option<Arc<JobSpec>>,
    ) -> Result<Answer, Refusal> {
        let record = self.job(job)?;
        if record.phase.gang().is_some() || matches!(record.phase, Phase::Queued { .. }) {
            return Err(wrong_phase(record, "resume", "it goes on by itself"));
        }
        if matches!(record.phase, Phase::Completed { .. }) && from.is_none() && spec.is_none() {
            return Err(wrong_phase(
                record,
                "resume",
                "give --set train.max_steps=N to train on, or --from CHECKPOINT",
            ));
        }
        let from = from.map(|from| self.resolve(from)).transpose()?;
        let record = self.state.jobs.get_mut(&job).expect("looked up above");
        if let Some(from) = from {
            // The own later checkpoints belong to the branch that is left behind; they stay until somebody removes them.
            record.checkpoints.retain(|own| own.at.step <= from.step);
            record.resume_from = Some(from);
            record.evaluation = None;
        }
        if let Some(spec) = spec {
            record.spec = spec;
        }
        self.requeue(turn, job, "resumed by request");
        Ok(Answer::Done)
    }

    pub(super) fn retry(&mut self, turn: &mut Turn, job: JobId) -> Result<Answer, Refusal> {
        let record = self.job(job)?;
        if !matches!(record.phase, Phase::Failed { .. } | Phase::Cancelled { .. }) {
            return Err(wrong_phase(record, "retry", "only a failed or cancelled job can be retried"));
        }
        self.requeue(turn, job, "retried by request");
        Ok(Answer::Done)
    }

    fn requeue(&mut self, turn: &mut Turn, job: JobId, why: &str) {
        let record = self.state.jobs.get_mut(&job).expect("callers have looked it up");
        record.restarts = 0;
        record.failures_without_progress = 0;
        record.failed_at = None;
        record.phase = Phase::Queued { since: turn.now, not_before: None, reason: why.to_owned() };
        record.note(turn.now, why);
        turn.changed(job);
    }

    pub(super) fn drain(&mut self, turn: &mut Turn, worker: WorkerId, drained: bool) -> Result<Answer, Refusal> {
        let record = self.state.workers.get_mut(&worker).ok_or(Refusal::UnknownWorker(worker))?;
        if record.drained == drained {
            return Ok(Answer::Done);
        }
        record.drained = drained;
        let node = record.info.node.clone();
        if drained {
            let moved: Vec<JobId> = self.jobs_on(worker);
            for job in moved {
                let reason = format!("{node} is drained");
                self.stop(turn, job, AfterStop::Queued { reason: reason.clone() }, &reason);
            }
        }
        Ok(Answer::Done)
    }

    /// The place that a text such as `j-7k2m:best` stands for.
    pub(super) fn resolve(&self, from: &ResumeFrom) -> Result<CheckpointRef, Refusal> {
        let (job, wanted) = match from {
            ResumeFrom::Manifest(at) => return Ok(at.clone()),
            ResumeFrom::Step { job, .. } | ResumeFrom::Latest { job } | ResumeFrom::Best { job } => (*job, from),
        };
        let record = self.job(job)?;
        let found = match wanted {
            ResumeFrom::Step { step, .. } => {
                record.checkpoints.iter().filter(|own| own.usable()).rfind(|own| own.at.step == *step)
            }
            ResumeFrom::Best { .. } => Self::best_checkpoint(record),
            _ => record.latest(),
        };
        let which = match wanted {
            ResumeFrom::Step { step, .. } => format!(" of step {step}"),
            ResumeFrom::Best { .. } => format!(" with {}", record.spec.checkpoint.metric.name),
            _ => String::new(),
        };
        found.map(|own| own.at.clone()).ok_or(Refusal::NoCheckpoint { job, which })
    }

    pub(super) fn job(&self, job: JobId) -> Result<&Job, Refusal> {
        self.state.jobs.get(&job).ok_or(Refusal::UnknownJob(job))
    }
}

impl From<CheckpointName> for ResumeFrom {
    fn from(name: CheckpointName) -> Self {
        let job = name.job;
        match name.pick {
            Pick::Best => Self::Best { job },
            Pick::Latest => Self::Latest { job },
            Pick::At(step) => Self::Step { job, step },
        }
    }
}

/// Reads `j-7k2m`, `j-7k2m:latest`, `j-7k2m:best`, `j-7k2m:1200`, or else takes the text for the key of a manifest.
pub fn named_checkpoint(text: &str, uri: &str) -> ResumeFrom {
    if let Ok(job) = text.parse() {
        return ResumeFrom::Latest { job };
    }
    if let Ok(name) = text.parse::<CheckpointName>() {
        return name.into();
    }
    ResumeFrom::Manifest(CheckpointRef {
        uri: uri.to_owned(),
        manifest: text.to_owned(),
        digest: String::new(),
        step: crate::id::Step(0),
        generation: Generation(0),
    })
}

pub(super) fn wrong_phase(job: &Job, action: &str, hint: &str) -> Refusal {
    let phase = job.phase.word().to_owned();
    Refusal::WrongPhase { job: job.id, action: action.to_owned(), phase, hint: hint.to_owned() }
}
