//! What a trainer holds in memory besides the replica's numbers: where it is in the data, and what was done about it.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use unimse_core::id::Step;
use unimse_core::shard::Cursor;

use crate::protocol::StepRecord;

/// The state after a completed step; the same on all ranks of a generation once it is formed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) cursor: Cursor,
    /// The last step of which a checkpoint was written (or loaded).
    pub(super) saved: Option<Step>,
    /// A checkpoint was being written when a peer was lost: it is owed.
    pub(super) owed: bool,
    /// The last step that was evaluated, and its metrics; those that are not finite are left out.
    pub(super) evaluated: Option<(Step, BTreeMap<String, f64>)>,
}

impl Held {
    pub(super) fn at(cursor: Cursor) -> Self {
        Self { cursor, saved: None, owed: false, evaluated: None }
    }

    pub(super) fn step(&self) -> Step {
        self.cursor.step
    }

    /// The metrics of the present step, if it was evaluated.
    pub(super) fn metrics(&self) -> BTreeMap<String, f64> {
        let now = self.evaluated.iter().filter(|(step, _)| *step == self.step());
        now.map(|(_, metrics)| metrics.clone()).next().unwrap_or_default()
    }
}

/// The newest step records, kept by every rank: if the one that tells them is lost, another tells them again.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<StepRecord>);

impl Recent {
    const MOST: usize = 1024;

    pub(super) fn push(&mut self, record: StepRecord) {
        if self.0.len() == Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back(record);
    }

    /// The records up to a step; those after it belong to a future that was lost.
    pub(super) fn up_to(&mut self, step: Step) -> Vec<StepRecord> {
        self.0.retain(|record| record.step <= step);
        self.0.iter().cloned().collect()
    }
}
