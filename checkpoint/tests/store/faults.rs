//! Every fault of a store ends in the error that names it, or heals.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use unimse_checkpoint::fault::{Fault, FaultStore, Faults, Operation, Rule};
use unimse_checkpoint::{Checkpoint, Error, ManifestKey, ShardWriter, Store, TensorSpec};
use unimse_core::id::Rank;

use crate::sample::{self, Folder};

fn faulty(store: &Store) -> (Store, Faults) {
    let faults = Faults::default();
    (store.decorated(|inner| FaultStore::new(inner, &faults)), faults)
}

async fn read(store: &Store, path: &Path) -> Bytes {
    store.objects().get(path).await.expect("it is there").bytes().await.expect("it reads")
}

async fn change(store: &Store, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = read(store, path).await.to_vec();
    change(&mut bytes);
    store.objects().put(path, bytes.into()).await.expect("it writes");
}

async fn broken(store: &Store, key: &ManifestKey) -> Error {
    let error = match Checkpoint::open(store, key, None).await {
        Ok(checkpoint) => {
            let error = checkpoint.verify(true).await.problems.swap_remove(0);
            // A header is not read to load tensors, so damage in it shows only in a check.
            let header = checkpoint.manifest().shards[0].tensors[0].start;
            let only_header = matches!(&error, Error::ChunkDamaged { offset, .. } if offset + 1024 <= header);
            let loaded = checkpoint.read_all().await.map(|tensors| tensors.len());
            assert!(
                only_header || loaded.is_err_and(|error| error.is_corruption()),
                "a broken checkpoint does not load"
            );
            error
        }
        Err(error) => error,
    };
    assert!(error.is_corruption(), "{error:?}");
    assert!(error.to_string().contains("hint:"), "{error}");
    error
}

#[tokio::test]
async fn every_flipped_bit_of_a_shard_is_found_in_its_chunk() {
    let store = Store::memory();
    let (_, committed) = sample::checkpoint(&store, sample::key(1, 1), "a").await;
    let manifest = Checkpoint::open(&store, &committed.key, None).await.expect("it opens").manifest().clone();
    let shard = &manifest.shards[0];
    let path = Path::from(shard.key.as_str());
    let healthy = read(&store, &path).await;
    for place in (0..shard.bytes as usize).step_by(911).chain([0, 8, shard.bytes as usize - 1]) {
        change(&store, &path, |bytes| bytes[place] ^= 0x10).await;
        let Error::ChunkDamaged { key, chunk, offset, expected, actual } = broken(&store, &committed.key).await else {
            panic!("byte {place}");
        };
        assert_eq!(
            (key.as_str(), chunk, offset),
            (shard.key.as_str(), place as u64 / 1024, place as u64 / 1024 * 1024)
        );
        assert!(expected == shard.chunks[chunk as usize] && actual != expected);
        store.objects().put(&path, healthy.clone().into()).await.expect("it heals");
    }
    let checkpoint = Checkpoint::open(&store, &committed.key, None).await.expect("it opens");
    assert!(checkpoint.verify(true).await.is_sound(), "the healed shard is whole");
}

#[tokio::test]
async fn cut_grown_missing_and_swapped_shards_are_told_apart() {
    let folder = Folder::new();
    for store in [&Store::memory(), &folder.store] {
        let (_, committed) = sample::checkpoint(store, sample::key(1, 1), "a").await;
        let shards = Checkpoint::open(store, &committed.key, None).await.expect("it opens").manifest().shards.clone();
        let [first, second] = [0, 1].map(|i| Path::from(shards[i].key.as_str()));
        let [one, two] = [read(store, &first).await, read(store, &second).await];

        for length in [0, 1, 1024, one.len() - 1] {
            change(store, &first, |bytes| bytes.truncate(length)).await;
            let error = broken(store, &committed.key).await;
            assert!(matches!(error, Error::ShardSize { actual, .. } if actual == length as u64), "{error:?}");
            store.objects().put(&first, one.clone().into()).await.expect("it heals");
        }
        change(store, &first, |bytes| bytes.push(0)).await;
        assert!(matches!(broken(store, &committed.key).await, Error::ShardSize { .. }));

        store.objects().delete(&first).await.expect("it deletes");
        let error = broken(store, &committed.key).await;
        assert!(matches!(error, Error::ShardMissing { rank: 0, .. }), "{error:?}");

        store.objects().put(&first, two.into()).await.expect("it writes");
        store.objects().put(&second, one.into()).await.expect("it writes");
        let error = broken(store, &committed.key).await;
        assert!(matches!(error, Error::ShardSize { .. } | Error::ChunkDamaged { .. }), "{error:?}");
        unimse_checkpoint::gc::delete(store, &committed.key).await.expect("it deletes");
        assert!(matches!(broken(store, &committed.key).await, Error::ManifestMissing { .. }));
    }
}

