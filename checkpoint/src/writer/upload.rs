//! Parts on their way: hashing and uploading side by side, and taking everything back on failure.

use std::num::NonZeroUsize;

use bytes::Bytes;
use futures::TryFutureExt;
use object_store::path::Path;
use object_store::{Error as StoreError, MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinSet};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::Store;

/// The values of some chunks and the index of the first of them.
type HashedPart = (usize, Vec<Digest>);

/// One object being written in parts.
#[derive(Debug)]
pub(super) struct Upload {
    store: Store,
    key: Path,
    total: u64,
    chunk_bytes: u64,
    in_flight: usize,
    /// The first byte of the next part.
    offset: u64,
    /// `None` before the first part and after the end.
    multipart: Option<Box<dyn MultipartUpload>>,
    parts: JoinSet<Result<HashedPart>>,
    chunks: Vec<Option<Digest>>,
}

impl Upload {
    pub(super) fn new(store: Store, key: Path, in_flight: NonZeroUsize, total: u64, chunk_bytes: u64) -> Self {
        Self {
            store,
            key,
            total,
            chunk_bytes,
            in_flight: in_flight.get(),
            offset: 0,
            multipart: None,
            parts: JoinSet::new(),
            chunks: vec![None; total.div_ceil(chunk_bytes) as usize],
        }
    }

    /// Makes sure that another part may be sent, so that [`Upload::send`] need not wait.
    pub(super) async fn wait_for_room(&mut self) -> Result<()> {
        while self.parts.len() >= self.in_flight {
            self.take_one().await?;
        }
        if self.multipart.is_none() {
            let begun = self.store.objects().put_multipart(&self.key).await;
            self.multipart = Some(begun.map_err(|error| self.explain("begin a shard", error))?);
        }
        Ok(())
    }

    /// Starts hashing and uploading a part.
    pub(super) fn send(&mut self, pieces: Vec<Bytes>) {
        let multipart = self.multipart.as_mut().expect("wait_for_room has begun the upload");
        let put = multipart.put_part(pieces.iter().cloned().collect());
        let hash = self.hash(pieces);
        let (store, key) = (self.store.clone(), self.key.clone());
        self.parts.spawn(async move {
            let put = put.map_err(|error| store.explain("write a part of a shard", &key, error));
            let ((), hashed) = tokio::try_join!(put, hash)?;
            Ok(hashed)
        });
    }

    /// Waits for all parts, makes the object visible and gives the values of its chunks.
    pub(super) async fn complete(&mut self) -> Result<Vec<Digest>> {
        while !self.parts.is_empty() {
            self.take_one().await?;
        }
        let multipart = self.multipart.as_mut().expect("an object of several parts has begun");
        let done = multipart.complete().await;
        if let Err(error) = done {
            check_whether_it_landed(&self.store, &self.key, self.total, "complete a shard", error).await?;
        }
        self.multipart = None;
        Ok(self.take_chunks())
    }

    /// Writes an object that fits in one request.
    pub(super) async fn put_whole(&mut self, pieces: Vec<Bytes>) -> Result<Vec<Digest>> {
        let payload: PutPayload = pieces.iter().cloned().collect();
        let hash = self.hash(pieces);
        let (store, key, total) = (&self.store, &self.key, self.total);
        let put = async {
            match store.objects().put(key, payload).await {
                Ok(_) => Ok(()),
                Err(error) => check_whether_it_landed(store, key, total, "write a shard", error).await,
            }
        };
        let ((), (_, chunks)) = tokio::try_join!(put, hash)?;
        Ok(chunks)
    }

    /// Stops the parts on their way and removes those that arrived.
    pub(super) async fn abort(&mut self) -> Result<()> {
        let parts = std::mem::take(&mut self.parts);
        match self.multipart.take() {
            None => Ok(()),
            Some(multipart) => take_back(parts, multipart).await.map_err(|error| self.explain("abort a shard", error)),
        }
    }

    /// Hashes a part on a thread that may block, since hashing 16 MiB would hold up other tasks.
    fn hash(&mut self, pieces: Vec<Bytes>) -> impl Future<Output = Result<HashedPart>> + Send + use<> {
        let (start, chunk_bytes, alone) = (self.offset, self.chunk_bytes, self.total <= self.chunk_bytes);
        self.offset += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        let first = (start / chunk_bytes) as usize;
        tokio::task::spawn_blocking(move || (first, hash_chunks(pieces, start, chunk_bytes, alone)))
            .map_err(|error| lost(&error))
    }

    async fn take_one(&mut self) -> Result<()> {
        let Some(joined) = self.parts.join_next().await else { return Ok(()) };
        let (first, values) = joined.map_err(|error| lost(&error))??;
        for (place, value) in self.chunks[first..].iter_mut().zip(values) {
            *place = Some(value);
        }
        Ok(())
    }

    fn take_chunks(&mut self) -> Vec<Digest> {
        self.chunks.drain(..).map(|value| value.expect("every part was taken")).collect()
    }

    fn explain(&self, action: &'static str, error: StoreError) -> Error {
        self.store.explain(action, &self.key, error)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(multipart) = self.multipart.take() else { return };
        let (parts, key) = (std::mem::take(&mut self.parts), self.key.clone());
        match Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    if let Err(error) = take_back(parts, multipart).await {
                        tracing::warn!(%key, %error, "parts of an abandoned shard may remain in the store");
                    }
                });
            }
            Err(_) => {
                tracing::warn!(%key, "a shard was abandoned outside the runtime; its parts may remain in the store");
            }
        }
    }
}

/// A lost reply looks like a failure. The key is one writer's alone, so an object of the right size is its own.
///
/// Borrows no [`Upload`]: one cannot be shared between threads, and the future must be able to run on any.
async fn check_whether_it_landed(
    store: &Store,
    key: &Path,
    total: u64,
    action: &'static str,
    error: StoreError,
) -> Result<()> {
    match store.objects().head(key).await {
        Ok(meta) if meta.size == total => Ok(()),
        _ => Err(store.explain(action, key, error)),
    }
}

async fn take_back(
    mut parts: JoinSet<Result<HashedPart>>,
    mut multipart: Box<dyn MultipartUpload>,
) -> object_store::Result<()> {
    // A part that arrives after the abort would stay, so none may be under way.
    parts.shutdown().await;
    multipart.abort().await
}

fn hash_chunks(pieces: Vec<Bytes>, start: u64, chunk_bytes: u64, alone: bool) -> Vec<Digest> {
    let mut values = Vec::new();
    let mut chunk: Vec<Bytes> = Vec::new();
    let mut room = chunk_bytes as usize;
    let mut seal = |chunk: &mut Vec<Bytes>| {
        let offset = start + values.len() as u64 * chunk_bytes;
        values.push(Digest::of_chunk(chunk.iter().map(AsRef::as_ref), offset, alone));
        chunk.clear();
    };
    for mut piece in pieces {
        while !piece.is_empty() {
            let part = piece.split_to(room.min(piece.len()));
            room -= part.len();
            chunk.push(part);
            if room == 0 {
                seal(&mut chunk);
                room = chunk_bytes as usize;
            }
        }
    }
    if !chunk.is_empty() {
        seal(&mut chunk);
    }
    values
}

fn lost(error: &JoinError) -> Error {
    Error::Unavailable {
        place: "this process".to_owned(),
        action: "hash or write a part of a shard",
        source: error.to_string().into(),
    }
}
