//! The self-probe: a store has to prove create-if-absent before checkpoints are entrusted to it.
//!
//! Some S3 servers ignore If-None-Match, others check it without a lock, so that several of a set of racing writers win.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt, PutMode, PutOptions};

use super::Store;
use crate::error::{Error, Result};

/// Where probes write; no job's key begins like this.
const FOLDER: &str = ".unimse-probe";
/// How many writers race for a key, and how often.
const WRITERS: usize = 8;
const RACES: usize = 3;

/// What a probe that went well found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// How long a small write took.
    pub write: Duration,
    /// How long reading it back took.
    pub read: Duration,
    /// How long the whole probe took.
    pub total: Duration,
}

impl Store {
    /// Writes, reads, deletes and races a few small objects, and leaves nothing behind.
    ///
    /// Fails with [`Error::NotAllowed`] or [`Error::DiskFull`] when the store cannot be written, and with
    /// [`Error::StoreLies`] when it does not honour create-if-absent.
    pub async fn probe(&self) -> Result<ProbeReport> {
        let folder = Path::from(FOLDER).join(uuid::Uuid::new_v4().simple().to_string());
        let result = self.probe_in(&folder).await;
        // What a failed probe left is removed as far as the store allows; the failure itself is what counts.
        let leftovers = self.objects().list(Some(&folder)).map(|meta| meta.map(|meta| meta.location)).boxed();
        let removed: Vec<_> = self.objects().delete_stream(leftovers).collect().await;
        if let Some(below) = self.folder() {
            let _ = std::fs::remove_dir(below.join(folder.as_ref()));
            let _ = std::fs::remove_dir(below.join(FOLDER));
        }
        let report = result?;
        for removal in removed {
            removal.map_err(|error| self.explain("delete", &folder, error))?;
        }
        Ok(report)
    }

    async fn probe_in(&self, folder: &Path) -> Result<ProbeReport> {
        let begun = Instant::now();
        let key = folder.clone().join("plain");
        let content = Bytes::from(key.to_string());
        self.objects().put(&key, content.clone().into()).await.map_err(|error| match error {
            // A missing bucket is "not found" to the store, but "not yours to write" to the person.
            StoreError::NotFound { .. } => {
                Error::NotAllowed { place: self.place().to_owned(), action: "write", source: Box::new(error) }
            }
            error => self.explain("write", &key, error),
        })?;
        let write = begun.elapsed();
        let read_begun = Instant::now();
        let found = match self.objects().get(&key).await {
            Ok(found) => found.bytes().await.map_err(|error| self.explain("read", &key, error))?,
            Err(error) => return Err(self.explain("read", &key, error)),
        };
        let read = read_begun.elapsed();
        if found != content {
            return Err(self.lies("an object read back differs from what was written".to_owned()));
        }
        self.objects().delete(&key).await.map_err(|error| self.explain("delete", &key, error))?;

        let key = folder.clone().join("twice");
        if !self.create(&key, 0).await? {
            return Err(self.lies("a key that was never written is said to exist".to_owned()));
        }
        if self.create(&key, 1).await? {
            return Err(self.lies("the same key could be created twice".to_owned()));
        }
        for race in 0..RACES {
            let key = folder.clone().join(format!("race-{race}"));
            let writers = (0..WRITERS).map(|writer| self.create(&key, writer));
            let wins = futures::future::try_join_all(writers).await?.into_iter().filter(|won| *won).count();
            if wins != 1 {
                return Err(self.lies(format!("{wins} of {WRITERS} racing writers created the same key")));
            }
        }
        Ok(ProbeReport { write, read, total: begun.elapsed() })
    }

    /// Creates a key if absent; tells whether this writer won.
    async fn create(&self, key: &Path, writer: usize) -> Result<bool> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects().put_opts(key, Bytes::from(format!("writer {writer}")).into(), options).await {
            Ok(_) => Ok(true),
            Err(StoreError::AlreadyExists { .. }) => Ok(false),
            Err(StoreError::NotImplemented { .. } | StoreError::NotSupported { .. }) => {
                Err(self.lies("it has no create-if-absent".to_owned()))
            }
            Err(error) => Err(self.explain("create", key, error)),
        }
    }

    fn lies(&self, evidence: String) -> Error {
        Error::StoreLies { place: self.place().to_owned(), evidence }
    }
}
