//! The coordinator: a shell around [`unimse_core::machine`] that remembers, listens and does as it is told.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]
//!
//! ```text
//! grpc, http --> Handle --> Service (THE loop) --> Journal        durable before anybody hears of it
//!                              |   machine.turn()
//!                              +--> Dispatch                      orders to agents, deletions in stores
//!                Handle --> Telemetry                             curves, digests and logs, on a thread of their own
//! ```
//!
//! - [`config`]: where the state lies and where to listen.
//! - [`journal`]: the only durable state; replaying it is recovery.
//! - [`service`]: waits for messages, applies what has queued up as one turn of the machine, commits it once, then answers.
//! - [`handle`]: what everybody else calls.
//! - [`telemetry`]: what may be lost with the power, but not with the process.
//! - [`start`] puts them together and gives back a [`Running`] coordinator, in a program or in a test.

pub mod config;
pub mod handle;
pub mod journal;
pub mod service;
pub mod telemetry;

mod clock;
mod dispatch;
mod grpc;
mod http;
mod listener;
mod meters;
mod resolve;
mod running;
mod state_dir;

pub use config::Config;
pub use handle::Handle;
pub use running::{Error, Running, start, start_with};
