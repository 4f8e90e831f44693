//! The commit: creating the manifest, once.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{Error as StoreError, ObjectStoreExt, PutMode, PutOptions};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::key::ManifestKey;
use crate::manifest::Manifest;
use crate::store::Store;

/// How often an answer that proves nothing is asked again, and the first pause between (it doubles).
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How many shards are looked at together.
const LOOKS: usize = 16;

/// A manifest that is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Where it is.
    pub key: ManifestKey,
    /// The digest of its bytes, for the journal.
    pub digest: Digest,
    /// The size of all its shards, in bytes.
    pub bytes: u64,
}

/// Writes the manifest, and thereby makes the checkpoint exist.
///
/// The manifest is created only if absent. A reply that is lost, or a conflict, proves nothing about who won: then the manifest
/// that is there is compared with this one. Equal bytes are success (a retry, or the reply was lost), other bytes are
/// [`Error::Fenced`]. Shards that are not there with their full size are found first, as [`Error::ShardMissing`] or
/// [`Error::ShardSize`], and nothing is committed.
pub async fn commit(store: &Store, manifest: &Manifest) -> Result<Committed> {
    let (bytes, digest) = manifest.encode()?;
    let bytes = Bytes::from(bytes);
    let key = manifest.key();
    let committed = Committed { key, digest, bytes: manifest.bytes() };
    check_shards(store, manifest).await?;

    let mut pause = FIRST_PAUSE;
    let mut attempt = 1;
    loop {
        match create_once(store, &key, &bytes, digest).await {
            Ok(()) => return Ok(committed),
            Err(error) if error.is_transient() && attempt < TRIES => {
                tracing::warn!(manifest = %key, attempt, %error, "commit of a manifest is uncertain, trying again");
                tokio::time::sleep(pause).await;
                pause *= 2;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Creates the manifest; after any failure, looks whether it is there all the same.
async fn create_once(store: &Store, key: &ManifestKey, bytes: &Bytes, ours: Digest) -> Result<()> {
    let path = key.path();
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let Err(error) = store.objects().put_opts(&path, bytes.clone().into(), options).await else {
        return Ok(());
    };
    let read = async { store.objects().get(&path).await?.bytes().await };
    match read.await {
        Ok(found) if found == bytes => Ok(()),
        Ok(found) => Err(Error::Fenced { key: key.to_string(), ours, theirs: Digest::of(&found) }),
        // S3 answers a create with a conflict also while a delete is under way: nothing is there, so it is our turn.
        Err(StoreError::NotFound { .. }) => Err(store.explain("create the manifest", &path, error)),
        Err(error) => Err(store.explain("read the manifest back", &path, error)),
    }
}

/// Finds shards that are missing or have another size than their writer said.
async fn check_shards(store: &Store, manifest: &Manifest) -> Result<()> {
    // Collected first: a closure over references inside a stream would keep the future from being spawned.
    let looks: Vec<_> = manifest.shards.iter().map(|shard| store.check_size(shard)).collect();
    futures::stream::iter(looks).buffer_unordered(LOOKS).try_collect::<Vec<()>>().await?;
    Ok(())
}
