//! Lists what a store holds and deletes what nobody needs any more.
//!
//! What may go is decided elsewhere (retention, in the coordinator); here it is only made sure that nothing else goes: keys are built
//! from typed parts, the manifest goes first so that no half-deleted checkpoint ever looks whole, and repeating a deletion is
//! harmless. Parts of multipart uploads that a killed writer left in a bucket are invisible to this crate: give the bucket
//! a lifecycle rule that aborts incomplete uploads after a day.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, ObjectStoreExt};
use unimse_core::id::JobId;
use unimse_core::time::Timestamp;

use crate::error::{Error, Result};
use crate::key::{AttemptKey, ManifestKey};
use crate::reader::Checkpoint;
use crate::store::Store;

mod folder;

/// A manifest found in a store; whether it counts is the journal's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it is.
    pub key: ManifestKey,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
}

/// Shards that no manifest names: of a try that failed, was fenced or is still under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The try that wrote them.
    pub attempt: AttemptKey,
    /// How many objects it left.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// When the last of them was written, by the store's clock.
    pub newest: Timestamp,
}

/// What a deletion removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// How many objects.
    pub objects: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// Lists the manifests of one job, or of all, by job, step and generation.
pub async fn list(store: &Store, job: Option<JobId>) -> Result<Vec<Listed>> {
    let mut found: Vec<Listed> = objects(store, &prefix(job))
        .await?
        .into_iter()
        .filter_map(|meta| Some(Listed { key: meta.location.as_ref().parse().ok()?, modified: modified(&meta) }))
        .collect();
    found.sort_by_key(|listed| listed.key);
    Ok(found)
}

/// Deletes one checkpoint: its manifest first, then all shards of its generation at this step.
///
/// Deleting what is gone already, wholly or in part, is a success that removes less.
pub async fn delete(store: &Store, key: &ManifestKey) -> Result<Deleted> {
    let mut deleted = Deleted::default();
    let step = objects(store, &key.step_prefix()).await?;
    let manifest = key.path();
    let is_shard = |path: &Path| AttemptKey::containing(path).is_some_and(|attempt| attempt.checkpoint == *key);
    let mut doomed: Vec<_> =
        step.into_iter().filter(|meta| meta.location == manifest || is_shard(&meta.location)).collect();
    doomed.sort_by_key(|meta| meta.location != manifest);
    for meta in doomed {
        remove(store, &meta, &mut deleted).await?;
    }
    if let Some(folder) = store.folder() {
        folder::tidy(folder, key);
    }
    Ok(deleted)
}

/// Lists tries without a manifest of their own whose last object is at least `age` old at `now`.
///
/// Choose `age` longer than the slowest upload: a try that is under way looks just like one that failed.
pub async fn orphans(store: &Store, job: Option<JobId>, now: Timestamp, age: Duration) -> Result<Vec<Orphan>> {
    let mut tries: BTreeMap<AttemptKey, Orphan> = BTreeMap::new();
    for meta in objects(store, &prefix(job)).await? {
        let Some(attempt) = AttemptKey::containing(&meta.location) else { continue };
        let orphan = tries.entry(attempt).or_insert_with_key(|attempt| Orphan::new(attempt.clone()));
        orphan.add(meta.size, modified(&meta));
    }
    if let Some(folder) = store.folder() {
        for (attempt, bytes, modified) in folder::staged(folder, job) {
            tries.entry(attempt).or_insert_with_key(|attempt| Orphan::new(attempt.clone())).add(bytes, modified);
        }
    }
    let mut orphans = Vec::new();
    for (attempt, orphan) in tries {
        if now.since(orphan.newest) >= age && !is_committed(store, &attempt).await? {
            orphans.push(orphan);
        }
    }
    Ok(orphans)
}

/// Deletes the shards of a try, unless a manifest names it by now (a slow writer may have committed since the listing).
pub async fn delete_orphan(store: &Store, attempt: &AttemptKey) -> Result<Deleted> {
    let mut deleted = Deleted::default();
    if is_committed(store, attempt).await? {
        return Ok(deleted);
    }
    for meta in objects(store, &attempt.prefix()).await? {
        remove(store, &meta, &mut deleted).await?;
    }
    if let Some(folder) = store.folder() {
        let staged = folder::tidy_attempt(folder, attempt);
        deleted.objects += staged.objects;
        deleted.bytes += staged.bytes;
    }
    Ok(deleted)
}

impl Orphan {
    fn new(attempt: AttemptKey) -> Self {
        Self { attempt, objects: 0, bytes: 0, newest: Timestamp(0) }
    }

    fn add(&mut self, bytes: u64, modified: Timestamp) {
        self.objects += 1;
        self.bytes += bytes;
        self.newest = self.newest.max(modified);
    }
}

/// Tells whether the manifest of this generation and step names this try.
///
/// A manifest that cannot be read protects its shards: they are evidence, and a person decides.
async fn is_committed(store: &Store, attempt: &AttemptKey) -> Result<bool> {
    match Checkpoint::open(store, &attempt.checkpoint, None).await {
        Ok(checkpoint) => Ok(checkpoint.manifest().attempt == attempt.attempt),
        Err(Error::ManifestMissing { .. }) => Ok(false),
        Err(Error::ManifestInvalid { .. } | Error::ManifestVersion { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

async fn objects(store: &Store, prefix: &Path) -> Result<Vec<ObjectMeta>> {
    let listing = store.objects().list(Some(prefix)).try_collect::<Vec<_>>().await;
    let mut found = listing.map_err(|error| store.explain("list", prefix, error))?;
    // Some stores match prefixes as text; a neighbour that merely begins alike is not ours.
    found.retain(|meta| meta.location.prefix_matches(prefix));
    Ok(found)
}

async fn remove(store: &Store, meta: &ObjectMeta, deleted: &mut Deleted) -> Result<()> {
    match store.objects().delete(&meta.location).await {
        Ok(()) => {
            deleted.objects += 1;
            deleted.bytes += meta.size;
            Ok(())
        }
        Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(store.explain("delete", &meta.location, error)),
    }
}

fn prefix(job: Option<JobId>) -> Path {
    job.map(|job| Path::from(job.to_string())).unwrap_or_default()
}

fn modified(meta: &ObjectMeta) -> Timestamp {
    Timestamp(u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0))
}
