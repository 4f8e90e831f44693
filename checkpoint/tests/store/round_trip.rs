//! What is written is read back, whatever the cut.

use std::collections::BTreeMap;

use object_store::ObjectStoreExt;
use proptest::prelude::*;
use safetensors::SafeTensors;
use unimse_checkpoint::{Checkpoint, Digest, Store, Tensor, WriteOptions, commit};

use crate::sample::{self, Folder, Tensors};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

async fn check_round_trip(store: &Store, tensors: &Tensors, world: u32, options: WriteOptions, piece: usize) {
    let key = sample::key(200, 7);
    let attempt = sample::attempt("a1");
    let shards = sample::write_shards(store, (key, &attempt), tensors, world, options, piece).await.expect("it writes");
    // Each shard by itself is a file that the safetensors crate reads, and whose digest `b3sum` would print.
    for shard in &shards {
        let path = object_store::path::Path::from(shard.key.as_str());
        let bytes = store.objects().get(&path).await.expect("it is there").bytes().await.expect("it reads");
        assert_eq!(Digest::of(&bytes), shard.blake3);
        let file = SafeTensors::deserialize(&bytes).expect("it is a safetensors file");
        assert_eq!(file.len(), shard.tensors.len());
        for (name, view) in file.iter() {
            let expected = &tensors[name];
            assert_eq!((view.dtype(), view.shape()), (expected.dtype, expected.shape.as_slice()));
            assert_eq!(view.data(), expected.data.as_ref());
        }
    }
    let manifest = sample::manifest(key, attempt, shards);
    let committed = commit(store, &manifest).await.expect("it commits");
    let checkpoint = Checkpoint::open(store, &key, Some(committed.digest)).await.expect("it opens");
    assert_eq!(checkpoint.manifest(), &manifest);
    assert_eq!(&checkpoint.read_all().await.expect("it reads"), tensors);
    let report = checkpoint.verify(true).await;
    assert!(report.is_sound() && report.read == manifest.bytes(), "{report:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tensors_over_any_shards_parts_and_pieces_round_trip(
        seed in any::<u64>(),
        count in 0_usize..40,
        world in 1_u32..6,
        chunk in 10_u32..15,
        chunks_in_a_part in 1_u64..4,
        piece in 1_usize..5000,
    ) {
        let chunk_bytes = 1 << chunk;
        let options =
            WriteOptions { chunk_bytes, part_bytes: chunk_bytes * chunks_in_a_part, ..WriteOptions::default() };
        let tensors = sample::tensors(seed, count);
        runtime().block_on(check_round_trip(&Store::memory(), &tensors, world, options, piece));
    }
}

