//! The trait that all back ends implement.

use std::fmt;
use std::time::Duration;

use crate::{AbortHandle, Buffer, DeviceBuffer, Result};

/// The time limit of a call until [`Collective::set_timeout`] changes it: long enough for a slow step of a peer.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_mins(5);

/// Places a rank in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// The generation of the rank set; two groups of different generations never mix.
    pub generation: u64,
    /// This rank, from 0.
    pub rank: u32,
    /// The number of ranks, at least 1.
    pub world_size: u32,
}

/// One rank's membership in a group.
///
/// All ranks make the same calls in the same order. Every call is checked against the peers' calls and is bounded by the
/// timeout. After the first error every later call fails as well, and the peers' calls fail soon.
pub trait Collective: Send + fmt::Debug {
    /// The place of this rank.
    fn group(&self) -> Group;

    /// This rank, from 0.
    fn rank(&self) -> u32 {
        self.group().rank
    }

    /// The number of ranks.
    fn world_size(&self) -> u32 {
        self.group().world_size
    }

    /// Sets the time limit of every later call.
    fn set_timeout(&mut self, timeout: Duration);

    /// A handle that aborts this rank's calls from another thread.
    fn abort_handle(&self) -> AbortHandle;

    /// Replaces each element by its sum over all ranks, in rank order; bf16 is summed in f32 and rounded once.
    fn all_reduce(&mut self, buffer: Buffer<'_>) -> Result<()>;

    /// Overwrites the buffer of every rank with that of `root`.
    fn broadcast(&mut self, root: u32, buffer: Buffer<'_>) -> Result<()>;

    /// Overwrites `bytes` of every rank with those of `root`, whose length the others need not know.
    fn broadcast_bytes(&mut self, root: u32, bytes: &mut Vec<u8>) -> Result<()>;

    /// The bytes that each rank gave, of any lengths, by rank.
    fn all_gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// Returns when all ranks have called it.
    fn barrier(&mut self) -> Result<()>;

    /// Fails if the group is known to be broken (aborted, a peer gone), without any communication.
    fn probe(&mut self) -> Result<()>;

    /// The interface for device memory, where there is one.
    fn device(&mut self) -> Option<&mut dyn DeviceCollective> {
        None
    }
}

/// All-reduces device memory in the background, so that they overlap with the backward pass.
///
/// Called from the gradient hook: `enqueue_all_reduce` orders the sum after the work that the buffer's stream holds at that
/// moment, and returns at once. `synchronize` ends the step's set.
pub trait DeviceCollective: fmt::Debug {
    /// Enqueues a sum over all ranks; the memory must not be touched until `synchronize`.
    fn enqueue_all_reduce(&mut self, buffer: DeviceBuffer) -> Result<()>;

    /// Makes `stream` wait for all enqueued sums and watches peers and time limit until the GPU has finished them.
    fn synchronize(&mut self, stream: u64) -> Result<()>;
}
