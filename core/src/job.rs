//! One job: its phases, where its ranks are, and why each change happened.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{CheckpointRecord, CheckpointRef};
use crate::id::{Generation, JobId, Rank, Step, SweepId, TrialId, WorkerId};
use crate::spec::JobSpec;
use crate::time::Timestamp;

/// Where one rank of a generation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seat {
    pub worker: WorkerId,
    pub slot: u32,
}

/// What a trainer says when it is ready to form its generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Address at which the other ranks reach it.
    pub address: String,
    /// NCCL's unique id, from rank 0 of a generation on GPUs.
    pub nccl_id: Option<Vec<u8>>,
    /// The last step whose result it holds in memory; none for a fresh process.
    pub holds: Option<Step>,
}

/// The ranks of one generation and how far they have come in forming it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gang {
    /// Rank r sits on `seats[r]`.
    pub seats: Vec<Seat>,
    /// The trainers that are ready, by rank.
    pub ready: BTreeMap<Rank, Readiness>,
    /// When the generation was assigned.
    pub assigned: Timestamp,
    /// When all were ready and were told each other's addresses.
    pub formed: Option<Timestamp>,
    /// Ranks that have finished their work.
    pub finished: Vec<Rank>,
    /// Since when ranks report a lost peer without anybody having been seen to die.
    pub disrupted: Option<Timestamp>,
}

impl Gang {
    /// Starts a generation on these seats.
    pub fn assigned(seats: Vec<Seat>, now: Timestamp) -> Self {
        Self { seats, ready: BTreeMap::new(), assigned: now, formed: None, finished: Vec::new(), disrupted: None }
    }

    pub fn world_size(&self) -> u32 {
        u32::try_from(self.seats.len()).expect("a gang has at most a few thousand ranks")
    }

    /// Which rank holds the newest state in memory, and of which step: the one that the others copy from.
    pub fn newest(&self) -> Option<(Rank, Step)> {
        let held = self.ready.iter().filter_map(|(&rank, ready)| ready.holds.map(|step| (rank, step)));
        held.max_by_key(|&(rank, step)| (step, std::cmp::Reverse(rank)))
    }
}

/// What a job becomes when its ranks have stopped at a step boundary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterStop {
    /// Somebody asked for a pause.
    Paused,
    /// Its slots are wanted elsewhere; it waits for others.
    Queued { reason: String },
}

/// Where a job is in its life.
// Not internally tagged: serde buffers such values, and a buffered map forgets that its keys are numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waits for slots.
    Queued {
        since: Timestamp,
        /// Not before this time: a back-off after failures.
        not_before: Option<Timestamp>,
        /// Why it waits and what would help, as the last scheduling round saw it.
        reason: String,
    },
    /// Ranks are assigned; trainers start, or survivors re-form.
    Starting { gang: Gang },
    /// All ranks train.
    Running { gang: Gang },
    /// Ranks were asked to write a checkpoint and stop.
    Stopping { gang: Gang, since: Timestamp, then: AfterStop },
    /// Holds no slots until somebody resumes it.
    Paused { since: Timestamp },
    /// Reached its last step.
    Completed { at: Timestamp },
    /// Gave up; the reason says what happened and on which rank.
    Failed { at: Timestamp, reason: String },
    /// Somebody cancelled it.
    Cancelled { at: Timestamp },
}

impl Phase {
    /// One word for tables.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Starting { .. } => "starting",
            Self::Running { .. } => "running",
            Self::Stopping { .. } => "stopping",
            Self::Paused { .. } => "paused",
            Self::Completed { .. } => "completed",
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    /// The ranks that hold slots, if any do.
    pub fn gang(&self) -> Option<&Gang> {
        match self {
            Self::Starting { gang } | Self::Running { gang } | Self::Stopping { gang, .. } => Some(gang),
            _ => None,
        }
    }

    pub(crate) fn gang_mut(&mut self) -> Option<&mut Gang> {
        match self {
            Self::Starting { gang } | Self::Running { gang } | Self::Stopping { gang, .. } => Some(gang),
            _ => None,
        }
    }

