//! The problem in dense numbers: nodes with free slots, and jobs that want some.

use std::time::Duration;

use crate::id::JobId;

/// How long a blocked job lets smaller ones pass before free slots are kept for it.
pub const PATIENCE: Duration = Duration::from_mins(10);

/// A slot of the problem: node, and slot within that node's worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotOrd {
    pub node: usize,
    pub slot: u32,
}

/// A worker that takes new ranks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Free slots, ascending.
    pub free: Vec<u32>,
    /// All slots, free or not.
    pub total: u32,
}

/// What one job wants or holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub job: JobId,
    /// Fewest slots that the job can run on.
    pub min: u32,
    /// Most slots that it has a use for.
    pub max: u32,
    /// 0 to 100; higher goes first.
    pub priority: u32,
    /// Slots that it holds now; 0 means that it waits.
    pub holds: u32,
    /// Whether its slots are about to become free because it is stopping.
    pub stopping: bool,
    /// Whether it may start now; otherwise it waits for the end of a back-off.
    pub ready: bool,
    /// How long it has waited.
    pub waited: Duration,
    /// Work that would be lost or repeated if it had to stop now.
    pub cost: Duration,
    /// Whether it has run long enough with its present ranks to be given more.
    pub may_grow: bool,
}

/// All nodes and all claims; the order of the claims carries no meaning except as the last tie-break (older jobs first).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    pub nodes: Vec<Node>,
    pub claims: Vec<Claim>,
}

impl Problem {
    pub(super) fn free(&self) -> u32 {
        self.nodes.iter().map(|node| u32::try_from(node.free.len()).expect("slots of one worker fit u32")).sum()
    }

    pub(super) fn total(&self) -> u32 {
        self.nodes.iter().map(|node| node.total).sum()
    }
}
