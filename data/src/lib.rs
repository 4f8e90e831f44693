//! Readers of public dataset formats, one Arrow store, tokenizer training, batches. Plain arrays out, no tensors.
//!
//! The way of the data:
//!
//! ```text
//! release files -> read::{mmsa, meld, ..} -> schema::Sample -> store::StoreWriter -> one Arrow file a dataset
//!                  read::pickle               import::Report                                |
//!                  read::isolated                                                           v
//! tensors in the worker <- batch::collate <- tokenizer::Tokenizer <- corpus::Corpus <- store::Store
//! ```
//!
//! - [`schema`] is what every dataset is told in: a [`schema::Sample`] has text, labels of which any may be unknown, and
//!   features of their true length or none at all.
//! - [`read`] knows the release formats. Pickles are decoded by [`read::pickle`], which never executes anything, and
//!   [`read::isolated`] puts the whole import into a bounded process of its own.
//! - [`import`](mod@import) makes stores, inspects them and checks every byte of them; [`sample`] makes two synthetic ones.
//! - [`store`] is the file: written atomically in one pass, verified when read, readable in pyarrow.
//! - [`universal`] fills labels that a dataset lacks from the most similar sample of another; [`sentences`] prepares text for the
//!   encoder that says what is similar.
//! - [`torch_file`] finds the tensors in a published `pytorch_model.bin`, as ranges of its bytes.
//! - [`corpus`] numbers the samples of several stores; [`tokenizer`] and [`batch`] turn them into padded arrays.
//!
//! A new release format is a file in `read/` that implements the crate's `Reader`, a line in `read::Format`, one in
//! `read/layout.rs` that tells it from others, and a file in its exact layout in `tests/layouts`. `docs/data.md` is for users.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on should panic"))]

pub mod batch;
pub mod corpus;
pub mod error;
pub mod import;
pub mod read;
pub mod sample;
pub mod schema;
pub mod sentences;
pub mod store;
pub mod tokenizer;
pub mod torch_file;
pub mod universal;

pub use error::Error;
pub use torch_file::{TorchDtype, TorchTensor, read_torch_file, torch_files_of};
