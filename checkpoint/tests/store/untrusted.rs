//! A manifest is input from a bucket others may write to: nothing it says is believed.

use object_store::ObjectStoreExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use unimse_checkpoint::{Checkpoint, Error, Manifest, Store};

use crate::sample;

/// A good manifest as JSON, and the store it is in.
async fn good() -> (Store, Value) {
    let store = Store::memory();
    let (_, committed) = sample::checkpoint(&store, sample::key(1, 1), "a").await;
    let found = store.objects().get(&committed.key.path()).await.expect("it is there");
    (store, serde_json::from_slice(&found.bytes().await.expect("it reads")).expect("it is JSON"))
}

#[tokio::test]
async fn every_contradiction_is_refused_before_anything_is_read() {
    let (store, good) = good().await;
    let (key, other) = (sample::key(1, 1), unimse_core::id::JobId(99));
    let cases: Vec<(&str, Value, &str)> = vec![
        ("/shards/0/key", json!(format!("{other}/step-00000001/g0001-a/rank-0000.safetensors")), "is not"),
        ("/shards/0/key", json!(format!("{}/step-00000001/g0001-a/../../x", key.job)), "is not"),
        ("/shards/0/key", json!("../../etc/passwd"), "is not"),
        ("/attempt", json!("../x"), "attempt"),
        ("/job", json!(other.to_string()), "belongs at"),
        ("/generation", json!(2), "belongs at"),
        ("/step", json!(2), "belongs at"),
        ("/world_size", json!(3), "2 shards for a world of 3"),
        ("/shards/1/rank", json!(0), "twice"),
        ("/shards/0/bytes", json!(u64::MAX), "chunk digests"),
        ("/shards/0/chunk_bytes", json!(0), "power of two"),
        ("/shards/0/chunk_bytes", json!(1000), "power of two"),
        ("/shards/0/blake3", json!("00".repeat(32)), "do not merge"),
        ("/shards/0/chunks/0", json!("00".repeat(32)), "do not merge"),
        ("/shards/0/tensors/1/start", json!(3), "does not lie"),
        ("/shards/0/tensors/0/end", json!(u64::MAX), "does not lie"),
        ("/shards/0/tensors/0/shape", json!([u64::MAX, u64::MAX, 8]), "does not lie"),
        ("/shards/0/tensors/0/name", good["shards"][1]["tensors"][0]["name"].clone(), "in two places"),
        ("/shards/0/tensors", json!([]), ""),
        ("/tokenizer", json!({"key": format!("{other}/tokenizer.json")}), "outside job"),
        ("/tokenizer", json!({"key": format!("{}/../{other}/t", key.job)}), "outside job"),
        ("/version", json!("one"), "invalid type"),
    ];
    for (pointer, value, reason) in cases {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).expect(pointer) = value.clone();
        store.objects().put(&key.path(), bad.to_string().into_bytes().into()).await.expect("it writes");
        match Checkpoint::open(&store, &key, None).await {
            Err(Error::ManifestInvalid { reason: found, .. }) => assert!(found.contains(reason), "{pointer}: {found}"),
            // Without tensors the file's own header says what is in it; the manifest's list is then merely empty.
            Ok(_) if value == json!([]) => {}
            other => panic!("{pointer} = {value}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_newer_version_asks_for_an_update() {
    let (store, mut manifest) = good().await;
    manifest["version"] = json!(2);
    manifest["shards"] = json!("laid out otherwise");
    store.objects().put(&sample::key(1, 1).path(), manifest.to_string().into_bytes().into()).await.expect("it writes");
    let error = Checkpoint::open(&store, &sample::key(1, 1), None).await.expect_err("it is newer");
    assert!(matches!(error, Error::ManifestVersion { found: 2, supported: 1, .. }), "{error:?}");
    assert!(error.to_string().contains("hint: update"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_that_are_no_manifest_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Manifest::decode(&bytes, &sample::key(1, 1)).is_err());
    }

    #[test]
    fn a_manifest_with_random_bytes_changed_is_valid_or_refused(
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        static GOOD: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let good = GOOD.get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async { good().await.1.to_string().into_bytes() })
        });
        let mut bytes = good.clone();
        for (place, value) in places {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        // What still passes must be consistent: it encodes to a manifest that passes again.
        if let Ok(manifest) = Manifest::decode(&bytes, &sample::key(1, 1)) {
            let (encoded, _) = manifest.encode().expect("what was read can be written");
            prop_assert!(Manifest::decode(&encoded, &sample::key(1, 1)).is_ok());
        }
    }
}
