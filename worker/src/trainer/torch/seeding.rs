//! Randomness as a function of what is computed, not of who computes it or when.

use std::sync::{Mutex, PoisonError};

use unimse_core::id::Step;

/// libtorch's generators belong to the process; several replicas in one (tests) must not draw at the same time.
static GENERATOR: Mutex<()> = Mutex::new(());

/// Runs `draw` with libtorch's generators freshly seeded.
pub(super) fn seeded<T>(seed: u64, draw: impl FnOnce() -> T) -> T {
    let _held = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed.cast_signed());
    draw()
}

/// The seed of a micro-shard's dropout.
pub(super) fn of_micro_shard(seed: u64, step: Step, index: u32) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("unimse dropout v1");
    hasher.update(&seed.to_le_bytes()).update(&step.0.to_le_bytes()).update(&index.to_le_bytes());
    u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_every_micro_shard_another() {
        let draw = |seed| seeded(seed, || Vec::<f32>::try_from(Tensor::rand([4], (Kind::Float, Device::Cpu))).unwrap());
        assert_eq!(draw(3), draw(3));
        let seeds: std::collections::BTreeSet<u64> =
            (0..10).flat_map(|step| (0..10).map(move |index| of_micro_shard(42, Step(step), index))).collect();
        assert_eq!(seeds.len(), 100);
    }
}
