//! Profiles of ranks, kept beside the checkpoints of their job: a file in the trace event format for each rank and generation.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use unimse_core::id::{Generation, JobId, Rank};

use crate::error::Result;
use crate::store::Store;

/// Names the profile of a rank, as `<job>/traces/g0007-rank003.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TraceKey {
    /// The job that trained.
    pub job: JobId,
    /// The generation that was recorded.
    pub generation: Generation,
    /// The rank that was recorded.
    pub rank: Rank,
}

impl fmt::Display for TraceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/traces/g{:04}-rank{:03}.json", self.job, self.generation.0, self.rank.0)
    }
}

impl FromStr for TraceKey {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parse = || {
            let (job, file) = text.split_once("/traces/")?;
            let (generation, rank) = file.strip_suffix(".json")?.strip_prefix('g')?.split_once("-rank")?;
            let key = Self {
                job: job.parse().ok()?,
                generation: Generation(generation.parse().ok()?),
                rank: Rank(rank.parse().ok()?),
            };
            (key.to_string() == text).then_some(key)
        };
        parse().ok_or(())
    }
}

impl Store {
    /// Writes a profile; one of the same rank and generation is replaced.
    pub async fn put_trace(&self, key: TraceKey, file: Vec<u8>) -> Result<()> {
        let path = Path::from(key.to_string());
        let put = self.objects().put(&path, file.into()).await;
        put.map(|_| ()).map_err(|error| self.explain("write a profile", &path, error))
    }

    /// Reads the profiles of a job, by generation and rank.
    pub async fn traces(&self, job: JobId) -> Result<Vec<(TraceKey, Bytes)>> {
        let prefix = Path::from(format!("{job}/traces"));
        let listed: Vec<_> = (self.objects().list(Some(&prefix)).try_collect().await)
            .map_err(|error| self.explain("list profiles", &prefix, error))?;
        let mut keys: Vec<TraceKey> = listed.iter().filter_map(|meta| meta.location.as_ref().parse().ok()).collect();
        keys.sort_unstable();
        let mut traces = Vec::with_capacity(keys.len());
        for key in keys {
            let path = Path::from(key.to_string());
            let read = async { self.objects().get(&path).await?.bytes().await };
            traces.push((key, read.await.map_err(|error| self.explain("read a profile", &path, error))?));
        }
        Ok(traces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn profiles_come_back_by_generation_and_rank_and_nothing_else_is_taken_for_one() {
        let store = Store::memory();
        let key = |generation, rank| TraceKey { job: JobId(5), generation: Generation(generation), rank: Rank(rank) };
        for (place, key) in [key(2, 0), key(1, 1), key(1, 0)].into_iter().enumerate() {
            store.put_trace(key, vec![place as u8]).await.expect("it takes them");
        }
        let other = Path::from(format!("{}/traces/notes.txt", JobId(5)));
        store.objects().put(&other, vec![9].into()).await.expect("it takes that, too");
        let found = store.traces(JobId(5)).await.expect("it lists them");
        let expected = [(key(1, 0), 2), (key(1, 1), 1), (key(2, 0), 0)];
        assert_eq!(found, expected.map(|(key, byte)| (key, Bytes::from(vec![byte]))));
        assert!(store.traces(JobId(6)).await.expect("an empty list").is_empty());
        assert!("j-1/traces/g1-rank0.json".parse::<TraceKey>().is_err(), "not the canonical text");
    }
}
