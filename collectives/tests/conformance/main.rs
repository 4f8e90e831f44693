//! One suite for every back end: see `suite`.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

mod fabric;
mod segments;
mod suite;

use std::sync::{Mutex, MutexGuard, PoisonError};

use fabric::Fabric;

/// The tests of all files.
mod every {
    pub(crate) use super::segments::*;
    pub(crate) use super::suite::*;
}

/// The tests count the sockets of the process, so they take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

macro_rules! conformance {
    ($($back_end:ident: $fabric:expr => [$($test:ident),* $(,)?]);* $(;)?) => {$(
        mod $back_end {
            $(
                #[test]
                fn $test() {
                    let _turn = super::turn();
                    super::suite::leaves_no_socket_behind(|| super::every::$test(&$fabric));
                }
            )*
        }
    )*};
}

conformance! {
    local: crate::fabric::Threads => [
        sums_equal_the_sequential_sum,
        sums_of_any_shape_equal_the_sequential_sum,
        sums_are_the_same_every_time,
        a_world_of_one_works,
        many_calls_in_a_row_stay_in_step,
        every_root_can_broadcast,
        lengths_of_broadcast_bytes_come_from_the_root,
        ragged_bytes_are_gathered_by_rank,
        nobody_leaves_a_barrier_before_everybody_came,
        an_abort_at_any_moment_ends_all_ranks,
        an_abort_before_a_call_is_remembered,
        who_has_finished_may_leave_before_the_others,
        a_dropped_peer_is_found_by_all,
        different_calls_are_a_mismatch_on_all_ranks,
        a_silent_peer_is_a_timeout,
        bytes_have_no_sum,
        reduce_scatter_and_all_gather_make_an_all_reduce,
        compressed_sums_are_those_of_rounded_numbers,
        compressed_sums_are_within_the_bound,
    ];
    tcp: crate::fabric::Loopback => [
        sums_equal_the_sequential_sum,
        sums_of_any_shape_equal_the_sequential_sum,
        sums_are_the_same_every_time,
        a_world_of_one_works,
        many_calls_in_a_row_stay_in_step,
        every_root_can_broadcast,
        lengths_of_broadcast_bytes_come_from_the_root,
        ragged_bytes_are_gathered_by_rank,
        nobody_leaves_a_barrier_before_everybody_came,
        an_abort_at_any_moment_ends_all_ranks,
        an_abort_before_a_call_is_remembered,
        who_has_finished_may_leave_before_the_others,
        a_dropped_peer_is_found_by_all,
        different_calls_are_a_mismatch_on_all_ranks,
        a_silent_peer_is_a_timeout,
        bytes_have_no_sum,
        reduce_scatter_and_all_gather_make_an_all_reduce,
        compressed_sums_are_those_of_rounded_numbers,
        compressed_sums_are_within_the_bound,
    ];
    network: crate::fabric::Network => [
        sums_equal_the_sequential_sum,
        sums_of_any_shape_equal_the_sequential_sum,
        sums_are_the_same_every_time,
        a_world_of_one_works,
        many_calls_in_a_row_stay_in_step,
        every_root_can_broadcast,
        lengths_of_broadcast_bytes_come_from_the_root,
        ragged_bytes_are_gathered_by_rank,
        nobody_leaves_a_barrier_before_everybody_came,
        an_abort_at_any_moment_ends_all_ranks,
        an_abort_before_a_call_is_remembered,
        who_has_finished_may_leave_before_the_others,
        a_dropped_peer_is_found_by_all,
        different_calls_are_a_mismatch_on_all_ranks,
        a_silent_peer_is_a_timeout,
        bytes_have_no_sum,
        reduce_scatter_and_all_gather_make_an_all_reduce,
        compressed_sums_are_those_of_rounded_numbers,
        compressed_sums_are_within_the_bound,
    ];
}

#[test]
fn back_ends_agree_to_the_bit() {
    let _turn = turn();
    let sum = |fabric: &dyn Fabric| {
        suite::run(fabric, 3, |rank| {
            let mut values: Vec<f32> = (0..40_000).map(|i| suite::value(9, rank.rank(), i)).collect();
            rank.all_reduce(values.as_mut_slice().into()).unwrap();
            values
        })
    };
    let expected = sum(&fabric::Threads);
    assert_eq!(sum(&fabric::Loopback), expected);
    assert_eq!(sum(&fabric::Network), expected);
}

#[test]
fn nccl_passes_or_says_why_it_cannot_run() {
    let _turn = turn();
    match unimse_collectives::nccl::available() {
        Ok(()) => suite::sums_of_any_shape_equal_the_sequential_sum(&fabric::Gpu),
        Err(reason) => {
            assert!(reason.to_string().contains("libcuda") || reason.to_string().contains("libnccl"), "{reason}");
            eprintln!("skipped: {reason}");
        }
    }
}
