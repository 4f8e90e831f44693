//! What can happen: requests of people, words of agents, silence and time.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checkpoint::CheckpointRef;
use crate::id::{Generation, JobId, Rank, Step, SweepId, WorkerId};
use crate::job::{ExitCause, Readiness};
use crate::spec::JobSpec;
use crate::sweep::SweepSpec;
use crate::worker::WorkerInfo;

/// A job to be run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// The same key stands for the same job, for ever; none means that each submission is a new job.
    pub key: Option<String>,
    pub spec: Arc<JobSpec>,
    /// The store for its checkpoints when the specification names none.
    pub checkpoint_uri: String,
}

/// Where a job that is resumed by hand begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResumeFrom {
    /// The checkpoint of that step, of this or another job.
    Step { job: JobId, step: Step },
    /// The newest one of a job.
    Latest { job: JobId },
    /// The one with the best metric of a job.
    Best { job: JobId },
    /// Any manifest, by place; its digest is not known beforehand.
    Manifest(CheckpointRef),
}

/// A trainer process that an agent has when it registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainerStatus {
    pub job: JobId,
    pub generation: Generation,
    pub rank: Rank,
    pub slot: u32,
    /// Whether it has been told the addresses of its peers.
    pub formed: bool,
}

/// What an agent says of one of its trainers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub job: JobId,
    pub generation: Generation,
    pub rank: Rank,
    pub kind: ReportKind,
}

/// The kinds of a [`Report`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportKind {
    /// The trainer is up and waits for its peers.
    Ready(Readiness),
    /// A collective failed because a peer is gone; the trainer keeps its state and waits for a new generation.
    PeerLost { step: Step, detail: String },
    /// A validation finished; from rank 0.
    Evaluated { step: Step, metrics: BTreeMap<String, f64> },
    /// All shards and the manifest are written; from rank 0. The checkpoint counts once this event is accepted.
    Committed { at: CheckpointRef, bytes: u64, world_size: u32, metrics: BTreeMap<String, f64> },
    /// All steps are done and the last checkpoint is committed; from each rank.
    Finished { step: Step },
    /// The process is gone.
    Exited { cause: ExitCause, step: Option<Step> },
}

/// Something that changes the durable state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Submit(Submission),
    Cancel {
        job: JobId,
    },
    Pause {
        job: JobId,
    },
    /// Lets a paused or ended job go on, perhaps from another checkpoint or with a changed specification.
    Resume {
        job: JobId,
        from: Option<ResumeFrom>,
        spec: Option<Arc<JobSpec>>,
    },
    /// Gives a failed job a fresh budget.
    Retry {
        job: JobId,
    },
    RemoveCheckpoint {
        job: JobId,
        step: Step,
        /// Even the newest or the best. Journals of a time before this was asked hold only what was done.
        #[serde(default = "done_already")]
        force: bool,
    },
    /// The shell has removed the objects.
    CheckpointDeleted {
        job: JobId,
        manifest: String,
    },
    Drain {
        worker: WorkerId,
    },
    Undrain {
        worker: WorkerId,
    },
    SweepRun {
        key: Option<String>,
        spec: Box<SweepSpec>,
        checkpoint_uri: String,
    },
    SweepPause {
        sweep: SweepId,
    },
    SweepResume {
        sweep: SweepId,
    },
    SweepStop {
        sweep: SweepId,
    },
    /// An agent came, or came back.
    Register {
        info: WorkerInfo,
        trainers: Vec<TrainerStatus>,
    },
    /// `seq` counts the reports of one worker; one that was applied already is answered and changes nothing.
    Report {
        worker: WorkerId,
        seq: u64,
        report: Report,
    },
    /// Its agent was asked to end and lets its trainers save and stop.
    WorkerLeaves {
        worker: WorkerId,
    },
    /// Its agent has no trainer left, and ends.
    WorkerLeft {
        worker: WorkerId,
    },
    /// Its lease ran out.
    WorkerLost {
        worker: WorkerId,
        reason: String,
    },
    /// A deadline that follows from the state has passed.
    Wake,
}

fn done_already() -> bool {
    true
}

impl Event {
    /// Whether it may give or take slots other than through a change of a job.
    pub(super) fn moves_workers(&self) -> bool {
        matches!(
            self,
            Self::Register { .. }
                | Self::WorkerLeaves { .. }
                | Self::WorkerLeft { .. }
                | Self::WorkerLost { .. }
                | Self::Drain { .. }
                | Self::Undrain { .. }
                | Self::Wake
        )
    }
}

/// What an event brought about, for whoever caused it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Done,
    /// `new` is false when the key was known.
    Job {
        job: JobId,
        new: bool,
    },
    Sweep {
        sweep: SweepId,
        new: bool,
    },
    Worker(WorkerId),
    /// A word of an older generation: noted as heard, without effect.
    Stale {
        current: Generation,
    },
}

/// Why a request changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    #[error("there is no job {0}")]
    UnknownJob(JobId),
    #[error("there is no sweep {0}")]
    UnknownSweep(SweepId),
    #[error("there is no worker {0}")]
    UnknownWorker(WorkerId),
    #[error("{job} has no committed checkpoint{which}; see `unimse ckpt ls {job}`")]
    NoCheckpoint { job: JobId, which: String },
    #[error("cannot {action} {job}: it is {phase}; {hint}")]
    WrongPhase { job: JobId, action: String, phase: String, hint: String },
    #[error("cannot {action} {sweep}: it is {status}")]
    WrongSweepStatus { sweep: SweepId, action: String, status: String },
    #[error("checkpoint {step} of {job} is {why}\nhint: {hint}")]
    CheckpointInUse { job: JobId, step: Step, why: String, hint: String },
    #[error("a worker named `{node}` is alive already; give each agent of a machine its own --name")]
    NodeNameInUse { node: String },
    #[error("the coordinator declared this worker lost ({reason}); register as a new one")]
    WorkerGone { worker: WorkerId, reason: String },
    #[error("the sweep cannot start: {0}")]
    BadSweep(String),
}
