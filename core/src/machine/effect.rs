//! What the shell has to do after a step.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checkpoint::CheckpointRef;
use crate::id::{Generation, JobId, Rank, Step, SweepId, WorkerId};
use crate::spec::JobSpec;

/// A rank and the slot of the addressed worker on which it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seated {
    pub rank: Rank,
    pub slot: u32,
}

/// A generation in which a worker takes part: trainers of the job that already run on these slots re-form, missing ones are
/// started, and those on other slots are killed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assign {
    pub job: JobId,
    pub generation: Generation,
    pub ranks: Vec<Seated>,
    pub world_size: u32,
    pub spec: Arc<JobSpec>,
    /// Store for checkpoints.
    pub checkpoint_uri: String,
}

/// All trainers of a generation are ready: their addresses, and where the state comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Form {
    pub job: JobId,
    pub generation: Generation,
    /// By rank.
    pub peers: Vec<String>,
    pub nccl_id: Option<Vec<u8>>,
    /// The rank whose memory holds the newest state, and its step: the others copy from it.
    pub source: Option<(Rank, Step)>,
    /// Otherwise all load this; none means a start from scratch.
    pub resume: Option<CheckpointRef>,
}

/// A message to an agent. Losing one is harmless: registration sends again what is still wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Order {
    Assign(Assign),
    Form(Form),
    /// Write a checkpoint at the next step boundary and stop.
    Stop {
        job: JobId,
        generation: Generation,
    },
    /// End all trainers of the job up to that generation, at once.
    Kill {
        job: JobId,
        generation: Generation,
    },
}

/// Something to be done outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    Send {
        worker: WorkerId,
        order: Order,
    },
    /// Remove the objects of a checkpoint, then report [`super::Event::CheckpointDeleted`].
    DeleteCheckpoint {
        job: JobId,
        at: CheckpointRef,
    },
    /// Whoever watches that job has something new to see.
    JobChanged(JobId),
    /// Whoever watches that sweep has something new to see.
    SweepChanged(SweepId),
}