#[tokio::test]
async fn a_changed_manifest_does_not_match_the_journal() {
    let store = Store::memory();
    let (_, committed) = sample::checkpoint(&store, sample::key(1, 1), "a").await;
    change(&store, &committed.key.path(), |bytes| {
        let at = bytes
            .windows(4)
            .position(|window| window == b"\"se\"" || window == b"seed")
            .expect("the cursor has a seed");
        bytes[at + 7] = b'9';
    })
    .await;
    let error = Checkpoint::open(&store, &committed.key, Some(committed.digest)).await.expect_err("it was changed");
    assert!(matches!(error, Error::ManifestDamaged { expected, .. } if expected == committed.digest), "{error:?}");
}

#[tokio::test]
async fn bytes_damaged_only_on_the_way_are_read_again() {
    let inner = Store::memory();
    let (tensors, committed) = sample::checkpoint(&inner, sample::key(1, 1), "a").await;
    let (store, faults) = faulty(&inner);
    let checkpoint = Checkpoint::open(&store, &committed.key, None).await.expect("it opens");
    faults.add(Rule::new(Operation::Get, Fault::FlipBit(77)).on("rank-0001").after(2).times(1));
    assert_eq!(checkpoint.read_all().await.expect("the second read is good"), tensors);
    assert_eq!(faults.injected(), 1);
    faults.add(Rule::new(Operation::Get, Fault::Truncate(10)).on("rank-0000"));
    let error = checkpoint.read_all().await.expect_err("the answer stays short");
    assert!(matches!(error, Error::ShardSize { .. }), "{error:?}");
    faults.clear();
    faults.add(Rule::new(Operation::Get, Fault::Unavailable).on("rank-0000"));
    let error = checkpoint.read_all().await.expect_err("the store is away");
    assert!(error.is_transient() && !error.is_corruption(), "an outage is no damage: {error:?}");
}

#[tokio::test]
async fn bytes_damaged_on_the_way_to_the_store_are_found_when_read() {
    for operation in [Operation::Part, Operation::Put] {
        let inner = Store::memory();
        let (store, faults) = faulty(&inner);
        faults.add(Rule::new(operation, Fault::FlipBit(8 * 3500)).on("rank-0000").times(1));
        let options = if operation == Operation::Put {
            unimse_checkpoint::WriteOptions { part_bytes: 1 << 20, ..sample::small() }
        } else {
            sample::small()
        };
        let (key, attempt) = (sample::key(1, 1), sample::attempt("a"));
        let shards = sample::write_shards(&store, (key, &attempt), &sample::tensors(9, 20), 1, options, 700).await;
        unimse_checkpoint::commit(&store, &sample::manifest(key, attempt, shards.expect("nobody noticed yet")))
            .await
            .expect("nobody noticed yet");
        assert_eq!(faults.injected(), 1);
        assert!(matches!(broken(&inner, &key).await, Error::ChunkDamaged { chunk: 3, .. }));
    }
}

