//! How fast checkpoints are written, checked and read; `cargo xtask bench checkpoint` runs it.
//!
//! Prints one JSON object a line. The first argument is the size in MiB (256 by default), the second how many ranks write
//! (4 by default).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use unimse_checkpoint::{
    Attempt, AttemptKey, Checkpoint, DataCursor, Digest, Dtype, Manifest, ManifestKey, ShardDescriptor, ShardWriter,
    Store, TensorSpec, WriteOptions, commit, manifest,
};
use unimse_core::id::{Generation, JobId, Rank, Step};
use unimse_core::time::Timestamp;

/// Bytes of one tensor: a layer of T5-base is of this order.
const TENSOR: u64 = 9 << 20;

fn main() {
    // Cargo itself passes `--bench`.
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let bytes = numbers.next().unwrap_or(256) << 20;
    let world = numbers.next().unwrap_or(4).max(1) as u32;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = Store::open(scratch.path().to_str().expect("a plain path"), []).expect("the folder is there");
    runtime.block_on(async {
        hash(bytes);
        for (place, store) in [("memory", Store::memory()), ("a folder", folder)] {
            measure(place, &store, bytes, world).await;
        }
    });
}

fn report(name: &str, bytes: u64, took: Duration, note: &str) {
    let value = bytes as f64 / 1e6 / took.as_secs_f64();
    emit(&json!({"name": name, "value": value, "unit": "MB/s", "better": "higher", "note": note}));
}

#[expect(clippy::print_stdout, reason = "the records are this program's result")]
fn emit(record: &serde_json::Value) {
    println!("{record}");
}

fn noise(bytes: u64) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let words = (0..bytes / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect::<Vec<u8>>().into()
}

fn hash(bytes: u64) {
    let data = noise(bytes.min(64 << 20));
    let begun = Instant::now();
    let digest = Digest::of(&data);
    report("hash on one thread", data.len() as u64, begun.elapsed(), "blake3");
    assert_ne!(digest, Digest([0; 32]));
}

async fn measure(place: &str, store: &Store, bytes: u64, world: u32) {
    let key = ManifestKey { job: JobId(1), step: Step(1), generation: Generation(1) };
    let attempt = key.attempt(Attempt::random());
    let tensor = noise(TENSOR);
    let each = (bytes / TENSOR / u64::from(world)).max(1);
    let begun = Instant::now();
    let writers =
        (0..world).map(|rank| tokio::spawn(write(store.clone(), attempt.clone(), rank, each, tensor.clone())));
    let shards: Vec<ShardDescriptor> =
        futures::future::join_all(writers).await.into_iter().map(|shard| shard.expect("the writer ends")).collect();
    let committing = Instant::now();
    let committed = commit(store, &manifest(key, &attempt, shards)).await.expect("nobody else writes");
    let note = format!("{world} ranks, {} MB, hashed", committed.bytes / 1_000_000);
    report(&format!("write to {place}"), committed.bytes, begun.elapsed(), &note);
    let milliseconds = committing.elapsed().as_secs_f64() * 1e3;
    emit(&json!({"name": format!("commit to {place}"), "value": milliseconds, "unit": "ms", "better": "lower"}));

    let checkpoint = Checkpoint::open(store, &key, Some(committed.digest)).await.expect("it was committed");
    let begun = Instant::now();
    assert!(checkpoint.verify(true).await.is_sound());
    report(&format!("verify in {place}"), committed.bytes, begun.elapsed(), "every byte, page cache warm");
    let begun = Instant::now();
    let tensors = checkpoint.read_all().await.expect("it is sound");
    report(&format!("read from {place}"), committed.bytes, begun.elapsed(), "verified, page cache warm");
    assert_eq!(tensors.len() as u64, each * u64::from(world));
}

async fn write(store: Store, attempt: AttemptKey, rank: u32, tensors: u64, data: Bytes) -> ShardDescriptor {
    let spec =
        |i| TensorSpec { name: format!("rank.{rank}.layer.{i:04}"), dtype: Dtype::F32, shape: vec![data.len() / 4] };
    let specs = (0..tensors).map(spec).collect();
    let mut writer =
        ShardWriter::new(&store, &attempt, Rank(rank), specs, WriteOptions::default()).expect("good names");
    let names: Arc<[String]> = writer.tensors().iter().map(|entry| entry.name.clone()).collect();
    for name in names.iter() {
        writer.write(name, data.clone()).await.expect("the store takes it");
    }
    writer.finish().await.expect("the store takes it")
}

fn manifest(key: ManifestKey, attempt: &AttemptKey, shards: Vec<ShardDescriptor>) -> Manifest {
    Manifest {
        version: manifest::VERSION,
        cluster: "bench".to_owned(),
        job: key.job,
        generation: key.generation,
        attempt: attempt.attempt.clone(),
        step: key.step,
        world_size: shards.len() as u32,
        created: Timestamp(0),
        shards,
        cursor: DataCursor { seed: 0, epoch: 0, index: 0, step: key.step },
        optimiser_step: 1,
        rng: json!(null),
        model: json!(null),
        labels: json!(null),
        tokenizer: None,
        metrics: std::collections::BTreeMap::new(),
        job_spec: json!(null),
    }
}
