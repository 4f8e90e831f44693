//! The wire: what coordinator, workers and people's programs say to each other, in types of [`unimse_core`].
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]
//!
//! The generated prost types stay inside this crate; what leaves it is made of core's newtypes and views. [`client`] is the side of
//! people, [`session`] the side of worker agents, [`server`] what the coordinator implements. [`Error`] is the one table between what went
//! wrong and [`tonic::Status`]; [`connect`] is the one way to dial. Specifications travel as their canonical JSON, so that whoever receives
//! one validates it again by reading it.
//!
//! Limits: a message has at most [`MAX_MESSAGE`] bytes in both directions, long answers come as streams of chunks, a connection that
//! does not answer pings is given up.

pub mod client;
pub mod connect;
pub mod server;
pub mod session;

mod convert;
mod status;

pub use convert::Malformed;
pub use futures::{StreamExt, TryStreamExt};
pub use status::Error;

/// Bytes that one message may have, either way.
pub const MAX_MESSAGE: usize = 8 << 20;

/// The address of a coordinator that nobody has configured.
pub const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:7800";

/// A stream of values, each of which may be the error that ends it.
pub type Stream<T> = std::pin::Pin<Box<dyn futures::Stream<Item = Result<T, Error>> + Send>>;

#[allow(
    unreachable_pub,
    unused_qualifications,
    missing_debug_implementations,
    clippy::pedantic,
    clippy::or_fun_call,
    reason = "generated from the .proto files, whose comments describe it"
)]
mod wire {
    tonic::include_proto!("unimse.v1");
}
