//! The trait that all back ends implement.

use std::fmt;
use std::time::Duration;

use crate::{AbortHandle, Buffer, DeviceBuffer, Result, Wire};

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

    /// As [`all_reduce`](Self::all_reduce), with every number rounded to the type of `wire` (to nearest even) on its way: each
    /// rank's contribution once, then their sum, which is made in f32 in rank order. All ranks end with the same bits, and
    /// half the bytes travel.
    ///
    /// The error of a sum s of contributions x is at most (sum of |x| + |s|) / 256 for bf16, but for what f32 rounds. Numbers
    /// beyond the largest of the type become infinite. On a GPU, give [`all_reduce`](Self::all_reduce) a bf16 device buffer instead: the rounding is
    /// a kernel of the caller's, and NCCL sums bf16 in its own way.
    fn all_reduce_compressed(&mut self, values: &mut [f32], wire: Wire) -> Result<()>;

    /// Replaces the elements of this rank's [`segment`](crate::segment) by their sums over all ranks, to the bit as
    /// [`all_reduce`](Self::all_reduce) would; what the buffer holds outside of it afterwards is not specified.
    ///
    /// Device memory must have a number of elements that divides by the number of ranks.
    fn reduce_scatter(&mut self, buffer: Buffer<'_>) -> Result<()>;

    /// Overwrites each rank's [`segment`](crate::segment) of the buffer with that of its rank: the second half of an all-reduce.
    ///
    /// Device memory must have a number of elements that divides by the number of ranks.
    fn all_gather(&mut self, buffer: Buffer<'_>) -> Result<()>;

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

/// Works on device memory in the background, so that sums overlap with the backward pass.
///
/// Called from the gradient hook: `enqueue_all_reduce` orders the sum after the work that the buffer's stream holds at that
/// moment, and returns at once; the other calls likewise. They are made one after another. `synchronize` ends the step's set.
pub trait DeviceCollective: fmt::Debug {
    /// Enqueues a sum over all ranks; the memory must not be touched until `synchronize`.
    fn enqueue_all_reduce(&mut self, buffer: DeviceBuffer) -> Result<()>;

    /// Enqueues [`Collective::reduce_scatter`]; the memory must not be touched until `synchronize`.
    fn enqueue_reduce_scatter(&mut self, buffer: DeviceBuffer) -> Result<()>;

    /// Enqueues [`Collective::all_gather`]; the memory must not be touched until `synchronize`.
    fn enqueue_all_gather(&mut self, buffer: DeviceBuffer) -> Result<()>;

    /// Makes `stream` wait for all enqueued calls and watches peers and time limit until the GPU has finished them.
    fn synchronize(&mut self, stream: u64) -> Result<()>;
}
