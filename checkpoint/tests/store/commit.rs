//! One manifest wins, whoever races and whatever reply is lost.

use futures::future::join_all;
use unimse_checkpoint::fault::{Fault, FaultStore, Faults, Operation, Rule};
use unimse_checkpoint::{Checkpoint, Error, Manifest, Store, commit};

use crate::sample::{self, Folder};

/// Shards written once, and a manifest of them.
async fn prepared(store: &Store) -> Manifest {
    let key = sample::key(200, 7);
    let attempt = sample::attempt("a1");
    let shards = sample::write_shards(store, (key, &attempt), &sample::tensors(3, 60), 2, sample::small(), 500)
        .await
        .expect("it writes");
    sample::manifest(key, attempt, shards)
}

fn faulty(store: &Store) -> (Store, Faults) {
    let faults = Faults::default();
    (store.decorated(|inner| FaultStore::new(inner, &faults)), faults)
}

/// Eight writers, each with `differ` saying whether its manifest differs; gives the winners and the fenced.
async fn race(store: &Store, manifest: &Manifest, differ: bool) -> (usize, usize) {
    let writers = (0..8_u64).map(|writer| {
        let mut manifest = manifest.clone();
        if differ {
            manifest.created.0 += writer;
        }
        let store = store.clone();
        tokio::spawn(async move { commit(&store, &manifest).await })
    });
    let results = join_all(writers).await.into_iter().map(|joined| joined.expect("no writer panics"));
    let (mut won, mut fenced) = (0, 0);
    for result in results {
        match result {
            Ok(_) => won += 1,
            Err(Error::Fenced { ours, theirs, .. }) if ours != theirs => fenced += 1,
            Err(error) => panic!("{error}"),
        }
    }
    (won, fenced)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_eight_different_manifests_exactly_one_wins() {
    for store in [Store::memory(), Folder::new().store] {
        for generation in 0..10 {
            let mut manifest = prepared(&store).await;
            manifest.generation.0 = 100 + generation;
            let tensors = sample::tensors(3, 4);
            let home = (manifest.key(), &manifest.attempt);
            let shards = sample::write_shards(&store, home, &tensors, 1, sample::small(), 500).await;
            manifest.shards = shards.expect("it writes");
            manifest.world_size = 1;
            assert_eq!(race(&store, &manifest, true).await, (1, 7), "{}", store.place());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_writers_of_the_same_bytes_all_succeed() {
    let folder = Folder::new();
    for store in [&Store::memory(), &folder.store] {
        let manifest = prepared(store).await;
        assert_eq!(race(store, &manifest, false).await, (8, 0));
    }
}

#[tokio::test]
async fn a_lost_reply_is_no_false_fence() {
    let (store, faults) = faulty(&Store::memory());
    let manifest = prepared(&store).await;
    faults.add(Rule::new(Operation::Put, Fault::LoseReply).on("manifest-").times(1));
    let committed = commit(&store, &manifest).await.expect("our own write landed");
    assert_eq!(faults.injected(), 1);
    Checkpoint::open(&store, &committed.key, Some(committed.digest)).await.expect("it is there");
}

#[tokio::test]
async fn a_conflict_with_nothing_there_is_tried_again() {
    let (store, faults) = faulty(&Store::memory());
    let manifest = prepared(&store).await;
    faults.add(Rule::new(Operation::Put, Fault::Conflict).on("manifest-").times(2));
    commit(&store, &manifest).await.expect("the third try succeeds");
    assert_eq!(unimse_checkpoint::gc::list(&store, None).await.expect("it lists").len(), 1);
}

#[tokio::test]
async fn a_store_that_stays_away_ends_in_a_typed_error_after_a_few_tries() {
    let (store, faults) = faulty(&Store::memory());
    let manifest = prepared(&store).await;
    let before = faults.count(Operation::Put);
    faults.add(Rule::new(Operation::Put, Fault::Unavailable).on("manifest-"));
    let error = commit(&store, &manifest).await.expect_err("nothing landed");
    assert!(error.is_transient() && !error.is_corruption(), "{error:?}");
    assert_eq!(faults.count(Operation::Put) - before, 5);
    faults.clear();
    commit(&store, &manifest).await.expect("the healed store takes it");
}

#[tokio::test]
async fn a_full_or_forbidden_store_is_told_at_once() {
    for (fault, hint) in [(Fault::DiskFull, "no space left"), (Fault::PermissionDenied, "access refused")] {
        let (store, faults) = faulty(&Store::memory());
        let manifest = prepared(&store).await;
        let before = faults.count(Operation::Put);
        faults.add(Rule::new(Operation::Put, fault).on("manifest-"));
        let error = commit(&store, &manifest).await.expect_err("nothing landed").to_string();
        assert!(error.contains(hint) && error.contains("manifest-g0007.json") && error.contains("hint:"), "{error}");
        assert_eq!(faults.count(Operation::Put) - before, 1, "no retry helps here");
    }
}

#[tokio::test]
async fn nothing_is_committed_over_a_missing_or_cut_shard() {
    let (store, faults) = faulty(&Store::memory());
    let manifest = prepared(&store).await;
    let path = object_store::path::Path::from(manifest.shards[1].key.as_str());
    let shard = object_store::ObjectStoreExt::get(store.objects().as_ref(), &path).await.expect("it is there");
    let bytes = shard.bytes().await.expect("it reads");
    object_store::ObjectStoreExt::put(store.objects().as_ref(), &path, bytes.slice(..100).into())
        .await
        .expect("it writes");
    let error = commit(&store, &manifest).await.expect_err("a cut shard");
    assert!(matches!(error, Error::ShardSize { actual: 100, .. }), "{error:?}");
    object_store::ObjectStoreExt::delete(store.objects().as_ref(), &path).await.expect("it deletes");
    let error = commit(&store, &manifest).await.expect_err("a missing shard");
    assert!(matches!(error, Error::ShardMissing { rank: 1, .. }), "{error:?}");
    assert!(unimse_checkpoint::gc::list(&store, None).await.expect("it lists").is_empty());
    assert_eq!(faults.injected(), 0);
}

#[tokio::test]
async fn a_zombie_of_an_older_generation_leaves_the_newer_checkpoint_untouched() {
    // The older generation may create its own manifest, but in other keys; that it does not count is the journal's word.
    let store = Store::memory();
    let (tensors, newer) = sample::checkpoint(&store, sample::key(200, 8), "new").await;
    sample::checkpoint(&store, sample::key(200, 7), "zombie").await;
    let checkpoint = Checkpoint::open(&store, &newer.key, Some(newer.digest)).await.expect("it opens");
    assert_eq!(checkpoint.read_all().await.expect("it reads"), tensors);
}

#[tokio::test]
async fn a_crash_at_any_point_leaves_no_manifest_or_a_whole_checkpoint() {
    // A hanging operation whose future is dropped is a crash: nothing after it happens.
    for (operation, part) in
        [(Operation::Part, "rank-0000"), (Operation::Complete, "rank-0001"), (Operation::Put, "manifest-")]
    {
        let inner = Store::memory();
        let (store, faults) = faulty(&inner);
        faults.add(Rule::new(operation, Fault::Hang).on(part).times(1));
        let save = async {
            let manifest = prepared(&store).await;
            commit(&store, &manifest).await.map(|_| ())
        };
        let reached = async {
            while faults.injected() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = save => panic!("it hangs at {operation:?}"),
            () = reached => {}
        }
        assert!(unimse_checkpoint::gc::list(&inner, None).await.expect("it lists").is_empty(), "{operation:?}");
        // The next attempt is not disturbed by what the crash left.
        let (tensors, committed) = sample::checkpoint(&inner, sample::key(200, 7), "retry").await;
        let checkpoint = Checkpoint::open(&inner, &committed.key, Some(committed.digest)).await.expect("it opens");
        assert_eq!(checkpoint.read_all().await.expect("it reads"), tensors);
    }
}