#[tokio::test]
async fn a_writer_that_meets_a_fault_leaves_no_object_and_no_parts() {
    let cases = [
        (Operation::Begin, Fault::PermissionDenied),
        (Operation::Part, Fault::DiskFull),
        (Operation::Part, Fault::Unavailable),
        (Operation::Part, Fault::LoseReply),
        (Operation::Complete, Fault::Unavailable),
    ];
    for (operation, fault) in cases {
        let folder = Folder::new();
        let (store, faults) = faulty(&folder.store);
        faults.add(Rule::new(operation, fault).after(u64::from(operation == Operation::Part)));
        let (key, attempt) = (sample::key(1, 1), sample::attempt("a"));
        let result =
            sample::write_shards(&store, (key, &attempt), &sample::tensors(9, 40), 1, sample::small(), 700).await;
        let error = result.expect_err("the fault is told");
        let fits = match fault {
            Fault::DiskFull => matches!(error, Error::DiskFull { .. }),
            Fault::PermissionDenied => matches!(error, Error::NotAllowed { .. }),
            _ => matches!(error, Error::Unavailable { .. }),
        };
        assert!(fits && error.to_string().contains("rank-0000.safetensors"), "{operation:?}, {fault:?}: {error:?}");
        // The writer was dropped; its cleaning runs beside.
        while faults.open_uploads() > 0 || !folder.files().is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn lost_replies_of_the_last_request_are_no_failure() {
    let folder = Folder::new();
    let (store, faults) = faulty(&folder.store);
    faults.add(Rule::new(Operation::Complete, Fault::LoseReply).times(1));
    faults.add(Rule::new(Operation::Put, Fault::LoseReply).on("rank-").times(1));
    let (key, attempt) = (sample::key(1, 1), sample::attempt("a"));
    let tensors = sample::tensors(9, 20);
    let large = sample::write_shards(&store, (key, &attempt), &tensors, 1, sample::small(), 700).await;
    large.expect("it is complete in the store");
    let whole = unimse_checkpoint::WriteOptions { part_bytes: 1 << 20, ..sample::small() };
    let small = sample::write_shards(&store, (key, &sample::attempt("b")), &tensors, 1, whole, 700).await;
    small.expect("it is complete in the store");
    assert_eq!(faults.injected(), 2);
}

#[tokio::test]
async fn an_aborted_writer_leaves_nothing() {
    let folder = Folder::new();
    let specs = vec![TensorSpec { name: "t".to_owned(), dtype: unimse_checkpoint::Dtype::U8, shape: vec![50_000] }];
    let attempt = sample::key(1, 1).attempt(sample::attempt("a"));
    let mut writer = ShardWriter::new(&folder.store, &attempt, Rank(0), specs, sample::small()).expect("it begins");
    writer.write("t", vec![1; 30_000].into()).await.expect("it takes bytes");
    assert!(folder.files().iter().any(|file| file.ends_with("rank-0000.safetensors#1")), "{:?}", folder.files());
    writer.abort().await.expect("it aborts");
    assert!(folder.files().is_empty(), "{:?}", folder.files());
}

#[tokio::test]
async fn bytes_that_do_not_fit_the_announced_tensors_are_refused() {
    let spec = |name: &str| TensorSpec { name: name.to_owned(), dtype: unimse_checkpoint::Dtype::U8, shape: vec![4] };
    let begin = || {
        let attempt = sample::key(1, 1).attempt(sample::attempt("a"));
        ShardWriter::new(&Store::memory(), &attempt, Rank(0), vec![spec("a"), spec("b")], sample::small())
    };
    let four = || Bytes::from_static(b"four");
    let mut writer = begin().expect("it begins");
    let error = writer.write("b", four()).await.expect_err("a comes first").to_string();
    assert!(error.ends_with("tensor `a` still misses 4 bytes, but bytes of `b` came"), "{error}");
    let error = writer.write("a", Bytes::from_static(b"fives")).await.expect_err("too much").to_string();
    assert!(error.ends_with("tensor `a` misses 4 bytes, but 5 came"), "{error}");
    writer.write("a", four()).await.expect("it fits");
    let error = writer.finish().await.expect_err("b is missing").to_string();
    assert!(error.ends_with("tensor `b` still misses 4 bytes at the end"), "{error}");
    let mut writer = begin().expect("it begins");
    writer.write("a", four()).await.expect("it fits");
    writer.write("b", four()).await.expect("it fits");
    let error = writer.write("b", four()).await.expect_err("too late").to_string();
    assert!(error.ends_with("tensor `b` gets bytes after all tensors are complete"), "{error}");
}

#[tokio::test]
async fn the_faulty_store_is_a_store_like_any_other_while_nothing_is_injected() {
    let (store, faults) = faulty(&Store::memory());
    store.probe().await.expect("it behaves");
    let from = Path::from("x/a");
    store.objects().put(&from, "hello".into()).await.expect("it writes");
    store.objects().copy(&from, &Path::from("x/b")).await.expect("it copies");
    let list = store.objects().list_with_delimiter(Some(&Path::from("x"))).await.expect("it lists");
    assert_eq!(list.objects.len(), 2);
    let ranges = store.objects().get_ranges(&from, &[0..2, 3..5]).await.expect("it reads");
    assert_eq!(ranges, ["he", "lo"]);
    assert_eq!(faults.injected(), 0);
    assert!(faults.count(Operation::Copy) == 1 && faults.count(Operation::Put) > 1);
}
