//! Counts what groups leave behind; alone in its process, so that nothing else comes and goes.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "conformance/fabric.rs"]
#[expect(dead_code, reason = "only TCP groups hold anything that could be left")]
mod fabric;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use unimse_collectives::{Collective, Error, tcp};

fn count(folder: &str) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn groups_that_end_in_any_way_leave_no_thread_no_descriptor_and_no_memory() {
    let (threads, descriptors) = (count("/proc/self/task"), count("/proc/self/fd"));
    for round in 0..6 {
        let mut ranks = fabric::loopback(3);
        let handles: Vec<_> = ranks.iter().map(Collective::abort_handle).collect();
        assert!(count("/proc/self/fd") > descriptors);
        assert!(fs::read_to_string("/proc/self/maps").unwrap().contains("unimse-"), "ranks of one host share memory");
        thread::scope(|scope| {
            for rank in &mut ranks {
                scope.spawn(|| rank.all_reduce(vec![1.0f32; 100_000].as_mut_slice().into()).unwrap());
            }
        });
        match round % 3 {
            // All at once, in order.
            0 => drop(ranks),
            // Aborted, and kept while the handles are still there.
            1 => {
                for handle in &handles {
                    handle.abort();
                }
                assert!(ranks.iter_mut().all(|rank| matches!(rank.barrier(), Err(Error::Aborted))));
            }
            // One is gone, the others find out and close by themselves.
            _ => {
                drop(ranks.remove(1));
                for rank in &mut ranks {
                    assert!(matches!(rank.barrier(), Err(Error::PeerLost { rank: 1 })));
                }
                assert_eq!(count("/proc/self/fd"), descriptors, "a broken group holds no connections");
            }
        }
        // The handles outlive the group and hold nothing.
        assert!(!handles.is_empty());
    }
    // A group that never forms.
    let (rendezvous, listener) = fabric::listeners(2).remove(1);
    let error = tcp::connect(&rendezvous, listener, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, Error::Timeout { operation: "connect", rank: 0, .. }), "{error}");
    assert_eq!(count("/proc/self/fd"), descriptors);
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!maps.contains("unimse-"), "shared memory is left:\n{maps}");
    // A scoped thread may be in its last instructions when its scope has ended.
    let until = Instant::now() + Duration::from_secs(1);
    while count("/proc/self/task") > threads {
        assert!(Instant::now() < until, "threads are left");
        thread::yield_now();
    }
}
