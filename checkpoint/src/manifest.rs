//! The manifest: the one small file whose existence makes a checkpoint, and all that is needed to resume from it.

use std::collections::{BTreeMap, HashSet};

use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use unimse_core::id::{Generation, JobId, Rank, Step};
use unimse_core::time::Timestamp;

use crate::digest::{Digest, SMALLEST_CHUNK};
use crate::error::{Error, Result};
use crate::header::bytes_of;
use crate::key::{Attempt, AttemptKey, ManifestKey};

/// The version that this release writes, and the newest it reads.
pub const VERSION: u32 = 1;

/// Everything about a checkpoint but the tensors' bytes.
///
/// The opaque parts (`rng`, `model`, `labels`, `job_spec`) belong to the crates that made them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this layout.
    pub version: u32,
    /// The cluster that trained, so that a copy in another cluster's bucket is recognised.
    pub cluster: String,
    /// The job that trained.
    pub job: JobId,
    /// The generation that wrote it.
    pub generation: Generation,
    /// Tells this try from others of the same generation.
    pub attempt: Attempt,
    /// The last completed step.
    pub step: Step,
    /// How many ranks wrote; readers may be fewer or more.
    pub world_size: u32,
    /// When the writer made it, by the writer's clock.
    pub created: Timestamp,
    /// The files, by rank.
    pub shards: Vec<ShardDescriptor>,
    /// Where in the data training goes on.
    pub cursor: DataCursor,
    /// How many updates the optimiser has applied (its bias correction needs it).
    pub optimiser_step: u64,
    /// State of random generators that the seed alone does not give.
    pub rng: Value,
    /// The model's configuration.
    pub model: Value,
    /// The label vocabulary and grammar.
    pub labels: Value,
    /// The tokenizer, where the model has one.
    pub tokenizer: Option<Tokenizer>,
    /// The metrics at this step; NaN and infinities are kept as NaN.
    #[serde(with = "metrics")]
    pub metrics: BTreeMap<String, f64>,
    /// The job as submitted, so that the job can be rebuilt when the coordinator's state is lost.
    pub job_spec: Value,
}

/// One file of a checkpoint, as its writer knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardDescriptor {
    /// The key in the store, below the store's root.
    pub key: String,
    /// The rank that wrote it.
    pub rank: Rank,
    /// Its size in bytes.
    pub bytes: u64,
    /// The BLAKE3 digest of the whole file, as `b3sum` prints it.
    pub blake3: Digest,
    /// The size of every chunk but the last, in bytes: a power of two.
    pub chunk_bytes: u64,
    /// The BLAKE3 chaining value of each chunk (of a single chunk: the digest itself).
    pub chunks: Vec<Digest>,
    /// The tensors in the order of the file.
    pub tensors: Vec<TensorEntry>,
}

/// Where a tensor lies in its shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorEntry {
    /// Its name, unique in the checkpoint.
    pub name: String,
    /// The type of its elements, as safetensors names it (`F32`, `BF16`, ...).
    pub dtype: Dtype,
    /// Its extent in each dimension.
    pub shape: Vec<usize>,
    /// Its first byte in the file.
    pub start: u64,
    /// The byte after its last.
    pub end: u64,
}

/// Where in the data order training goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataCursor {
    /// The seed of the permutations.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// How many samples of the epoch are consumed.
    pub index: u64,
    /// The last completed step.
    pub step: Step,
}

/// The tokenizer, small enough to travel in the manifest or kept once a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokenizer {
    /// The key of a `tokenizer.json` in the same store, below the job's prefix.
    Key(String),
    /// The text of the `tokenizer.json`.
    Inline(String),
}

impl Manifest {
    /// The key this manifest belongs at.
    pub fn key(&self) -> ManifestKey {
        ManifestKey { job: self.job, step: self.step, generation: self.generation }
    }

    /// The folder of this manifest's shards.
    pub fn attempt_key(&self) -> AttemptKey {
        self.key().attempt(self.attempt.clone())
    }

    /// The size of all shards, in bytes.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }

    /// Every tensor, with the index of its shard.
    pub fn tensors(&self) -> impl Iterator<Item = (usize, &TensorEntry)> {
        self.shards.iter().enumerate().flat_map(|(i, shard)| shard.tensors.iter().map(move |tensor| (i, tensor)))
    }

