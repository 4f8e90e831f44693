//! Opening the place where checkpoints live, and finding out whether it keeps its promises.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt};

use crate::error::{Error, Result};
use crate::manifest::ShardDescriptor;

mod open;
mod probe;

pub use probe::ProbeReport;

/// A folder or a bucket prefix that holds checkpoints; cheap to clone.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    place: Arc<str>,
    folder: Option<Arc<PathBuf>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client below would print its keys.
        f.debug_struct("Store").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens `file:///folder`, a plain folder (created when absent), `s3://bucket/prefix` or `memory://`.
    ///
    /// `environment` holds the `AWS_*` variables for S3 (keys, region, `AWS_ENDPOINT_URL`, ...); others are ignored. It is handed in
    /// because only programs read the environment. Plain HTTP endpoints need `AWS_ALLOW_HTTP=true`, or name this machine.
    pub fn open(place: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        open::open(place, environment)
    }

    /// Makes an empty store in memory; its clones share it.
    pub fn memory() -> Self {
        Self::wrapping(Arc::new(InMemory::new()), "memory://")
    }

    /// Uses an object store that is open already; `place` names it in errors.
    pub fn wrapping(objects: Arc<dyn ObjectStore>, place: &str) -> Self {
        Self { objects, place: place.into(), folder: None }
    }

    /// Puts a decorator (such as [`crate::fault::FaultStore`]) between this crate and the store.
    #[must_use]
    pub fn decorated<T: ObjectStore>(&self, decorate: impl FnOnce(Arc<dyn ObjectStore>) -> T) -> Self {
        Self { objects: Arc::new(decorate(Arc::clone(&self.objects))), ..self.clone() }
    }

    /// Where it is, as people write it.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The object store below, for what this crate does not offer.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// The folder below, where the store is one.
    pub(crate) fn folder(&self) -> Option<&std::path::Path> {
        self.folder.as_deref().map(PathBuf::as_path)
    }

    /// Names an object for people.
    pub(crate) fn place_of(&self, key: &Path) -> String {
        let separator = if self.place.ends_with('/') { "" } else { "/" };
        format!("{}{separator}{key}", self.place)
    }

    pub(crate) fn explain(&self, action: &'static str, key: &Path, error: StoreError) -> Error {
        Error::from_store(self.place_of(key), action, error)
    }

    /// Compares a shard's size in the store with the one its writer gave.
    pub(crate) async fn check_size(&self, shard: &ShardDescriptor) -> Result<()> {
        let key = Path::from(shard.key.as_str());
        match self.objects.head(&key).await {
            Ok(meta) if meta.size == shard.bytes => Ok(()),
            Ok(meta) => Err(Error::ShardSize { key: shard.key.clone(), expected: shard.bytes, actual: meta.size }),
            Err(StoreError::NotFound { .. }) => Err(Error::ShardMissing { key: shard.key.clone(), rank: shard.rank.0 }),
            Err(error) => Err(self.explain("look at a shard", &key, error)),
        }
    }
}
