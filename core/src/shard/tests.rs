use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn order(seed: u64, len: u64, global: u32, micro: u32) -> DataOrder {
    DataOrder::new(seed, len, global, micro).expect("a sensible order")
}

/// Walks `steps` batches from the start.
fn walk(order: DataOrder, steps: u64) -> Vec<Batch> {
    let next = |batch: &Batch| Some(order.batch(batch.next));
    std::iter::successors(Some(order.batch(Cursor::START)), next).take(steps as usize).collect()
}

#[test]
fn the_order_is_fixed_for_ever() {
    // Recorded when the definition was fixed. A change here breaks the resumption of every checkpoint ever written.
    let epoch = |seed, epoch, len| (0..len).map(|at| order(seed, len, 4, 2).sample_at(epoch, at)).collect::<Vec<_>>();
    assert_eq!(epoch(42, 0, 10), GOLDEN_10_EPOCH_0);
    assert_eq!(epoch(42, 1, 10), GOLDEN_10_EPOCH_1);
    assert_eq!(epoch(7, 0, 5), GOLDEN_5);
    let large = order(42, 9989, 96, 16);
    assert_eq!(large.batch(large.cursor_at(Step(1000))).samples[..6], GOLDEN_LARGE);
    assert_eq!(large.batch(Cursor::START).expected_digest(), Digest(GOLDEN_DIGEST));
}

#[test]
fn lengths_of_one_two_and_powers_of_two_work() {
    for len in (1..40).chain([63, 64, 65, 255, 256, 257, 4096, 4097]) {
        let order = order(3, len, 8, 4);
        let seen: BTreeSet<u64> = (0..len).map(|at| order.sample_at(5, at)).collect();
        assert_eq!(seen.len() as u64, len);
        assert_eq!(seen.last(), Some(&(len - 1)));
    }
}

#[test]
fn nonsense_is_refused() {
    assert_eq!(DataOrder::new(0, 0, 1, 1), Err(Error::NoSamples));
    for (global_batch, micro_batch) in [(0, 0), (4, 0), (4, 5)] {
        assert_eq!(DataOrder::new(0, 9, global_batch, micro_batch), Err(Error::BadBatch { global_batch, micro_batch }));
    }
}

#[test]
fn every_place_is_equally_likely_for_every_sample() {
    // Chi-square over where each of 12 samples lands in 6000 epochs; 121 degrees of freedom, mean 121, deviation 15.6.
    let (len, epochs) = (12_u64, 6000_u64);
    let order = order(1, len, 4, 4);
    let mut counts = vec![0_u32; (len * len) as usize];
    for epoch in 0..epochs {
        for at in 0..len {
            counts[(order.sample_at(epoch, at) * len + at) as usize] += 1;
        }
    }
    let expected = epochs as f64 / len as f64;
    let chi: f64 = counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
    assert!((60.0..200.0).contains(&chi), "chi-square {chi}");
}

#[test]
fn neighbours_do_not_stay_neighbours() {
    let order = order(9, 1000, 10, 10);
    let kept = (1..1000).filter(|&at| order.sample_at(0, at).abs_diff(order.sample_at(0, at - 1)) == 1).count();
    assert!(kept < 12, "{kept} of 999 neighbours stayed together, 2 are expected");
    let same = (0..1000).filter(|&at| order.sample_at(0, at) == order.sample_at(1, at)).count();
    assert!(same < 12, "{same} of 1000 stayed in place from one epoch to the next, 1 is expected");
}

#[test]
fn lanes_are_exact_at_the_largest_world() {
    let worst = Digest([u16::MAX; 4]);
    let sum = (0..256).fold([0_f32; 4], |sum, _| std::array::from_fn(|at| sum[at] + worst.lanes()[at]));
    assert_eq!(sum, [16_776_960.0; 4]);
    assert_eq!(Digest::from_reduced(&sum), Some(Digest([(256 * 65_535_u32 % 65_536) as u16; 4])));
}

