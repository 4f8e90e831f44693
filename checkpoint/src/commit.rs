//! The commit: creating the manifest, once.

use std::time::Duration;

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
    let key = manifest.key();
    let committed = Committed { key, digest, bytes: manifest.bytes() };
    check_shards(store, manifest).await?;

    let path = key.path();
    let mut pause = FIRST_PAUSE;
    let mut last = None;
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let Err(error) = store.objects().put_opts(&path, bytes.clone().into(), options).await else {
            return Ok(committed);
        };
        match store.objects().get(&path).await {
            Ok(found) => match found.bytes().await {
                Ok(found) if found == bytes => return Ok(committed),
                Ok(found) => {
                    return Err(Error::Fenced { key: key.to_string(), ours: digest, theirs: Digest::of(&found) });
                }
                Err(error) => last = Some(store.explain("read the manifest back", &path, error)),
            },
            // S3 answers a create with a conflict also when a delete is under way: nothing is there, so it is our turn.
            Err(StoreError::NotFound { .. }) => {
                let error = store.explain("create the manifest", &path, error);
                if !error.is_transient() {
                    return Err(error);
                }
                last = Some(error);
            }
            Err(error) => last = Some(store.explain("read the manifest back", &path, error)),
        }
        tracing::warn!(manifest = %key, attempt, error = ?last, "commit of a manifest is uncertain, trying again");
    }
    Err(last.expect("the loop ends only after an error"))
}

/// Finds shards that are missing or have another size than their writer said.
async fn check_shards(store: &Store, manifest: &Manifest) -> Result<()> {
    // Collected first: a closure over references inside a stream would keep the future from being spawned.
    let looks: Vec<_> = manifest.shards.iter().map(|shard| store.check_size(shard)).collect();
    futures::stream::iter(looks).buffer_unordered(LOOKS).try_collect::<Vec<()>>().await?;
    Ok(())
}
