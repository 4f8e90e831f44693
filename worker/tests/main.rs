//! Trainers in threads, trainers in processes, and agents against a coordinator that is played by the test.

mod agent;
mod harness;
mod trainers;
#[cfg(feature = "torch")]
mod training;