#[tokio::test]
async fn a_folder_holds_exactly_the_documented_files() {
    let folder = Folder::new();
    check_round_trip(&folder.store, &sample::tensors(5, 30), 3, sample::small(), 1000).await;
    let job = sample::key(200, 7).job;
    let expected =
        ["g0007-a1/rank-0000.safetensors", "g0007-a1/rank-0001.safetensors", "g0007-a1/rank-0002.safetensors"]
            .into_iter()
            .chain(["manifest-g0007.json"])
            .map(|file| format!("{job}/step-00000200/{file}"));
    assert_eq!(folder.files(), expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn chunks_that_end_where_the_file_ends_round_trip() {
    // The header's length depends on the names; find sizes that make the file end at, before and after a border.
    for extra in 0..64 {
        let tensor = Tensor {
            dtype: unimse_checkpoint::Dtype::U8,
            shape: vec![2000 + extra],
            data: vec![extra as u8; 2000 + extra].into(),
        };
        let tensors = BTreeMap::from([("t".to_owned(), tensor)]);
        check_round_trip(&Store::memory(), &tensors, 1, sample::small(), 4096).await;
    }
}

#[tokio::test]
async fn the_usual_sizes_need_several_parts_and_read_back() {
    let data: Vec<u8> = (0..40_u64 << 20).map(|i| (i >> 3) as u8 ^ (i >> 20) as u8).collect();
    let shape = vec![10, 1 << 20];
    let tensor = Tensor { dtype: unimse_checkpoint::Dtype::F32, shape, data: data.into() };
    let folder = Folder::new();
    let tensors = BTreeMap::from([("wide".to_owned(), tensor)]);
    check_round_trip(&folder.store, &tensors, 1, WriteOptions::default(), 3 << 20).await;
}

#[tokio::test]
async fn one_tensor_is_read_without_reading_the_others() {
    let store = Store::memory();
    let faults = unimse_checkpoint::fault::Faults::default();
    let (tensors, committed) = sample::checkpoint(&store, sample::key(1, 1), "a").await;
    let watched = store.decorated(|inner| unimse_checkpoint::fault::FaultStore::new(inner, &faults));
    let checkpoint = Checkpoint::open(&watched, &committed.key, None).await.expect("it opens");
    let before = faults.count(unimse_checkpoint::fault::Operation::Get);
    let (name, expected) =
        tensors.iter().find(|(_, tensor)| tensor.data.len() == 1).or_else(|| tensors.iter().next()).expect("some");
    assert_eq!(&checkpoint.read(name).await.expect("it reads"), expected);
    let chunks = faults.count(unimse_checkpoint::fault::Operation::Get) - before;
    let all: usize = checkpoint.manifest().shards.iter().map(|shard| shard.chunks.len()).sum();
    assert!(chunks <= expected.data.len() as u64 / 1024 + 2 && (chunks as usize) < all, "{chunks} of {all} chunks");
    let error = checkpoint.read("nowhere").await.expect_err("no such tensor");
    assert!(error.to_string().ends_with("holds no tensor `nowhere`"), "{error}");
}

/// Against a real S3 server: `UNIMSE_TEST_S3=s3://bucket/prefix` and the usual `AWS_*` variables name one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_s3_server_behaves_like_the_other_stores() {
    let Ok(place) = std::env::var("UNIMSE_TEST_S3") else {
        println!("skipped: UNIMSE_TEST_S3 names no bucket");
        return;
    };
    let unique = unimse_checkpoint::Attempt::random();
    let store = Store::open(&format!("{place}/{unique}"), std::env::vars()).expect("the address is good");
    store.probe().await.expect("it is a good store");
    let options = WriteOptions { part_bytes: 6 << 20, chunk_bytes: 2 << 20, ..WriteOptions::default() };
    let data: Vec<u8> = (0..23_u64 << 20).map(|i| (i >> 2) as u8 ^ (i >> 20) as u8).collect();
    let wide = Tensor { dtype: unimse_checkpoint::Dtype::U8, shape: vec![data.len()], data: data.into() };
    let mut tensors = sample::tensors(8, 20);
    tensors.insert("wide".to_owned(), wide);
    check_round_trip(&store, &tensors, 3, options, 1 << 20).await;
    let listed = unimse_checkpoint::gc::list(&store, None).await.expect("it lists");
    assert_eq!(listed.len(), 1);
    let deleted = unimse_checkpoint::gc::delete(&store, &listed[0].key).await.expect("it deletes");
    assert_eq!(deleted.objects, 4);
    let error = Checkpoint::open(&store, &listed[0].key, None).await.expect_err("it is gone");
    assert!(matches!(error, unimse_checkpoint::Error::ManifestMissing { .. }), "{error:?}");
}

/// Compiles only while everything can run as a task of its own.
#[tokio::test]
async fn every_future_can_be_spawned() {
    let store = Store::memory();
    let written = tokio::spawn({
        let store = store.clone();
        async move { sample::checkpoint(&store, sample::key(1, 1), "a").await }
    });
    let (tensors, committed) = written.await.expect("no panic");
    let task = async move {
        store.probe().await?;
        let checkpoint = Checkpoint::open(&store, &committed.key, Some(committed.digest)).await?;
        commit(&store, checkpoint.manifest()).await?;
        checkpoint.verify(true).await;
        let read = checkpoint.read_all().await?;
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let plan = unimse_checkpoint::PullPlan { rename: &|name| Some(name.to_owned()), files: Vec::new() };
        checkpoint.pull(&scratch.path().join("pulled"), &plan).await?;
        unimse_checkpoint::gc::delete(&store, &committed.key).await?;
        Ok::<_, unimse_checkpoint::Error>(read)
    };
    assert_eq!(tokio::spawn(task).await.expect("no panic").expect("no error"), tensors);
}

#[tokio::test]
async fn metrics_survive_bit_for_bit_and_what_is_not_finite_becomes_nan() {
    let store = Store::memory();
    let key = sample::key(9, 1);
    let shards =
        sample::write_shards(&store, (key, &sample::attempt("a")), &sample::tensors(1, 3), 1, sample::small(), 99)
            .await
            .expect("it writes");
    let mut manifest = sample::manifest(key, sample::attempt("a"), shards);
    manifest.metrics.insert("train/loss".to_owned(), f64::INFINITY);
    commit(&store, &manifest).await.expect("a diverged run can be kept");
    let read = Checkpoint::open(&store, &key, None).await.expect("it opens");
    assert_eq!(read.manifest().metrics["valid/score"].to_bits(), (0.1_f64 + 0.2).to_bits());
    assert!(read.manifest().metrics["train/loss"].is_nan());
}
