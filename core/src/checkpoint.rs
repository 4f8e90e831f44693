//! What the coordinator knows of a checkpoint: where its manifest is and whether it counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{Generation, Step};
use crate::time::Timestamp;

/// Where a committed checkpoint lies and how to recognise it; all that a trainer needs to resume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRef {
    /// The store, as the job's specification or the coordinator names it.
    pub uri: String,
    /// Key of the manifest below that store.
    pub manifest: String,
    /// BLAKE3 of the manifest's bytes, in hex.
    pub digest: String,
    pub step: Step,
    pub generation: Generation,
}

/// Whether a checkpoint may be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum CheckpointState {
    /// Its manifest was accepted from the generation that was current.
    Committed,
    /// A trainer that tried to resume from it found a damaged or missing part.
    Damaged { reason: String },
    /// Retention or a person decided that it goes; its objects are being removed.
    Deleting { reason: String },
}

/// A checkpoint as recorded in the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    #[serde(flatten)]
    pub at: CheckpointRef,
    pub state: CheckpointState,
    /// Bytes of all shards.
    pub bytes: u64,
    /// Ranks that wrote it; any other number may read it.
    pub world_size: u32,
    /// Validation metrics at that step; empty when there was no evaluation.
    pub metrics: BTreeMap<String, f64>,
    pub committed: Timestamp,
}

impl CheckpointRecord {
    /// Whether a job may resume from it.
    pub fn usable(&self) -> bool {
        self.state == CheckpointState::Committed
    }
}
