//! Checks a checkpoint without loading it, and reports all that is wrong, not the first thing only.

use futures::StreamExt;

use super::Checkpoint;
use crate::error::Error;
use crate::manifest::ShardDescriptor;

/// What a check found.
#[derive(Debug)]
pub struct VerifyReport {
    /// How many shards the manifest names.
    pub shards: usize,
    /// Their size in bytes, as committed.
    pub bytes: u64,
    /// How many bytes were read and hashed; 0 unless the check was deep.
    pub read: u64,
    /// Everything that is wrong, in the order of the shards.
    pub problems: Vec<Error>,
}

impl VerifyReport {
    /// Tells whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

impl Checkpoint {
    /// Compares the shards with the manifest: their sizes, and when `deep` every byte.
    pub async fn verify(&self, deep: bool) -> VerifyReport {
        let shards = &self.manifest.shards;
        let checks: Vec<_> = shards.iter().map(|shard| self.verify_shard(shard, deep)).collect();
        let found: Vec<(u64, Vec<Error>)> =
            futures::stream::iter(checks).buffered(self.options.shards.get()).collect().await;
        let mut report =
            VerifyReport { shards: shards.len(), bytes: self.manifest.bytes(), read: 0, problems: Vec::new() };
        for (read, mut problems) in found {
            report.read += read;
            report.problems.append(&mut problems);
        }
        report
    }

    async fn verify_shard(&self, shard: &ShardDescriptor, deep: bool) -> (u64, Vec<Error>) {
        if let Err(error) = self.store.check_size(shard).await {
            return (0, vec![error]);
        }
        let mut read = 0;
        let mut problems = Vec::new();
        if deep {
            let mut chunks = std::pin::pin!(self.chunks(shard, 0..shard.chunks.len() as u64));
            while let Some(chunk) = chunks.next().await {
                match chunk {
                    Ok(bytes) => read += bytes.len() as u64,
                    Err(error) => problems.push(error),
                }
            }
        }
        (read, problems)
    }
}
