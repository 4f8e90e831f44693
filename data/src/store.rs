//! One dataset in one Arrow IPC file: written once, atomically; read at random, verified.
//!
//! A store is a plain Arrow file (`pyarrow.ipc.open_file` reads it): text and label columns first, then the two feature
//! columns `acoustic` and `visual` as `list<float32>` of `frames * dim` values. [`Metadata`](crate::schema::Metadata)
//! is JSON in the schema's metadata; the hashes of the batches are in the footer.
//!
//! Opening reads and verifies the metadata, the lengths and the text columns, which then stay in memory. Features are
//! read by position when a sample is asked for, so memory does not grow with them, and a batch's bytes are hashed when
//! the first of its features is read. Reading by position costs a copy out of the page cache, which a batch makes
//! anyway, and where a memory map would kill the process for a file cut short, it returns an error.

mod check;
mod layout;
mod moments;
mod open;
mod partial;
mod seal;
mod writer;

pub use check::StoreCheck;
pub use open::Store;
pub use partial::remove_partial;
pub use writer::{NewStore, StoreWriter};

#[cfg(test)]
mod tests;
