//! How groups form, and who is not let in.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "conformance/fabric.rs"]
#[expect(dead_code, reason = "only the listeners are used")]
mod fabric;

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use unimse_collectives::tcp::{self, Listener, Rendezvous, Secret};
use unimse_collectives::{Collective, Error, Refusal};

const LIMIT: Duration = Duration::from_secs(10);

/// Lets strangers loose on the listeners of a world of three, then forms it; returns what the strangers heard.
fn formed_despite(stranger: impl Fn(Rendezvous) -> Option<Rendezvous> + Sync) -> Vec<Error> {
    let ranks = fabric::listeners(3);
    let true_ones = ranks[0].0.clone();
    thread::scope(|scope| {
        let strangers: Vec<_> = (1..3)
            .filter_map(|rank| stranger(Rendezvous { rank, ..true_ones.clone() }))
            .map(|rendezvous| {
                let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
                scope.spawn(move || tcp::connect(&rendezvous, listener, LIMIT).unwrap_err())
            })
            .collect();
        let threads: Vec<_> = ranks
            .into_iter()
            .map(|(rendezvous, listener)| {
                scope.spawn(move || {
                    let mut rank = tcp::connect(&rendezvous, listener, LIMIT).unwrap();
                    let mut sum = [1u64];
                    rank.all_reduce(sum[..].as_mut().into()).unwrap();
                    sum[0]
                })
            })
            .collect();
        // Strangers dial rank 0 and perhaps 1; some may arrive when the listeners are closed, and find nobody.
        let sums: Vec<u64> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(sums, [3, 3, 3]);
        strangers.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn only_refused(errors: &[Error], expected: Refusal) {
    for error in errors {
        let late = matches!(error, Error::PeerLost { .. } | Error::Timeout { .. });
        assert!(late || matches!(error, Error::Refused { reason, .. } if *reason == expected), "{error}");
    }
}

#[test]
fn a_zombie_of_another_generation_is_refused_and_disturbs_nobody() {
    only_refused(
        &formed_despite(|mut zombie| {
            zombie.generation = 0;
            Some(zombie)
        }),
        Refusal::Generation,
    );
}

#[test]
fn a_stranger_with_another_secret_is_refused_and_disturbs_nobody() {
    only_refused(
        &formed_despite(|mut stranger| {
            stranger.secret = Secret::new(b"a guess");
            Some(stranger)
        }),
        Refusal::Secret,
    );
}

#[test]
fn refusals_reach_the_refused() {
    // Rank 0 of a world of two waits; three wrong ones knock before the right one does.
    let mut ranks = fabric::listeners(2);
    let (rendezvous, listener) = ranks.remove(0);
    let (right, right_listener) = ranks.remove(0);
    let waiting = thread::spawn(move || tcp::connect(&rendezvous, listener, LIMIT).unwrap());
    let wrong = |change: fn(&mut Rendezvous)| {
        let mut rendezvous = right.clone();
        change(&mut rendezvous);
        tcp::connect(&rendezvous, Listener::bind(([127, 0, 0, 1], 0).into()).unwrap(), LIMIT).unwrap_err()
    };
    let reason = |error: Error| match error {
        Error::Refused { rank: 0, reason } => reason,
        other => panic!("{other}"),
    };
    assert_eq!(reason(wrong(|wrong| wrong.generation = 9)), Refusal::Generation);
    assert_eq!(reason(wrong(|wrong| wrong.secret = Secret::new(b"x"))), Refusal::Secret);
    assert_eq!(reason(wrong(|wrong| wrong.peers.push(wrong.peers[1]))), Refusal::WorldSize);
    let mut second = tcp::connect(&right, right_listener, LIMIT).unwrap();
    let mut first = waiting.join().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| first.barrier().unwrap());
        second.barrier().unwrap();
    });
}

#[test]
fn connections_that_say_nothing_or_nonsense_disturb_nobody() {
    let ranks = fabric::listeners(3);
    let mut noise: Vec<TcpStream> = (0..30).map(|i| TcpStream::connect(ranks[i % 3].1.address()).unwrap()).collect();
    for stream in noise.iter_mut().step_by(2) {
        stream.write_all(&[0x55; 500]).unwrap();
    }
    let started = Instant::now();
    thread::scope(|scope| {
        for (rendezvous, listener) in ranks {
            scope.spawn(move || tcp::connect(&rendezvous, listener, LIMIT).unwrap().barrier().unwrap());
        }
    });
    assert!(started.elapsed() < Duration::from_secs(3));
    drop(noise);
}

#[test]
fn one_rank_without_shared_memory_keeps_all_on_their_sockets() {
    let mut ranks = fabric::listeners(3);
    let (rendezvous, listener) = ranks.remove(1);
    ranks.insert(1, (rendezvous, listener.network_only()));
    thread::scope(|scope| {
        for mut rank in fabric::connected(ranks.into_iter()) {
            scope.spawn(move || {
                let mut values = vec![1.0f32; 500_000];
                rank.all_reduce(values.as_mut_slice().into()).unwrap();
                assert!(values.iter().all(|&value| value == 3.0));
            });
        }
    });
}

#[test]
fn a_rank_that_is_gone_before_it_connects_is_lost() {
    let mut ranks = fabric::listeners(2);
    drop(ranks.remove(0));
    let (rendezvous, listener) = ranks.remove(0);
    let error = tcp::connect(&rendezvous, listener, LIMIT).unwrap_err();
    assert!(matches!(error, Error::PeerLost { rank: 0 }), "{error}");
}

#[test]
fn forming_can_be_aborted() {
    let (rendezvous, listener) = fabric::listeners(2).remove(0);
    let handle = listener.abort_handle();
    thread::scope(|scope| {
        let forming = scope.spawn(move || tcp::connect(&rendezvous, listener, LIMIT));
        let aborted = Instant::now();
        handle.abort();
        assert!(matches!(forming.join().unwrap(), Err(Error::Aborted)));
        assert!(aborted.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn a_rank_outside_the_world_is_an_error() {
    let (mut rendezvous, listener) = fabric::listeners(1).remove(0);
    rendezvous.rank = 1;
    let error = tcp::connect(&rendezvous, listener, LIMIT).unwrap_err();
    assert_eq!(error.to_string(), "connect does not work with rank 1 in a world of 1");
}
