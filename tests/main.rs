//! One binary for all tests that need real processes, so that everything is linked once.
//!
//! The programs `unimse`, `unimse-coordinator` and `unimse-worker` are taken from the folder beside this binary:
//! `cargo xtask test` builds them first. Cluster tests run trainers that only count (`--fake-trainers`) unless numbers matter.

#![expect(clippy::print_stderr, reason = "what a failed or skipped test says goes to its output")]

mod bad_input;
mod cluster;
mod configs;
mod faults;
mod harness;
mod numbers;
mod sweeps;
mod tidy;
