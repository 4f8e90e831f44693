//! Which samples each step uses, and which rank computes them.
//!
//! The order of the data is a pure function of a seed and the step: the world size, crashes and resizes cannot change it. An epoch
//! is a permutation of all samples, cut into global batches (the last one may be smaller, so that every sample is used exactly once
//! an epoch); a global batch is cut into logical micro-shards, and rank r of n computes the micro-shards m with m mod n = r. Since
//! dropout is seeded by (seed, step, micro-shard), nothing numerical depends on who computes what.
//!
//! A [`Digest`] of the sample ids travels with the gradients, so that every rank checks at every step that exactly the global batch
//! was consumed.

mod digest;
mod permutation;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::id::{Rank, Step};
use crate::spec::TrainLength;

pub use digest::Digest;
use permutation::Permutation;

/// A data order that cannot exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is nothing to train on.
    #[error("the training data is empty")]
    NoSamples,
    /// A batch of nothing, or micro-shards that are larger than the batch.
    #[error("a global batch of {global_batch} cannot be cut into micro-shards of {micro_batch}")]
    BadBatch { global_batch: u32, micro_batch: u32 },
}

/// The order in which a job reads its training samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataOrder {
    seed: u64,
    len: u64,
    global_batch: u32,
    micro_batch: u32,
}

/// How far a job has read: all that a checkpoint must hold of the data order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// Epochs completed.
    pub epoch: u64,
    /// Samples of the current epoch used so far; below the length.
    pub index: u64,
    /// Steps completed.
    pub step: Step,
}

impl Cursor {
    /// Before the first step.
    pub const START: Self = Self { epoch: 0, index: 0, step: Step(0) };
}

impl DataOrder {
    /// Orders `len` samples, numbered 0 to `len` - 1 over the concatenated training sets.
    pub fn new(seed: u64, len: u64, global_batch: u32, micro_batch: u32) -> Result<Self, Error> {
        if len == 0 {
            return Err(Error::NoSamples);
        }
        if micro_batch == 0 || micro_batch > global_batch {
            return Err(Error::BadBatch { global_batch, micro_batch });
        }
        Ok(Self { seed, len, global_batch, micro_batch })
    }

    /// Number of samples.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: [`Self::new`] refuses an empty order.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The sample at a position of an epoch, 0 <= `position` < [`Self::len`].
    pub fn sample_at(&self, epoch: u64, position: u64) -> u64 {
        self.permutation(epoch).apply(position)
    }

    /// The global batch that the step after `cursor` consumes, and where it leaves the cursor.
    pub fn batch(&self, cursor: Cursor) -> Batch {
        let permutation = self.permutation(cursor.epoch);
        let start = cursor.index.min(self.len);
        let end = start.saturating_add(self.global_batch.into()).min(self.len);
        let samples = (start..end).map(|position| permutation.apply(position)).collect();
        let wraps = end == self.len;
        let next = Cursor {
            epoch: cursor.epoch + u64::from(wraps),
            index: if wraps { 0 } else { end },
            step: cursor.step.next(),
        };
        Batch { samples, cursor, next, micro: self.micro_batch }
    }

    /// Where the cursor stands after `step` completed steps.
    pub fn cursor_at(&self, step: Step) -> Cursor {
        let epoch = step.0 / self.steps_per_epoch();
        let index = step.0 % self.steps_per_epoch() * u64::from(self.global_batch);
        Cursor { epoch, index, step }
    }

    /// Steps in which every sample is used once.
    pub fn steps_per_epoch(&self) -> u64 {
        self.len.div_ceil(self.global_batch.into())
    }

    /// Steps of the whole job.
    pub fn total_steps(&self, length: TrainLength) -> u64 {
        match length {
            TrainLength::Steps(steps) => steps,
            TrainLength::Epochs(epochs) => epochs.saturating_mul(self.steps_per_epoch()),
        }
    }

    fn permutation(&self, epoch: u64) -> Permutation {
        Permutation::new(self.seed, epoch, self.len)
    }
}

/// The samples of one optimiser step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// In order; only the last batch of an epoch holds fewer than the global batch.
    pub samples: Vec<u64>,
    /// Before the step.
    pub cursor: Cursor,
    /// After it.
    pub next: Cursor,
    micro: u32,
}

/// A part of a global batch that is computed in one forward pass, whoever does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MicroShard<'a> {
    /// Its number in the batch, the same for every world size; seeds its dropout.
    pub index: u32,
    /// Its samples.
    pub samples: &'a [u64],
}

impl Batch {
    /// All micro-shards; the last one may be smaller.
    pub fn micro_shards(&self) -> impl Iterator<Item = MicroShard<'_>> {
        let chunks = self.samples.chunks(self.micro as usize);
        chunks.enumerate().map(|(index, samples)| MicroShard { index: index as u32, samples })
    }

    /// The micro-shards that `rank` of `world` computes; none when there are fewer micro-shards than ranks before it.
    ///
    /// They are dealt out to and fro, because trainers put a batch in order of length: else the last rank always had the
    /// longest of each round, and all others waited for it.
    pub fn for_rank(&self, rank: Rank, world: u32) -> impl Iterator<Item = MicroShard<'_>> {
        let world = world.max(1);
        self.micro_shards().filter(move |shard| {
            let (turn, place) = (shard.index / world, shard.index % world);
            rank.0 == if turn.is_multiple_of(2) { place } else { world - 1 - place }
        })
    }

    /// What the digests of all ranks must add up to.
    pub fn expected_digest(&self) -> Digest {
        self.samples.iter().copied().collect()
    }
}
