//! Deleting takes what it names, all of it, and nothing else.

use std::time::Duration;

use unimse_checkpoint::fault::{Fault, FaultStore, Faults, Operation, Rule};
use unimse_checkpoint::gc::{self, Deleted};
use unimse_checkpoint::{Checkpoint, ShardWriter, Store, TensorSpec, commit};
use unimse_core::id::{JobId, Rank};
use unimse_core::time::Timestamp;

use crate::sample::{self, Folder};

/// Later than any file of these tests, by the store's clock.
const FUTURE: Timestamp = Timestamp(u64::MAX / 2);
const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_deleted_checkpoint_is_gone_and_its_neighbours_are_whole() {
    let folder = Folder::new();
    for store in [&Store::memory(), &folder.store] {
        let neighbours =
            [sample::key(1, 1), sample::key(1, 2), sample::key(2, 1), sample::key(10, 1), sample::key(1, 11)];
        for key in neighbours {
            sample::checkpoint(store, key, "a").await;
        }
        let deleted = gc::delete(store, &neighbours[0]).await.expect("it deletes");
        assert_eq!(deleted.objects, 3);
        assert_eq!(gc::delete(store, &neighbours[0]).await.expect("again is harmless"), Deleted::default());
        let mut left: Vec<_> =
            gc::list(store, None).await.expect("it lists").into_iter().map(|listed| listed.key).collect();
        left.sort();
        let mut expected = neighbours[1..].to_vec();
        expected.sort();
        assert_eq!(left, expected);
        for key in left {
            let checkpoint = Checkpoint::open(store, &key, None).await.expect("it opens");
            assert!(checkpoint.verify(true).await.is_sound(), "{key}");
        }
        assert!(gc::list(store, Some(JobId(2))).await.expect("it lists").is_empty());
    }
    for key in [sample::key(1, 2), sample::key(2, 1), sample::key(10, 1), sample::key(1, 11)] {
        gc::delete(&folder.store, &key).await.expect("it deletes");
    }
    assert_eq!(std::fs::read_dir(folder.root.path()).expect("it is there").count(), 0, "no empty folders stay");
}

#[tokio::test]
async fn an_interrupted_deletion_never_leaves_a_manifest_without_shards_and_can_go_on() {
    for survives in 0..3 {
        let inner = Store::memory();
        let faults = Faults::default();
        let store = inner.decorated(|inner| FaultStore::new(inner, &faults));
        let (_, committed) = sample::checkpoint(&store, sample::key(1, 1), "a").await;
        faults.add(Rule::new(Operation::Delete, Fault::Unavailable).after(survives).times(1));
        gc::delete(&store, &committed.key).await.expect_err("it is interrupted");
        if survives == 0 {
            let checkpoint = Checkpoint::open(&inner, &committed.key, None).await.expect("nothing was deleted");
            assert!(checkpoint.verify(true).await.is_sound());
        } else {
            assert!(gc::list(&inner, None).await.expect("it lists").is_empty(), "the manifest went first");
        }
        gc::delete(&store, &committed.key).await.expect("the second try ends it");
        assert!(gc::orphans(&inner, None, FUTURE, HOUR).await.expect("it lists").is_empty());
    }
}

#[tokio::test]
async fn orphans_are_tries_without_a_manifest_of_their_own() {
    let folder = Folder::new();
    for store in [&Store::memory(), &folder.store] {
        let (tensors, committed) = sample::checkpoint(store, sample::key(1, 1), "good").await;
        // A retry of the same generation that lost, and a generation that died before its commit.
        for (key, attempt) in [(sample::key(1, 1), "lost"), (sample::key(2, 4), "died")] {
            sample::write_shards(store, (key, &sample::attempt(attempt)), &tensors, 2, sample::small(), 700)
                .await
                .expect("it writes");
        }
        let orphans = gc::orphans(store, None, FUTURE, HOUR).await.expect("it lists");
        let names: Vec<_> = orphans.iter().map(|orphan| orphan.attempt.attempt.to_string()).collect();
        assert_eq!(names, ["lost", "died"]);
        assert!(orphans.iter().all(|orphan| orphan.objects == 2 && orphan.bytes > 0));
        let newest = orphans.iter().map(|orphan| orphan.newest).max().expect("some");
        assert!(gc::orphans(store, None, newest, HOUR).await.expect("it lists").is_empty(), "they are too young");
        for orphan in &orphans {
            let deleted = gc::delete_orphan(store, &orphan.attempt).await.expect("it deletes");
            assert_eq!((deleted.objects, deleted.bytes), (orphan.objects, orphan.bytes));
        }
        assert!(gc::orphans(store, None, FUTURE, HOUR).await.expect("it lists").is_empty());
        let checkpoint = Checkpoint::open(store, &committed.key, None).await.expect("it opens");
        assert!(checkpoint.verify(true).await.is_sound());
    }
}

#[tokio::test]
async fn a_try_that_commits_after_the_listing_is_spared() {
    let store = Store::memory();
    let (key, attempt) = (sample::key(1, 1), sample::attempt("slow"));
    let shards = sample::write_shards(&store, (key, &attempt), &sample::tensors(1, 9), 1, sample::small(), 99)
        .await
        .expect("it writes");
    let orphans = gc::orphans(&store, None, FUTURE, HOUR).await.expect("it lists");
    assert_eq!(orphans.len(), 1);
    commit(&store, &sample::manifest(key, attempt, shards)).await.expect("the slow writer commits");
    assert_eq!(gc::delete_orphan(&store, &orphans[0].attempt).await.expect("it looks again"), Deleted::default());
    let checkpoint = Checkpoint::open(&store, &key, None).await.expect("it opens");
    assert!(checkpoint.verify(true).await.is_sound());
}

#[tokio::test]
async fn the_staging_file_of_a_killed_writer_is_an_orphan_too() {
    let folder = Folder::new();
    let attempt = sample::key(1, 1).attempt(sample::attempt("killed"));
    let specs = vec![TensorSpec { name: "t".to_owned(), dtype: unimse_checkpoint::Dtype::U8, shape: vec![50_000] }];
    let mut writer = ShardWriter::new(&folder.store, &attempt, Rank(0), specs, sample::small()).expect("it begins");
    writer.write("t", vec![1; 30_000].into()).await.expect("it takes bytes");
    // Not even its destructor runs, as under SIGKILL.
    std::mem::forget(writer);
    let orphans = gc::orphans(&folder.store, None, FUTURE, HOUR).await.expect("it lists");
    assert_eq!(orphans.iter().map(|orphan| &orphan.attempt).collect::<Vec<_>>(), [&attempt]);
    gc::delete_orphan(&folder.store, &attempt).await.expect("it deletes");
    assert!(folder.files().is_empty(), "{:?}", folder.files());
}

#[tokio::test]
async fn shards_of_a_manifest_that_cannot_be_read_are_kept_as_evidence() {
    let folder = Folder::new();
    let (_, committed) = sample::checkpoint(&folder.store, sample::key(1, 1), "a").await;
    std::fs::write(folder.root.path().join(committed.key.to_string()), "{").expect("it writes");
    assert!(gc::orphans(&folder.store, None, FUTURE, HOUR).await.expect("it lists").is_empty());
}
