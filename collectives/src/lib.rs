//! All-reduce and its kin over NCCL, TCP and threads behind one trait.
//!
//! A [`Collective`] is one rank's membership in a group of a fixed size and generation. Its calls are made by all ranks in
//! the same order; each returns when this rank has its result, or fails with a typed [`Error`] on every rank soon after
//! one of them is lost, is aborted, or calls something else. After a failure the group is over: a new generation forms a
//! new one.
//!
//! | back end | ranks are | for |
//! |---|---|---|
//! | [`local`] | threads of one process | tests, a single-process world |
//! | [`tcp`] | processes | machines without GPUs; the control channel of `nccl` |
//! | [`nccl`] | processes with a GPU each | training |
//!
//! Sums over host memory add the ranks' contributions in rank order (bf16 in f32, rounded once), whatever the back end,
//! the size and the algorithm: the result is bit-identical on all ranks and equal to a sequential sum. A sum can be made by
//! halves ([`Collective::reduce_scatter`], [`Collective::all_gather`]), for optimisers whose state is spread over the ranks,
//! and with half the bytes ([`Collective::all_reduce_compressed`]), for slow networks.
//!
//! ```
//! use unimse_collectives::{Collective, local};
//!
//! let ranks = local::group(2, 7);
//! let sums: Vec<Vec<f32>> = std::thread::scope(|scope| {
//!     let threads: Vec<_> = ranks
//!         .into_iter()
//!         .map(|mut rank| {
//!             scope.spawn(move || {
//!                 let mut values = vec![1.0 + rank.rank() as f32; 3];
//!                 rank.all_reduce(values.as_mut_slice().into()).expect("both ranks take part");
//!                 values
//!             })
//!         })
//!         .collect();
//!     threads.into_iter().map(|thread| thread.join().expect("the thread returns its sum")).collect()
//! });
//! assert_eq!(sums, [[3.0; 3], [3.0; 3]]);
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod abort;
mod buffer;
mod collective;
mod error;
mod header;
pub mod local;
pub mod nccl;
mod segment;
mod sum;
pub mod tcp;
mod wire;

pub use abort::AbortHandle;
pub use buffer::{Buffer, DType, DeviceBuffer};
pub use collective::{Collective, DEFAULT_TIMEOUT, DeviceCollective, Group};
pub use error::{Error, Refusal, Result};
pub use segment::segment;
pub use wire::Wire;
