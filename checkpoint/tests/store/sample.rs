//! Small checkpoints made from a seed, and the stores they are tried on.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;
use unimse_checkpoint::{
    Attempt, Committed, DataCursor, Dtype, Manifest, ManifestKey, Result, ShardDescriptor, ShardWriter, Store, Tensor,
    TensorSpec, WriteOptions, commit, manifest,
};
use unimse_core::id::{Generation, JobId, Rank, Step};
use unimse_core::time::Timestamp;

/// Named tensors with their bytes.
pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// Parts and chunks so small that a few kilobytes cross many of their borders.
pub(crate) fn small() -> WriteOptions {
    WriteOptions { part_bytes: 4096, chunk_bytes: 1024, ..WriteOptions::default() }
}

pub(crate) fn key(step: u64, generation: u64) -> ManifestKey {
    ManifestKey { job: JobId(1), step: Step(step), generation: Generation(generation) }
}

pub(crate) fn attempt(text: &str) -> Attempt {
    text.parse().expect("a good attempt")
}

/// Makes `count` tensors of mixed types and sizes; the same seed gives the same bytes.
pub(crate) fn tensors(seed: u64, count: usize) -> Tensors {
    let dtypes = [Dtype::F32, Dtype::BF16, Dtype::I64, Dtype::U8, Dtype::BOOL];
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..count)
        .map(|i| {
            let dtype = dtypes[next() as usize % dtypes.len()];
            let shape = match next() % 5 {
                0 => vec![],
                1 => vec![next() as usize % 3],
                2 => vec![1 + next() as usize % 40, 1 + next() as usize % 40],
                _ => vec![1 + next() as usize % 300],
            };
            let spec = TensorSpec { name: format!("block.{i}.weight"), dtype, shape };
            let data = (0..spec.bytes().expect("small")).map(|_| next() as u8).collect::<Vec<_>>().into();
            (spec.name, Tensor { dtype, shape: spec.shape, data })
        })
        .collect()
}

/// Writes `tensors` as shards of `world` ranks, each tensor in pieces of `piece` bytes.
pub(crate) async fn write_shards(
    store: &Store,
    (key, attempt): (ManifestKey, &Attempt),
    tensors: &Tensors,
    world: u32,
    options: WriteOptions,
    piece: usize,
) -> Result<Vec<ShardDescriptor>> {
    let mut shards = Vec::new();
    for rank in 0..world {
        let mine = tensors.iter().enumerate().filter(|(i, _)| *i as u32 % world == rank).map(|(_, entry)| entry);
        let specs = mine
            .map(|(name, tensor)| TensorSpec { name: name.clone(), dtype: tensor.dtype, shape: tensor.shape.clone() })
            .collect();
        let mut writer = ShardWriter::new(store, &key.attempt(attempt.clone()), Rank(rank), specs, options)?;
        let order: Vec<String> = writer.tensors().iter().map(|entry| entry.name.clone()).collect();
        for name in order {
            let mut data: Bytes = tensors[&name].data.clone();
            while !data.is_empty() {
                let next = data.split_to(piece.min(data.len()));
                writer.write(&name, next).await?;
            }
        }
        shards.push(writer.finish().await?);
    }
    Ok(shards)
}

pub(crate) fn manifest(key: ManifestKey, attempt: Attempt, shards: Vec<ShardDescriptor>) -> Manifest {
    Manifest {
        version: manifest::VERSION,
        cluster: "c-test".to_owned(),
        job: key.job,
        generation: key.generation,
        attempt,
        step: key.step,
        world_size: shards.len() as u32,
        created: Timestamp(1_700_000_000_000),
        shards,
        cursor: DataCursor { seed: 42, epoch: 3, index: 960, step: key.step },
        optimiser_step: key.step.0,
        rng: json!({"cpu": "00ff"}),
        model: json!({"preset": "tiny", "fusion": {"layers": 3, "bottleneck": 64}}),
        labels: json!(["positive", "negative"]),
        tokenizer: None,
        metrics: BTreeMap::from([("valid/score".to_owned(), 0.1 + 0.2)]),
        job_spec: json!({"name": "sample"}),
    }
}

/// Writes and commits a checkpoint of two shards.
pub(crate) async fn checkpoint(store: &Store, key: ManifestKey, name: &str) -> (Tensors, Committed) {
    let tensors = tensors(key.step.0 + 77, 60);
    let attempt = attempt(name);
    let shards = write_shards(store, (key, &attempt), &tensors, 2, small(), 700).await.expect("the store is healthy");
    let committed = commit(store, &manifest(key, attempt, shards)).await.expect("the store is healthy");
    (tensors, committed)
}

/// A store in a folder that lives as long as the value.
pub(crate) struct Folder {
    pub(crate) root: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().expect("a scratch folder");
        let store = Store::open(root.path().to_str().expect("plain text"), []).expect("the folder is there");
        Self { root, store }
    }

    /// Every file below the root, relative to it.
    pub(crate) fn files(&self) -> Vec<String> {
        fn walk(below: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
            for entry in std::fs::read_dir(below).expect("it can be listed").flatten() {
                if entry.path().is_dir() { walk(&entry.path(), found) } else { found.push(entry.path()) }
            }
        }
        let mut found = Vec::new();
        walk(self.root.path(), &mut found);
        let relative = |path: std::path::PathBuf| {
            path.strip_prefix(self.root.path()).expect("below the root").to_string_lossy().into_owned()
        };
        let mut files: Vec<_> = found.into_iter().map(relative).collect();
        files.sort();
        files
    }
}
