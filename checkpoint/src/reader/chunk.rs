//! One chunk: fetched, measured, hashed, and only then handed on.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use object_store::{Error as StoreError, ObjectStoreExt};

use super::Checkpoint;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::ShardDescriptor;

impl Checkpoint {
    /// Reads chunks in order, some ahead of the reader.
    pub(crate) fn chunks<'a>(
        &'a self,
        shard: &'a ShardDescriptor,
        chunks: std::ops::Range<u64>,
    ) -> impl Stream<Item = Result<Bytes>> + 'a {
        let reads: Vec<_> = chunks.map(|index| self.chunk(shard, index)).collect();
        futures::stream::iter(reads).buffered(self.options.chunks.get())
    }

    /// Reads one chunk; bytes that do not match are read once more, since they may have been damaged on the way only.
    pub(crate) async fn chunk(&self, shard: &ShardDescriptor, index: u64) -> Result<Bytes> {
        match self.chunk_once(shard, index).await {
            Err(error @ Error::ChunkDamaged { .. }) => {
                tracing::warn!(%error, "a chunk does not match its digest, reading it again");
                self.chunk_once(shard, index).await
            }
            result => result,
        }
    }

    async fn chunk_once(&self, shard: &ShardDescriptor, index: u64) -> Result<Bytes> {
        let range = shard.chunk_range(index);
        let path = Self::path(shard);
        let bytes = match self.store.objects().get_range(&path, range.clone()).await {
            Ok(bytes) if bytes.len() as u64 == range.end - range.start => bytes,
            // Too few bytes or a refused range usually mean that the object was cut; its size tells.
            Ok(bytes) => {
                self.store.check_size(shard).await?;
                let actual = range.start + bytes.len() as u64;
                return Err(Error::ShardSize { key: shard.key.clone(), expected: shard.bytes, actual });
            }
            Err(StoreError::NotFound { .. }) => {
                return Err(Error::ShardMissing { key: shard.key.clone(), rank: shard.rank.0 });
            }
            Err(error) => {
                self.store.check_size(shard).await?;
                return Err(self.store.explain("read a shard", &path, error));
            }
        };
        let alone = shard.chunks.len() == 1;
        let hashing = tokio::task::spawn_blocking(move || {
            let value = Digest::of_chunk([bytes.as_ref()], range.start, alone);
            (bytes, value, range.start)
        });
        let (bytes, actual, offset) = hashing
            .await
            .map_err(|error| self.store.explain("hash a chunk", &path, StoreError::JoinError { source: error }))?;
        let expected = shard.chunks[index as usize];
        if actual == expected {
            return Ok(bytes);
        }
        Err(Error::ChunkDamaged { key: shard.key.clone(), chunk: index, offset, expected, actual })
    }
}
