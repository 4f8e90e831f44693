//! Networks that are made slow for experiments.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "conformance/fabric.rs"]
#[expect(dead_code, reason = "only TCP groups can be slow")]
mod fabric;

use std::thread;
use std::time::{Duration, Instant};

use unimse_collectives::{Collective, Error, Wire};

const RATE: u64 = 10_000_000;

fn slow(world: u32) -> Vec<unimse_collectives::tcp::Tcp> {
    let ranks = fabric::listeners(world).into_iter();
    fabric::connected(ranks.map(|(rendezvous, listener)| (rendezvous, listener.limited(RATE))))
}

/// The time of a call on the slowest rank.
fn time_of(world: u32, call: impl Fn(&mut dyn Collective) + Sync) -> Duration {
    thread::scope(|scope| {
        let call = &call;
        let times: Vec<_> = slow(world)
            .into_iter()
            .map(|mut rank| {
                scope.spawn(move || {
                    let before = Instant::now();
                    call(&mut rank);
                    before.elapsed()
                })
            })
            .collect();
        times.into_iter().map(|time| time.join().unwrap()).max().unwrap()
    })
}

#[test]
fn a_call_takes_at_least_the_time_of_its_bytes() {
    for world in [2, 3] {
        let len = 300_000;
        let took = time_of(world, |rank| {
            let mut values = vec![1.0f32; len];
            rank.all_reduce(values.as_mut_slice().into()).unwrap();
            assert!(values.iter().all(|&value| value == world as f32));
        });
        // Each rank sends its parts of the others' segments and its own sum to all others.
        let bytes = 2.0 * f64::from(world - 1) / f64::from(world) * (len * 4) as f64;
        assert!(took.as_secs_f64() >= bytes / RATE as f64, "world {world}: {took:?}");
    }
}

#[test]
fn compressed_sums_send_half_and_small_calls_work_too() {
    let len = 300_000;
    let took = time_of(2, |rank| {
        let mut values = vec![0.5f32; len];
        rank.all_reduce_compressed(&mut values, Wire::Bf16).unwrap();
        assert!(values.iter().all(|&value| value == 1.0));
        rank.barrier().unwrap();
        assert_eq!(rank.all_gather_bytes(&[rank.rank() as u8]).unwrap(), [[0], [1]]);
    });
    assert!(took.as_secs_f64() >= (len * 2) as f64 / RATE as f64, "{took:?}");
}

#[test]
fn an_abort_does_not_wait_for_the_line() {
    let mut ranks = slow(2);
    let handle = ranks[0].abort_handle();
    thread::scope(|scope| {
        // Would take ten seconds.
        let threads: Vec<_> = ranks
            .iter_mut()
            .map(|rank| scope.spawn(|| rank.all_reduce(vec![0.0f32; 25_000_000].as_mut_slice().into()).unwrap_err()))
            .collect();
        handle.abort();
        let errors: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(matches!(errors[0], Error::Aborted), "{}", errors[0]);
        assert!(matches!(errors[1], Error::PeerLost { rank: 0 }), "{}", errors[1]);
    });
}
