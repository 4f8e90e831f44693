//! Trainers in threads, trainers in processes, and agents against a coordinator that is played by the test.
#![expect(clippy::print_stdout, reason = "a test tells what it measured")]

mod agent;
mod harness;
#[cfg(feature = "torch")]
mod sharing;
#[cfg(feature = "torch")]
mod syncing;
mod trainers;
#[cfg(feature = "torch")]
mod training;
#[cfg(feature = "torch")]
mod tuning;
