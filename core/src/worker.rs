//! A worker agent and its slots, as the coordinator sees them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::WorkerId;
use crate::time::Timestamp;

/// One place where a trainer can run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Slot {
    /// A CUDA device.
    Gpu { index: u32, name: String, memory_bytes: u64 },
    /// A share of the host's processors.
    Cpu { threads: u32 },
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpu { index, name, .. } => write!(f, "gpu{index} {name}"),
            Self::Cpu { threads } => write!(f, "cpu x{threads}"),
        }
    }
}

/// What an agent says of itself when it registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Name of the machine, or of the agent where several share one; unique among live workers.
    pub node: String,
    /// A random text per agent process: a restarted agent is a new worker.
    pub incarnation: String,
    /// Address at which other trainers reach those of this worker.
    pub host: String,
    pub slots: Vec<Slot>,
    /// Version of the worker's program.
    pub version: String,
}

/// How a worker stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum WorkerState {
    /// Renews its lease.
    Alive,
    /// It was asked to end: its ranks save and stop, and it gets no others.
    Leaving,
    /// It has ended in order.
    Left { at: Timestamp },
    /// Its lease ran out, or another incarnation took its name.
    Lost { at: Timestamp, reason: String },
}

/// A worker as recorded in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    pub id: WorkerId,
    pub info: WorkerInfo,
    pub state: WorkerState,
    /// Takes no new ranks; running ones are moved away at a step boundary.
    pub drained: bool,
    pub joined: Timestamp,
    /// The last report of this worker that was applied; earlier ones that come again are answered, not repeated.
    pub applied: u64,
}

impl Worker {
    /// Whether it has, or may have, trainers.
    pub fn alive(&self) -> bool {
        self.gone().is_none()
    }

    /// Whether ranks may be put on its slots.
    pub fn takes_ranks(&self) -> bool {
        self.state == WorkerState::Alive && !self.drained
    }

    /// Why it can never come back under this id, if it cannot.
    pub fn gone(&self) -> Option<&str> {
        match &self.state {
            WorkerState::Alive | WorkerState::Leaving => None,
            WorkerState::Left { .. } => Some("it left"),
            WorkerState::Lost { reason, .. } => Some(reason),
        }
    }
}
