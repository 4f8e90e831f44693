//! A checksum of a set of samples that survives a floating-point all-reduce.
//!
//! Ranks add up digests by the same all-reduce (sum, f32) that carries their gradients. The arithmetic is exact: a rank's lane is
//! an integer below 2^16, so the sum over at most 256 ranks is an integer below 2^24, and so is every partial sum, whatever the order
//! of the reduction. An f32 holds all integers up to 2^24. Modulo 2^16 the sum of the ranks' lanes is the lane of the whole batch.
//! (It is not exact in bf16: the lanes must travel in f32.)
//!
//! Four lanes are 64 bits of a hash: a sample that is missing, doubled or swapped goes unnoticed once in 2^64.

use serde::{Deserialize, Serialize};

/// Sum over samples of a hash of each, in four lanes modulo 2^16; the order does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u16; 4]);

/// More ranks than this and the sum of their lanes is no longer exact in f32.
const MAX_WORLD: f32 = 256.0;

impl Digest {
    /// Number of f32 that a digest takes in an all-reduce.
    pub const LANES: usize = 4;

    /// Adds one sample by its number in the concatenated training data.
    pub fn add(&mut self, sample: u64) {
        let hash = blake3::hash(&sample.to_le_bytes());
        let bytes = hash.as_bytes();
        for (at, lane) in self.0.iter_mut().enumerate() {
            *lane = lane.wrapping_add(u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]));
        }
    }

    /// The lanes to put into an f32 all-reduce (sum) over at most 256 ranks.
    pub fn lanes(self) -> [f32; Self::LANES] {
        self.0.map(f32::from)
    }

    /// Reads the reduced lanes; `None` when they are no sums of digests: not whole, negative, too large or of another length.
    pub fn from_reduced(lanes: &[f32]) -> Option<Self> {
        let lanes: [f32; Self::LANES] = lanes.try_into().ok()?;
        let most = f32::from(u16::MAX) * MAX_WORLD;
        let valid = lanes.iter().all(|lane| lane.fract() == 0.0 && (0.0..=most).contains(lane));
        // Below 2^24 the cast to u32 is exact; the one to u16 takes it modulo 2^16.
        valid.then(|| Self(lanes.map(|lane| lane as u32 as u16)))
    }
}

impl FromIterator<u64> for Digest {
    fn from_iter<I: IntoIterator<Item = u64>>(samples: I) -> Self {
        samples.into_iter().fold(Self::default(), |mut digest, sample| {
            digest.add(sample);
            digest
        })
    }
}