    /// Writes it as JSON and hashes that.
    pub fn encode(&self) -> Result<(Vec<u8>, Digest)> {
        let invalid = |reason: String| Error::ManifestInvalid { key: self.key().to_string(), reason };
        self.check().map_err(invalid)?;
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| invalid(error.to_string()))?;
        bytes.push(b'\n');
        let digest = Digest::of(&bytes);
        Ok((bytes, digest))
    }

    /// Reads the bytes found at `key`, believing nothing they say about other keys, sizes or ranges.
    pub fn decode(bytes: &[u8], key: &ManifestKey) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let invalid = |reason: String| Error::ManifestInvalid { key: key.to_string(), reason };
        let Version { version } = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if version > VERSION {
            return Err(Error::ManifestVersion { key: key.to_string(), found: version, supported: VERSION });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if manifest.key() != *key {
            return Err(invalid(format!("it belongs at `{}`", manifest.key())));
        }
        manifest.check().map_err(invalid)?;
        Ok(manifest)
    }

    /// Finds the first contradiction in what the manifest says.
    fn check(&self) -> Result<(), String> {
        if self.shards.len() as u64 != u64::from(self.world_size) {
            return Err(format!("{} shards for a world of {}", self.shards.len(), self.world_size));
        }
        let home = self.attempt_key();
        let mut ranks = HashSet::new();
        let mut names = HashSet::new();
        for shard in &self.shards {
            if shard.rank.0 >= self.world_size || !ranks.insert(shard.rank) {
                return Err(format!(
                    "rank {} of a world of {} is given twice or too high",
                    shard.rank, self.world_size
                ));
            }
            // Only this one key is right, so a poisoned manifest cannot make anyone read or delete another job's data.
            let expected = home.shard(shard.rank);
            if shard.key != expected.as_ref() {
                return Err(format!("shard key `{}` is not `{expected}`", shard.key));
            }
            shard.check().map_err(|reason| format!("shard `{}`: {reason}", shard.key))?;
            for tensor in &shard.tensors {
                if !names.insert(&tensor.name) {
                    return Err(format!("tensor `{}` is in two places", tensor.name));
                }
            }
        }
        if let Some(Tokenizer::Key(key)) = &self.tokenizer {
            let inside = object_store::path::Path::parse(key).is_ok_and(|path| {
                path.as_ref() == key && path.prefix_matches(&object_store::path::Path::from(self.job.to_string()))
            });
            if !inside {
                return Err(format!("tokenizer key `{key}` is outside job {}", self.job));
            }
        }
        Ok(())
    }
}

impl ShardDescriptor {
    /// The bytes of chunk `index` within the file.
    pub(crate) fn chunk_range(&self, index: u64) -> std::ops::Range<u64> {
        let start = index * self.chunk_bytes;
        start..(start + self.chunk_bytes).min(self.bytes)
    }

    fn check(&self) -> Result<(), String> {
        if !self.chunk_bytes.is_power_of_two() || self.chunk_bytes < SMALLEST_CHUNK {
            return Err(format!("chunks of {} bytes are not a power of two of at least 1024", self.chunk_bytes));
        }
        if self.chunks.len() as u64 != self.bytes.div_ceil(self.chunk_bytes) {
            return Err(format!("{} chunk digests for {} bytes", self.chunks.len(), self.bytes));
        }
        if Digest::of_shard(&self.chunks) != self.blake3 {
            return Err("the chunk digests do not merge into the digest of the whole".to_owned());
        }
        let mut place = self.tensors.first().map_or(self.bytes, |tensor| tensor.start);
        for TensorEntry { name, dtype, shape, start, end } in &self.tensors {
            let fits = *start == place && end.checked_sub(*start) == bytes_of(*dtype, shape) && *end <= self.bytes;
            if !fits {
                return Err(format!("tensor `{name}` ({dtype}, {shape:?}) does not lie at bytes {start} to {end}"));
            }
            place = *end;
        }
        if place != self.bytes {
            return Err(format!("the tensors end at byte {place} of {}", self.bytes));
        }
        Ok(())
    }
}

/// Metrics as JSON: a value that is not finite is `null`.
mod metrics {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(metrics: &BTreeMap<String, f64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(metrics.iter().map(|(name, value)| (name, value.is_finite().then_some(value))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
        let metrics = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
        Ok(metrics.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
    }
}
