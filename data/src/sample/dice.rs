//! Random choices that come out the same on every machine.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::schema::Split;

/// A seeded source of choices.
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    /// Starts a stream of its own for each dataset and split, so that their sizes do not influence each other.
    pub(super) fn new(seed: u64, dataset: u64, split: Split) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(dataset * 8 + split as u64);
        Self(rng)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        // The bias of the remainder is below 2^-50 for the bounds used here.
        (self.0.next_u64() % bound as u64) as usize
    }

    pub(super) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn choose<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// About a standard normal number: twelve uniform ones, whose sum needs no function of a platform's libm.
    pub(super) fn normal(&mut self) -> f32 {
        let sum: u64 = (0..12).map(|_| self.0.next_u64() >> 44).sum();
        sum as f32 / (1u64 << 20) as f32 - 6.0
    }
}
