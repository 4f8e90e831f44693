//! Reads checkpoints, and believes no byte that was not hashed when it was written.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt};
use safetensors::Dtype;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::key::ManifestKey;
use crate::manifest::{Manifest, ShardDescriptor, TensorEntry};
use crate::store::Store;

mod chunk;
mod verify;

pub use verify::VerifyReport;

/// The largest manifest that is read, in bytes: about 800,000 chunks of 8 MiB.
const LARGEST_MANIFEST: u64 = 64 << 20;

/// How much is read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// How many shards are read together.
    pub shards: NonZeroUsize,
    /// How many chunks of a shard are read together; shards times chunks are held in memory besides the result.
    pub chunks: NonZeroUsize,
}

impl Default for ReadOptions {
    /// Four shards, four chunks each: 128 MiB on the way at the usual chunk size.
    fn default() -> Self {
        let four = NonZeroUsize::new(4).expect("four is not zero");
        Self { shards: four, chunks: four }
    }
}

/// The bytes of one tensor, little-endian and row-major, with what is needed to make sense of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its extent in each dimension.
    pub shape: Vec<usize>,
    /// Its elements; a view of a larger buffer, not aligned to their size.
    pub data: Bytes,
}

/// A checkpoint whose manifest was found and makes sense.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    store: Store,
    key: ManifestKey,
    digest: Digest,
    manifest: Arc<Manifest>,
    options: ReadOptions,
}

impl Checkpoint {
    /// Reads the manifest at `key`; `expected` is the digest that the journal recorded at the commit.
    pub async fn open(store: &Store, key: &ManifestKey, expected: Option<Digest>) -> Result<Self> {
        let path = key.path();
        let explain = |error: StoreError| match error {
            StoreError::NotFound { .. } => Error::ManifestMissing { place: store.place_of(&path) },
            error => store.explain("read a manifest", &path, error),
        };
        let found = store.objects().get(&path).await.map_err(explain)?;
        if found.meta.size > LARGEST_MANIFEST {
            let reason = format!("its {} bytes are more than {LARGEST_MANIFEST}", found.meta.size);
            return Err(Error::ManifestInvalid { key: key.to_string(), reason });
        }
        let bytes = found.bytes().await.map_err(explain)?;
        let digest = Digest::of(&bytes);
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(Error::ManifestDamaged { key: key.to_string(), expected, actual: digest });
        }
        let manifest = Arc::new(Manifest::decode(&bytes, key)?);
        Ok(Self { store: store.clone(), key: *key, digest, manifest, options: ReadOptions::default() })
    }

    /// Changes how much is read at once.
    #[must_use]
    pub fn with_options(self, options: ReadOptions) -> Self {
        Self { options, ..self }
    }

    /// How much is read at once.
    pub(crate) fn options(&self) -> ReadOptions {
        self.options
    }

    /// Everything but the tensors' bytes.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where the manifest is.
    pub fn key(&self) -> &ManifestKey {
        &self.key
    }

    /// The digest of the manifest's bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Reads every tensor from all shards, whatever the number of ranks that wrote them.
    pub async fn read_all(&self) -> Result<BTreeMap<String, Tensor>> {
        self.read_where(|_| true).await
    }

    /// Reads the one tensor `name`.
    pub async fn read(&self, name: &str) -> Result<Tensor> {
        let mut found = self.read_where(|candidate| candidate == name).await?;
        found.remove(name).ok_or_else(|| Error::TensorMissing { key: self.key.to_string(), name: name.to_owned() })
    }

    /// Reads the tensors whose names are wanted, fetching only the chunks that hold them.
    pub async fn read_where(&self, wanted: impl Fn(&str) -> bool) -> Result<BTreeMap<String, Tensor>> {
        let selected: Vec<(&ShardDescriptor, Vec<&TensorEntry>)> = self
            .manifest
            .shards
            .iter()
            .map(|shard| (shard, shard.tensors.iter().filter(|entry| wanted(&entry.name)).collect::<Vec<_>>()))
            .filter(|(_, entries)| !entries.is_empty())
            .collect();
        let reads: Vec<_> = selected.into_iter().map(|(shard, entries)| self.read_shard(shard, entries)).collect();
        let shards: Vec<Vec<(String, Tensor)>> =
            futures::stream::iter(reads).buffer_unordered(self.options.shards.get()).try_collect().await?;
        Ok(shards.into_iter().flatten().collect())
    }

    async fn read_shard(&self, shard: &ShardDescriptor, entries: Vec<&TensorEntry>) -> Result<Vec<(String, Tensor)>> {
        // Also guards the allocations below: the sizes that a manifest claims are the store's before memory is taken.
        self.store.check_size(shard).await?;
        let mut tensors = Vec::with_capacity(entries.len());
        for run in runs(shard, &entries) {
            let bytes = self.read_chunks(shard, run.chunks).await?;
            for entry in run.entries {
                let TensorEntry { name, dtype, shape, start, end } = entry;
                let data = bytes.slice((start - run.start) as usize..(end - run.start) as usize);
                tensors.push((name.clone(), Tensor { dtype: *dtype, shape: shape.clone(), data }));
            }
        }
        Ok(tensors)
    }

    /// Reads neighbouring chunks into one buffer.
    async fn read_chunks(&self, shard: &ShardDescriptor, chunks: std::ops::Range<u64>) -> Result<Bytes> {
        if chunks.is_empty() {
            return Ok(Bytes::new());
        }
        let size = shard.chunk_range(chunks.end - 1).end - shard.chunk_range(chunks.start).start;
        let mut stream = std::pin::pin!(self.chunks(shard, chunks));
        let first = stream.try_next().await?.unwrap_or_default();
        if first.len() as u64 == size {
            return Ok(first);
        }
        let mut buffer = BytesMut::with_capacity(size as usize);
        buffer.extend_from_slice(&first);
        while let Some(chunk) = stream.try_next().await? {
            buffer.extend_from_slice(&chunk);
        }
        Ok(buffer.freeze())
    }

    /// The path of a shard in the store.
    fn path(shard: &ShardDescriptor) -> Path {
        Path::from(shard.key.as_str())
    }
}

/// Neighbouring chunks of a shard and the tensors that lie in them.
struct Run<'a> {
    chunks: std::ops::Range<u64>,
    /// The first byte of the first chunk.
    start: u64,
    entries: Vec<&'a TensorEntry>,
}

/// Groups tensors, given in the order of the file, so that each chunk is fetched once.
fn runs<'a>(shard: &ShardDescriptor, entries: &[&'a TensorEntry]) -> Vec<Run<'a>> {
    let mut runs: Vec<Run<'a>> = Vec::new();
    for &entry in entries {
        let first = entry.start / shard.chunk_bytes;
        let end = entry.end.div_ceil(shard.chunk_bytes).max(first);
        match runs.last_mut() {
            Some(run) if first <= run.chunks.end => {
                run.chunks.end = run.chunks.end.max(end);
                run.entries.push(entry);
            }
            _ => runs.push(Run { chunks: first..end, start: first * shard.chunk_bytes, entries: vec![entry] }),
        }
    }
    runs
}