#[test]
fn lanes_that_are_no_digest_are_refused() {
    for bad in [[0.5, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [f32::NAN, 0.0, 0.0, 0.0], [2e7, 0.0, 0.0, 0.0]] {
        assert_eq!(Digest::from_reduced(&bad), None, "{bad:?}");
    }
    assert_eq!(Digest::from_reduced(&[0.0; 3]), None);
}

#[test]
fn a_missing_doubled_or_swapped_sample_is_noticed() {
    let batch = order(42, 500, 32, 8).batch(Cursor::START);
    let expected = batch.expected_digest();
    for at in 0..batch.samples.len() {
        let mut missing = batch.samples.clone();
        let sample = missing.remove(at);
        assert_ne!(missing.iter().copied().collect::<Digest>(), expected);
        let doubled: Digest = batch.samples.iter().copied().chain([sample]).collect();
        assert_ne!(doubled, expected);
        let swapped: Digest = missing.iter().copied().chain([sample + 1000]).collect();
        assert_ne!(swapped, expected);
    }
}

proptest! {
    #[test]
    fn each_sample_is_used_exactly_once_an_epoch(seed: u64, len in 1_u64..300, global in 1_u32..50, micro in 1_u32..20) {
        let order = order(seed, len, global, micro.min(global));
        let batches = walk(order, 3 * order.steps_per_epoch());
        for (epoch, batches) in batches.chunks(order.steps_per_epoch() as usize).enumerate() {
            prop_assert!(batches.iter().all(|batch| batch.cursor.epoch == epoch as u64));
            let mut samples: Vec<u64> = batches.iter().flat_map(|batch| batch.samples.clone()).collect();
            samples.sort_unstable();
            prop_assert_eq!(samples, (0..len).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_ranks_of_any_world_share_a_batch_without_gap_or_overlap(
        seed: u64, len in 1_u64..300, global in 1_u32..80, micro in 1_u32..20, world in 1_u32..40, step in 0_u64..100,
    ) {
        let order = order(seed, len, global, micro.min(global));
        let batch = order.batch(order.cursor_at(Step(step)));
        let mut shards: Vec<MicroShard<'_>> = (0..world).flat_map(|rank| batch.for_rank(Rank(rank), world)).collect();
        let mut sum = [0_f32; Digest::LANES];
        for rank in 0..world {
            let digest: Digest = batch.for_rank(Rank(rank), world).flat_map(|shard| shard.samples.iter().copied()).collect();
            sum = std::array::from_fn(|at| sum[at] + digest.lanes()[at]);
        }
        prop_assert_eq!(Digest::from_reduced(&sum), Some(batch.expected_digest()));
        shards.sort_by_key(|shard| shard.index);
        let whole: Vec<u64> = shards.iter().flat_map(|shard| shard.samples.iter().copied()).collect();
        prop_assert_eq!(&whole, &batch.samples);
        // What a micro-shard is does not depend on the world.
        prop_assert_eq!(shards, batch.micro_shards().collect::<Vec<_>>());
    }

    #[test]
    fn any_cursor_resumes_the_same_sequence(seed: u64, len in 1_u64..200, global in 1_u32..50, cut in 0_usize..60) {
        let order = order(seed, len, global, 1);
        let whole = walk(order, 60);
        let stored = serde_json::to_string(&whole[cut].cursor).expect("a cursor is plain data");
        let cursor: Cursor = serde_json::from_str(&stored).expect("it reads back");
        prop_assert_eq!(order.batch(cursor), whole[cut].clone());
        prop_assert_eq!(order.cursor_at(Step(cut as u64)), cursor);
    }

    #[test]
    fn steps_count_whole_epochs(len in 1_u64..1000, global in 1_u32..100, epochs in 1_u64..5) {
        let order = order(0, len, global, 1);
        let total = order.total_steps(TrainLength::Epochs(epochs));
        let end = order.cursor_at(Step(total));
        prop_assert_eq!((end.epoch, end.index), (epochs, 0));
        prop_assert_eq!(order.total_steps(TrainLength::Steps(7)), 7);
    }
}

const GOLDEN_10_EPOCH_0: [u64; 10] = [4, 9, 3, 2, 0, 6, 8, 1, 5, 7];
const GOLDEN_10_EPOCH_1: [u64; 10] = [0, 3, 9, 5, 2, 1, 6, 4, 7, 8];
const GOLDEN_5: [u64; 5] = [0, 2, 1, 3, 4];
const GOLDEN_LARGE: [u64; 6] = [342, 2391, 270, 9058, 7021, 3058];
const GOLDEN_DIGEST: [u16; 4] = [19_548, 9022, 64_436, 37_101];