    /// Whether nothing more will happen to the job by itself.
    pub fn ended(&self) -> bool {
        matches!(self, Self::Completed { .. } | Self::Failed { .. } | Self::Cancelled { .. })
    }
}

/// Why a trainer process is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum ExitCause {
    /// All steps done; its last words were `Finished`.
    Finished,
    /// It wrote a checkpoint and stopped because it was told to.
    Stopped,
    /// It ended with an error of its own.
    Failed { code: i32, message: String },
    /// A signal ended it.
    Signalled { signal: i32 },
    /// The kernel, or CUDA, had no memory left for it.
    OutOfMemory { message: String },
    /// It could not start: a file that is missing, a program that does not load.
    NotStarted { message: String },
    /// The checkpoint it was to resume from is damaged or incomplete.
    CheckpointDamaged { manifest: String, message: String },
    /// The specification cannot be carried out: a dataset is missing or unusable. Another try would end the same way.
    Invalid { message: String },
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => write!(f, "finished"),
            Self::Stopped => write!(f, "stopped as asked"),
            Self::Failed { code, message } => write!(f, "exit code {code}: {message}"),
            Self::Signalled { signal: 9 } => write!(f, "killed (SIGKILL)"),
            Self::Signalled { signal } => write!(f, "ended by signal {signal}"),
            Self::OutOfMemory { message } => write!(f, "out of memory: {message}"),
            Self::NotStarted { message } => write!(f, "could not start: {message}"),
            Self::CheckpointDamaged { manifest, message } => write!(f, "checkpoint {manifest} is damaged: {message}"),
            Self::Invalid { message } => write!(f, "{message}"),
        }
    }
}

/// One change in the life of a job, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    pub at: Timestamp,
    pub generation: Generation,
    pub what: String,
}

/// The sweep and trial that a job belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub sweep: SweepId,
    pub trial: TrialId,
}

/// The newest validation result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    pub step: Step,
    pub metrics: BTreeMap<String, f64>,
}

/// A job as recorded in the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    pub id: JobId,
    pub spec: Arc<JobSpec>,
    pub submitted: Timestamp,
    /// Store for its checkpoints.
    pub checkpoint_uri: String,
    pub origin: Option<Origin>,
    /// The newest generation; 0 before the first assignment.
    pub generation: Generation,
    pub phase: Phase,
    /// Failures that counted against the budget.
    pub restarts: u32,
    /// The newest step known when the last counted failure happened: progress since then resets the back-off.
    pub failed_at: Option<Step>,
    pub failures_without_progress: u32,
    /// Committed, damaged and disappearing checkpoints, oldest first.
    pub checkpoints: Vec<CheckpointRecord>,
    /// Where to begin when there is no own checkpoint: another job's, or a URI.
    pub resume_from: Option<CheckpointRef>,
    pub evaluation: Option<Evaluation>,
    /// Last changes, oldest first.
    pub history: Vec<HistoryEntry>,
}

impl Job {
    /// Entries kept of the history.
    pub const HISTORY: usize = 100;

    /// The newest checkpoint that may be used.
    pub fn latest(&self) -> Option<&CheckpointRecord> {
        self.checkpoints
            .iter()
            .filter(|record| record.usable())
            .max_by_key(|record| (record.at.step, record.at.generation))
    }

    /// Where the next generation begins when no survivor holds newer state.
    pub fn resume_point(&self) -> Option<&CheckpointRef> {
        self.latest().map(|record| &record.at).or(self.resume_from.as_ref())
    }

    /// The newest step that survives the loss of every trainer.
    pub fn durable_step(&self) -> Step {
        self.latest().map_or(Step(0), |record| record.at.step)
    }

    pub(crate) fn note(&mut self, now: Timestamp, what: impl Into<String>) {
        if self.history.len() == Self::HISTORY {
            self.history.remove(0);
        }
        self.history.push(HistoryEntry { at: now, generation: self.generation, what: what.into() });
    }
}
