//! What every back end promises, as functions over a [`Fabric`] that makes groups of it.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::fabric::Fabric;
use half::bf16;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use unimse_collectives::{Buffer, Collective, Error, Wire};

use crate::segments::check_halves;

pub(crate) const WORLDS: [u32; 5] = [1, 2, 3, 4, 7];
/// Nothing, one, odd, a whole small call, just above it, and several pieces a segment.
pub(crate) const LENGTHS: [usize; 7] = [0, 1, 3, 1023, 16_384, 16_385, 700_001];
const SOON: Duration = Duration::from_secs(1);

/// Runs `body` on every rank of a new group, each in a thread, and returns the results by rank.
pub(crate) fn run<T: Send>(fabric: &dyn Fabric, world: u32, body: impl Fn(&mut dyn Collective) -> T + Sync) -> Vec<T> {
    let ranks = fabric.form(world);
    thread::scope(|scope| {
        let body = &body;
        let threads: Vec<_> = ranks.into_iter().map(|mut rank| scope.spawn(move || body(rank.as_mut()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A number that depends on everything, with enough digits that the order of a sum matters.
pub(crate) fn value(seed: u64, rank: u32, index: usize) -> f32 {
    let mixed = (seed ^ u64::from(rank) << 40 ^ index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 33) as f32 / 1e6 - 1000.0) * if mixed & 1 == 0 { 1e-3 } else { 1.0 }
}

/// Sums made-up contributions on all ranks and compares each rank's result with a sequential sum, to the bit.
fn check_sum(rank: &mut dyn Collective, seed: u64, len: usize) {
    let (me, world) = (rank.rank(), rank.world_size());
    let expected_f32 = |i| (1..world).fold(value(seed, 0, i), |sum, rank| sum + value(seed, rank, i));
    let mut values: Vec<f32> = (0..len).map(|i| value(seed, me, i)).collect();
    rank.all_reduce(values.as_mut_slice().into()).unwrap();
    let wrong = (0..len).find(|&i| values[i].to_bits() != expected_f32(i).to_bits());
    assert_eq!(wrong, None, "f32, {len} elements, world {world}");

    let small = |rank, i| bf16::from_f32(value(seed, rank, i));
    let mut values: Vec<bf16> = (0..len).map(|i| small(me, i)).collect();
    rank.all_reduce(values.as_mut_slice().into()).unwrap();
    let expected = |i| (1..world).fold(small(0, i).to_f32(), |sum, rank| sum + small(rank, i).to_f32());
    let wrong = (0..len).find(|&i| values[i].to_bits() != bf16::from_f32(expected(i)).to_bits());
    assert_eq!(wrong, None, "bf16, {len} elements, world {world}");

    let mut values: Vec<f64> = (0..len).map(|i| f64::from(value(seed, me, i))).collect();
    rank.all_reduce(values.as_mut_slice().into()).unwrap();
    let expected = |i| (1..world).fold(f64::from(value(seed, 0, i)), |sum, rank| sum + f64::from(value(seed, rank, i)));
    let wrong = (0..len).find(|&i| values[i].to_bits() != expected(i).to_bits());
    assert_eq!(wrong, None, "f64, {len} elements, world {world}");

    let mut values: Vec<u64> = (0..len).map(|i| u64::MAX / 2 + u64::from(me) + i as u64).collect();
    rank.all_reduce(values.as_mut_slice().into()).unwrap();
    let expected = |i: u64| (0..world).fold(0u64, |sum, rank| sum.wrapping_add(u64::MAX / 2 + u64::from(rank) + i));
    let wrong = (0..len).find(|&i| values[i] != expected(i as u64));
    assert_eq!(wrong, None, "u64, {len} elements, world {world}");
}

pub(crate) fn sums_equal_the_sequential_sum(fabric: &dyn Fabric) {
    for world in WORLDS {
        run(fabric, world, |rank| {
            for len in LENGTHS {
                check_sum(rank, 1, len);
            }
        });
    }
}

pub(crate) fn sums_of_any_shape_equal_the_sequential_sum(fabric: &dyn Fabric) {
    let mut runner = TestRunner::new_with_rng(
        Config { cases: 24, failure_persistence: None, ..Config::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let shapes = (1u32..6, prop::collection::vec(0usize..120_000, 1..4), any::<u64>());
    runner
        .run(&shapes, |(world, lengths, seed)| {
            run(fabric, world, |rank| {
                for &len in &lengths {
                    check_sum(rank, seed, len);
                }
            });
            Ok(())
        })
        .unwrap();
}

pub(crate) fn sums_are_the_same_every_time(fabric: &dyn Fabric) {
    let once = || {
        run(fabric, 4, |rank| {
            let mut values: Vec<f32> = (0..300_000).map(|i| value(5, rank.rank(), i)).collect();
            rank.all_reduce(values.as_mut_slice().into()).unwrap();
            values
        })
    };
    let first = once();
    assert!(first.iter().all(|values| *values == first[0]), "all ranks hold the same bits");
    assert_eq!(first, once(), "and the same again");
}

pub(crate) fn a_world_of_one_works(fabric: &dyn Fabric) {
    run(fabric, 1, |rank| {
        let mut values = [1.5f32, -2.0];
        rank.all_reduce(values[..].as_mut().into()).unwrap();
        rank.broadcast(0, values[..].as_mut().into()).unwrap();
        assert_eq!(values, [1.5, -2.0]);
        let mut large = vec![2.5f32; 100_000];
        rank.all_reduce(large.as_mut_slice().into()).unwrap();
        assert!(large.iter().all(|&value| value == 2.5));
        assert_eq!(rank.all_gather_bytes(b"me").unwrap(), [b"me"]);
        rank.barrier().unwrap();
        rank.probe().unwrap();
    });
}

pub(crate) fn many_calls_in_a_row_stay_in_step(fabric: &dyn Fabric) {
    let world = 3;
    run(fabric, world, |rank| {
        for round in 0..400u64 {
            let mut lanes = [u64::from(rank.rank()) + round; 16];
            rank.all_reduce(lanes[..].as_mut().into()).unwrap();
            assert_eq!(lanes, [3 + 3 * round; 16]);
            match round % 5 {
                0 => rank.barrier().unwrap(),
                1 => {
                    let root = (round % u64::from(world)) as u32;
                    let mut bytes = vec![rank.rank() as u8; 10];
                    rank.broadcast(root, Buffer::Bytes(&mut bytes)).unwrap();
                    assert_eq!(bytes, [root as u8; 10]);
                }
                2 => {
                    let all = rank.all_gather_bytes(&vec![rank.rank() as u8; rank.rank() as usize]).unwrap();
                    assert_eq!(all, [vec![], vec![1], vec![2, 2]]);
                }
                3 => check_sum(rank, round, 30_000),
                _ => check_halves(rank, round, 40_000),
            }
        }
    });
}

pub(crate) fn every_root_can_broadcast(fabric: &dyn Fabric) {
    for world in WORLDS {
        run(fabric, world, |rank| {
            for (root, len) in (0..world).flat_map(|root| LENGTHS.map(|len| (root, len))) {
                let expected: Vec<f32> = (0..len).map(|i| value(2, root, i)).collect();
                let mut values = if rank.rank() == root { expected.clone() } else { vec![f32::NAN; len] };
                rank.broadcast(root, values.as_mut_slice().into()).unwrap();
                assert!(values == expected, "{len} elements from {root} of {world}");
            }
        });
    }
    run(fabric, 2, |rank| {
        let error = rank.broadcast(2, Buffer::Bytes(&mut [])).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        rank.barrier().expect("a wrong argument breaks nothing");
    });
}

pub(crate) fn lengths_of_broadcast_bytes_come_from_the_root(fabric: &dyn Fabric) {
    run(fabric, 4, |rank| {
        for (root, len) in [(0, 5), (2, 0), (1, 1_000_000), (3, 100)] {
            let expected: Vec<u8> = (0..len).map(|i| (i * 7 + root) as u8).collect();
            let mut bytes = if rank.rank() == root as u32 { expected.clone() } else { b"something else".to_vec() };
            rank.broadcast_bytes(root as u32, &mut bytes).unwrap();
            assert!(bytes == expected, "{len} bytes from {root}");
        }
    });
}

pub(crate) fn ragged_bytes_are_gathered_by_rank(fabric: &dyn Fabric) {
    for world in WORLDS {
        let of = |rank: u32, scale: usize| -> Vec<u8> {
            (0..(rank as usize + 1) % 3 * scale).map(|i| (i + rank as usize) as u8).collect()
        };
        run(fabric, world, |rank| {
            for scale in [0, 1, 60_000, 400_000] {
                let all = rank.all_gather_bytes(&of(rank.rank(), scale)).unwrap();
                let expected: Vec<_> = (0..world).map(|rank| of(rank, scale)).collect();
                assert!(all == expected, "scale {scale}, world {world}");
            }
        });
    }
}

pub(crate) fn nobody_leaves_a_barrier_before_everybody_came(fabric: &dyn Fabric) {
    let arrived = AtomicU32::new(0);
    run(fabric, 4, |rank| {
        for round in 1..=50 {
            arrived.fetch_add(1, Ordering::SeqCst);
            rank.barrier().unwrap();
            assert!(arrived.load(Ordering::SeqCst) >= round * 4);
            rank.barrier().unwrap();
        }
    });
}

/// Makes the n-th of a row of calls of all kinds that work on numbers.
fn nth_call(rank: &mut dyn Collective, n: usize, values: &mut [f32]) -> Result<(), Error> {
    match n % 4 {
        0 => rank.all_reduce(values.into()),
        1 => rank.reduce_scatter(values.into()),
        2 => rank.all_gather(values.into()),
        _ => rank.all_reduce_compressed(values, Wire::Bf16),
    }
}

/// Makes calls for ever; returns the error that ends it and when it came.
fn call_until_error(rank: &mut dyn Collective, len: usize) -> (Error, Instant) {
    let mut values = vec![0.0f32; len];
    for n in 0.. {
        if let Err(error) = nth_call(rank, n, &mut values) {
            let now = Instant::now();
            let again = rank.barrier().unwrap_err();
            assert_eq!(again.to_string(), error.to_string(), "every later call fails likewise");
            return (error, now);
        }
    }
    unreachable!("numbers end later than groups")
}

pub(crate) fn an_abort_at_any_moment_ends_all_ranks(fabric: &dyn Fabric) {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for round in 0..12 {
        let world = rng.random_range(1..5u32);
        let victim = rng.random_range(0..world);
        let len = [16, 20_000, 2_000_000][round % 3];
        let after = Duration::from_micros(rng.next_u64() % 30_000);
        let ranks = fabric.form(world);
        let handle = ranks[victim as usize].abort_handle();
        thread::scope(|scope| {
            let threads: Vec<_> =
                ranks.into_iter().map(|mut rank| scope.spawn(move || call_until_error(rank.as_mut(), len))).collect();
            // The moment is arbitrary by design; nothing is awaited by it.
            thread::sleep(after);
            let aborted = Instant::now();
            handle.abort();
            for (rank, thread) in threads.into_iter().enumerate() {
                let (error, at) = thread.join().unwrap();
                assert!(at - aborted < SOON, "round {round}: rank {rank} took {:?}", at - aborted);
                if rank == victim as usize {
                    assert!(matches!(error, Error::Aborted), "round {round}: {error}");
                } else {
                    assert!(matches!(error, Error::PeerLost { .. }), "round {round}: {error}");
                }
            }
        });
        assert!(handle.is_aborted());
        handle.abort();
    }
}

pub(crate) fn an_abort_before_a_call_is_remembered(fabric: &dyn Fabric) {
    run(fabric, 2, |rank| {
        rank.barrier().unwrap();
        if rank.rank() == 0 {
            rank.abort_handle().clone().abort();
            assert!(matches!(rank.probe(), Err(Error::Aborted)));
            assert!(matches!(rank.barrier(), Err(Error::Aborted)));
        } else {
            assert!(matches!(rank.barrier(), Err(Error::PeerLost { rank: 0 })));
            assert!(matches!(rank.probe(), Err(Error::PeerLost { rank: 0 })));
        }
    });
}

/// The last call of a group is a small one, so that ranks leave while others still wait to hear of it from the slowest.
pub(crate) fn who_has_finished_may_leave_before_the_others(fabric: &dyn Fabric) {
    for round in 0..60u32 {
        let world = 5;
        run(fabric, world, |rank| {
            if round % world == rank.rank() {
                thread::sleep(Duration::from_micros(u64::from(round) * 40));
            }
            match round % 4 {
                0 => check_sum(rank, u64::from(round), 2_547),
                3 => {
                    let mut values = vec![1.0f32; 100_000];
                    rank.reduce_scatter(values.as_mut_slice().into()).unwrap();
                    assert_eq!(values[rank.rank() as usize * 20_000], 5.0);
                }
                1 => assert_eq!(rank.all_gather_bytes(&vec![rank.rank() as u8; 30_000]).unwrap().len(), 5),
                _ => {
                    let mut bytes = if rank.rank() == 2 { vec![7; 90_000] } else { Vec::new() };
                    rank.broadcast_bytes(2, &mut bytes).unwrap();
                    assert_eq!(bytes, vec![7; 90_000]);
                }
            }
        });
    }
}

pub(crate) fn a_dropped_peer_is_found_by_all(fabric: &dyn Fabric) {
    for (world, victim, len) in [(2, 0, 16), (3, 1, 2_000_000), (4, 3, 16), (7, 2, 500_000)] {
        let mut ranks = fabric.form(world);
        let mut dropped = ranks.remove(victim as usize);
        thread::scope(|scope| {
            let threads: Vec<_> =
                ranks.into_iter().map(|mut rank| scope.spawn(move || call_until_error(rank.as_mut(), len))).collect();
            let mut values = vec![0.0f32; len];
            for n in 0..7 {
                nth_call(dropped.as_mut(), n, &mut values).unwrap();
            }
            let at = Instant::now();
            drop(dropped);
            for thread in threads {
                let (error, found) = thread.join().unwrap();
                assert!(found.saturating_duration_since(at) < SOON);
                assert!(matches!(error, Error::PeerLost { .. }), "{error}");
                if len == 16 {
                    assert!(matches!(error, Error::PeerLost { rank } if rank == victim), "{error}");
                }
            }
        });
    }
}

pub(crate) fn different_calls_are_a_mismatch_on_all_ranks(fabric: &dyn Fabric) {
    type Call = fn(&mut dyn Collective) -> Result<(), Error>;
    let sum: Call = |rank| rank.all_reduce(vec![0.0f32; 100].as_mut_slice().into());
    let others: [Call; 9] = [
        |rank| rank.all_reduce(vec![0.0f32; 101].as_mut_slice().into()),
        |rank| rank.all_reduce(vec![0.0f32; 1_000_000].as_mut_slice().into()),
        |rank| rank.all_reduce(vec![0.0f64; 100].as_mut_slice().into()),
        |rank| rank.broadcast(1, vec![0.0f32; 100].as_mut_slice().into()),
        |rank| rank.barrier(),
        |rank| rank.all_gather_bytes(&[1; 400]).map(drop),
        |rank| rank.reduce_scatter(vec![0.0f32; 100].as_mut_slice().into()),
        |rank| rank.all_gather(vec![0.0f32; 100].as_mut_slice().into()),
        |rank| rank.all_reduce_compressed(&mut [0.0f32; 100], Wire::Bf16),
    ];
    let large: Call = |rank| rank.all_reduce(vec![0.0f32; 900_000].as_mut_slice().into());
    let large_halves: [Call; 3] = [
        |rank| rank.all_reduce(vec![0.0f32; 900_001].as_mut_slice().into()),
        |rank| rank.reduce_scatter(vec![0.0f32; 900_000].as_mut_slice().into()),
        |rank| rank.all_reduce_compressed(&mut vec![0.0f32; 900_000], Wire::Bf16),
    ];
    let pairs = others.map(|other| (sum, other)).into_iter().chain(large_halves.map(|other| (large, other)));
    for (index, (sum, other)) in pairs.enumerate() {
        for (world, odd) in [(2, 0), (3, 1), (4, 3)] {
            let errors = run(fabric, world, |rank| {
                let before = Instant::now();
                let call = if rank.rank() == odd { other } else { sum };
                let error = call(rank).unwrap_err();
                assert!(before.elapsed() < SOON);
                error
            });
            for error in errors {
                assert!(matches!(error, Error::Mismatch { .. }), "call {index}, world {world}: {error}");
            }
        }
    }
}

pub(crate) fn a_silent_peer_is_a_timeout(fabric: &dyn Fabric) {
    let mut ranks = fabric.form(3);
    let silent = ranks.pop().unwrap();
    thread::scope(|scope| {
        let threads: Vec<_> = ranks
            .into_iter()
            .map(|mut rank| {
                scope.spawn(move || {
                    rank.set_timeout(Duration::from_millis(if rank.rank() == 0 { 60 } else { 10_000 }));
                    let before = Instant::now();
                    (rank.barrier().unwrap_err(), before.elapsed())
                })
            })
            .collect();
        let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(matches!(outcomes[0].0, Error::Timeout { operation: "barrier", rank: 2, .. }), "{:?}", outcomes[0]);
        assert!(matches!(outcomes[1].0, Error::PeerLost { .. }), "{:?}", outcomes[1]);
        assert!(outcomes.iter().all(|(_, took)| *took < SOON && *took >= Duration::from_millis(50)));
    });
    drop(silent);
}

pub(crate) fn bytes_have_no_sum(fabric: &dyn Fabric) {
    run(fabric, 2, |rank| {
        let error = rank.all_reduce(Buffer::Bytes(&mut [1, 2])).unwrap_err();
        assert_eq!(error.to_string(), "all_reduce does not work with bytes");
        let error = rank.reduce_scatter(Buffer::Bytes(&mut [1, 2])).unwrap_err();
        assert_eq!(error.to_string(), "reduce_scatter does not work with bytes");
        rank.barrier().expect("a wrong argument breaks nothing");
    });
}

/// Runs a test and checks that no socket of it is left; `leftovers.rs` counts everything, in a process of its own.
pub(crate) fn leaves_no_socket_behind(test: impl FnOnce()) {
    let sockets = || {
        let links =
            fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        links.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    };
    let before = sockets();
    test();
    assert_eq!(sockets(), before);
}
