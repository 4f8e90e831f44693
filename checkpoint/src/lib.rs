//! Checkpoints as bytes: streamed shards, manifests, verification and deletion over an object store.
//!
//! A checkpoint is a set of **shards** (one safetensors file a rank, each with a disjoint part of the tensors) and one
//! **manifest** that names them:
//!
//! ```text
//! <root>/<job>/step-00000200/g0007-<attempt>/rank-0000.safetensors ...   streamed while training continues
//! <root>/<job>/step-00000200/manifest-g0007.json                         created last: this is the commit
//! ```
//!
//! Shards go to keys that are never reused, the manifest is created only if absent, and every 8 MiB of a shard carry a BLAKE3
//! value. So a checkpoint exists only when its manifest does, a stale generation can neither replace nor damage a newer
//! one, and a damaged byte is never loaded silently. (That a zombie's own manifest does not count is the coordinator's
//! part: readers take the checkpoint that the journal names, never the newest in a listing.)
//!
//! The way of a checkpoint through this crate:
//! - [`Store::open`] a folder or bucket, [`Store::probe`] whether it keeps its promises;
//! - [`ShardWriter`] streams tensors and returns a [`ShardDescriptor`]; [`commit`] writes the [`Manifest`];
//! - [`Checkpoint::open`] finds and checks it, [`Checkpoint::read_all`] loads it from any number of shards,
//!   [`Checkpoint::verify`] and [`Checkpoint::pull`] serve people;
//! - [`gc`] lists checkpoints and orphans and deletes them;
//! - [`TraceKey`] names profiles, which lie beside a job's checkpoints;
//! - [`fault`] is the store that fails on purpose, for tests here and elsewhere.
//!
//! Nothing here knows tensors, ranks' work, jobs' states or the network: bytes, names, shapes and types only.

mod commit;
mod digest;
mod error;
pub mod fault;
pub mod gc;
mod header;
mod key;
pub mod manifest;
mod pull;
mod reader;
mod store;
mod trace;
mod writer;

pub use commit::{Committed, commit};
pub use digest::Digest;
pub use error::{Error, Result};
pub use header::TensorSpec;
pub use key::{Attempt, AttemptKey, ManifestKey};
pub use manifest::{DataCursor, Manifest, ShardDescriptor, TensorEntry, Tokenizer};
pub use pull::{PullPlan, Pulled};
pub use reader::{Checkpoint, ReadOptions, Tensor, VerifyReport};
pub use safetensors::Dtype;
pub use store::{ProbeReport, Store};
pub use trace::TraceKey;
pub use writer::{ShardWriter, WriteOptions};
