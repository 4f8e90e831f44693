//! The worker: an agent for each machine, and a trainer process for each of its slots.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]
//!
//! ```text
//! coordinator <== gRPC session ==> agent <== JSON lines ==> trainer (one a slot) <== collectives ==> other trainers
//! ```
//!
//! - [`agent`] keeps the session with the coordinator, starts and ends trainers, and reports; it survives its trainers.
//! - [`lifecycle`] is its pure half: orders and exits in, effects out.
//! - [`protocol`] is what agent and trainer say to each other.
//! - [`trainer`] trains one rank of one generation after another; [`trainer::Replica`] is what real and fake training differ in.
//! - [`slots`] finds the places where trainers can run.
//!
//! Real training needs libtorch and sits behind the feature `torch` (on by default), in `trainer::torch`.

pub mod agent;
pub mod lifecycle;
pub mod protocol;
pub mod slots;
pub mod trainer;
