//! Streams one shard to the store while training goes on.

use std::num::NonZeroUsize;

use bytes::Bytes;
use object_store::path::Path;
use unimse_core::id::Rank;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::header::{self, TensorSpec};
use crate::key::AttemptKey;
use crate::manifest::{ShardDescriptor, TensorEntry};
use crate::store::Store;

mod upload;

use upload::Upload;

const MIB: u64 = 1 << 20;
/// S3 takes 10,000 parts; shards that would need more get larger ones.
const MOST_PARTS: u64 = 9_000;

/// How a shard is cut and how much of it is on the way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// The size of an uploaded part in bytes, a multiple of `chunk_bytes`; a smaller shard goes up in one request.
    pub part_bytes: u64,
    /// The size of a hashed chunk in bytes, a power of two of at least 1024.
    pub chunk_bytes: u64,
    /// How many parts are hashed and uploaded together; so many are held in memory, and one more.
    pub in_flight: NonZeroUsize,
}

impl Default for WriteOptions {
    /// Parts of 16 MiB (one S3 stream gives about 85 MiB/s, so a node wants tens of them over its ranks), chunks of 8 MiB.
    fn default() -> Self {
        Self { part_bytes: 16 * MIB, chunk_bytes: 8 * MIB, in_flight: NonZeroUsize::new(4).expect("four is not zero") }
    }
}

/// Writes one safetensors file: the header from names, types and shapes first, then the tensors' bytes as they come.
///
/// Parts are hashed on other threads while they travel. Nothing is visible under the shard's key before
/// [`ShardWriter::finish`]; a writer that fails or is dropped takes back what it uploaded. Must live inside a tokio runtime.
#[derive(Debug)]
pub struct ShardWriter {
    key: Path,
    rank: Rank,
    chunk_bytes: u64,
    part_bytes: u64,
    entries: Vec<TensorEntry>,
    total: u64,
    /// The tensor whose bytes come next.
    current: usize,
    /// The byte of the file that comes next.
    position: u64,
    /// The file's first bytes, until they are sent; they can be longer than a part.
    header: Bytes,
    /// The part being filled, in pieces as they came: nothing is copied.
    pending: Vec<Bytes>,
    pending_bytes: u64,
    upload: Upload,
}

impl ShardWriter {
    /// Lays the file out; touches the store only when the first part is full.
    pub fn new(
        store: &Store,
        attempt: &AttemptKey,
        rank: Rank,
        tensors: Vec<TensorSpec>,
        options: WriteOptions,
    ) -> Result<Self> {
        let key = attempt.shard(rank);
        let bad = |reason: String| Error::BadShard { key: key.to_string(), reason };
        let WriteOptions { part_bytes, chunk_bytes, in_flight } = options;
        if !chunk_bytes.is_power_of_two()
            || chunk_bytes < crate::digest::SMALLEST_CHUNK
            || part_bytes == 0
            || !part_bytes.is_multiple_of(chunk_bytes)
        {
            return Err(bad(format!("parts of {part_bytes} bytes cannot be cut in chunks of {chunk_bytes}")));
        }
        let header = header::lay_out(tensors).map_err(bad)?;
        let part_bytes = part_bytes.max(header.total.div_ceil(MOST_PARTS).next_multiple_of(chunk_bytes));
        let upload = Upload::new(store.clone(), key.clone(), in_flight, header.total, chunk_bytes);
        let header_bytes = header.bytes.len() as u64;
        Ok(Self {
            key,
            rank,
            chunk_bytes,
            part_bytes,
            entries: header.entries,
            total: header.total,
            current: 0,
            position: header_bytes,
            header: header.bytes.into(),
            pending: Vec::new(),
            pending_bytes: 0,
            upload,
        })
    }

    /// The tensors in the order in which [`ShardWriter::write`] wants them: the wider types first, then by name.
    pub fn tensors(&self) -> &[TensorEntry] {
        &self.entries
    }

    /// The size of the whole file in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    /// Takes the next bytes of the tensor `name`, in as many pieces as the caller likes.
    ///
    /// Waits while too many parts are on the way. After an error, or when the future is dropped before its end, the
    /// writer is of no more use and must be dropped too.
    pub async fn write(&mut self, name: &str, bytes: Bytes) -> Result<()> {
        self.skip_complete();
        if bytes.is_empty() {
            return Ok(());
        }
        let Some(entry) = self.entries.get(self.current) else {
            return Err(self.bad(format!("tensor `{name}` gets bytes after all tensors are complete")));
        };
        let missing = entry.end - self.position;
        if entry.name != name {
            let reason = format!("tensor `{}` still misses {missing} bytes, but bytes of `{name}` came", entry.name);
            return Err(self.bad(reason));
        }
        if bytes.len() as u64 > missing {
            return Err(self.bad(format!("tensor `{name}` misses {missing} bytes, but {} came", bytes.len())));
        }
        self.position += bytes.len() as u64;
        let header = std::mem::take(&mut self.header);
        self.append(header).await?;
        self.append(bytes).await
    }

    /// Fills parts and sends the full ones.
    async fn append(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let room = (self.part_bytes - self.pending_bytes).min(bytes.len() as u64);
            self.pending.push(bytes.split_to(room as usize));
            self.pending_bytes += room;
            // The last part waits for `finish`, and so does a file of one part.
            if self.pending_bytes == self.part_bytes && self.total > self.part_bytes {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    /// Waits until everything is in the store and makes the shard visible.
    pub async fn finish(mut self) -> Result<ShardDescriptor> {
        self.skip_complete();
        if let Some(entry) = self.entries.get(self.current) {
            let reason = format!("tensor `{}` still misses {} bytes at the end", entry.name, entry.end - self.position);
            return Err(self.bad(reason));
        }
        let header = std::mem::take(&mut self.header);
        self.append(header).await?;
        if self.pending_bytes > 0 && self.total > self.part_bytes {
            self.send_part().await?;
        }
        let pieces = std::mem::take(&mut self.pending);
        let chunks = if self.total > self.part_bytes {
            self.upload.complete().await?
        } else {
            self.upload.put_whole(pieces).await?
        };
        Ok(ShardDescriptor {
            key: self.key.to_string(),
            rank: self.rank,
            bytes: self.total,
            blake3: Digest::of_shard(&chunks),
            chunk_bytes: self.chunk_bytes,
            chunks,
            tensors: std::mem::take(&mut self.entries),
        })
    }

    /// Takes back what was uploaded, and waits for that; dropping the writer does the same in the background.
    pub async fn abort(mut self) -> Result<()> {
        self.upload.abort().await
    }

    async fn send_part(&mut self) -> Result<()> {
        self.upload.wait_for_room().await?;
        let pieces = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        self.upload.send(pieces);
        Ok(())
    }

    /// Passes over tensors that have all their bytes, among them those without elements.
    fn skip_complete(&mut self) {
        while self.entries.get(self.current).is_some_and(|entry| entry.end <= self.position) {
            self.current += 1;
        }
    }

    fn bad(&self, reason: String) -> Error {
        Error::BadShard { key: self.key.to_string(), reason }
    }
}
