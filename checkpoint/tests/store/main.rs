//! Checkpoints on real stores and on stores that fail, one binary.

#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

mod commit;
mod faults;
mod gc;
mod places;
mod pull;
mod round_trip;
mod sample;
mod untrusted;
