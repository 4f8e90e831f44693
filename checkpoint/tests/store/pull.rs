//! A pulled folder is whole, readable by the safetensors crate, or absent.

use safetensors::SafeTensors;
use unimse_checkpoint::fault::{Fault, FaultStore, Faults, Operation, Rule};
use unimse_checkpoint::{Checkpoint, Error, PullPlan, Store};

use crate::sample;

fn even_without_prefix(name: &str) -> Option<String> {
    let number: u32 = name.strip_prefix("block.")?.strip_suffix(".weight")?.parse().ok()?;
    number.is_multiple_of(2).then(|| format!("encoder.{number}"))
}

#[tokio::test]
async fn the_wanted_tensors_are_merged_under_their_new_names() {
    let store = Store::memory();
    let (tensors, committed) = sample::checkpoint(&store, sample::key(1, 1), "a").await;
    let checkpoint = Checkpoint::open(&store, &committed.key, None).await.expect("it opens");
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = scratch.path().join("deep/best");
    let plan = PullPlan { rename: &even_without_prefix, files: vec![("config.json".to_owned(), b"{}".to_vec())] };
    let pulled = checkpoint.pull(&folder, &plan).await.expect("it pulls");
    assert_eq!((pulled.tensors, pulled.folder.as_path()), (30, folder.as_path()));

    let bytes = std::fs::read(folder.join("model.safetensors")).expect("it is there");
    assert_eq!(bytes.len() as u64, pulled.bytes);
    let file = SafeTensors::deserialize(&bytes).expect("it is a safetensors file");
    let (_, metadata) = SafeTensors::read_metadata(&bytes).expect("it has a header");
    assert_eq!(metadata.metadata().as_ref().expect("it has metadata")["format"], "pt");
    assert_eq!(file.len(), 30);
    for (name, expected) in tensors.iter().filter_map(|(name, tensor)| Some((even_without_prefix(name)?, tensor))) {
        let view = file.tensor(&name).expect("it was wanted");
        assert_eq!((view.dtype(), view.shape()), (expected.dtype, expected.shape.as_slice()));
        assert_eq!(view.data(), expected.data.as_ref(), "{name}");
    }
    assert_eq!(std::fs::read(folder.join("config.json")).expect("it is there"), b"{}");
    let error = checkpoint.pull(&folder, &plan).await.expect_err("the folder is taken");
    assert!(matches!(error, Error::Occupied { .. }) && error.to_string().contains("hint:"), "{error}");
}

#[tokio::test]
async fn a_pull_that_fails_leaves_nothing_behind() {
    let inner = Store::memory();
    let (_, committed) = sample::checkpoint(&inner, sample::key(1, 1), "a").await;
    let faults = Faults::default();
    let store = inner.decorated(|inner| FaultStore::new(inner, &faults));
    let checkpoint = Checkpoint::open(&store, &committed.key, None).await.expect("it opens");
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let folder = scratch.path().join("best");
    let all = |name: &str| Some(name.to_owned());
    faults.add(Rule::new(Operation::Get, Fault::FlipBit(5)).on("rank-0001").after(1));
    let plan = PullPlan { rename: &all, files: Vec::new() };
    let error = checkpoint.pull(&folder, &plan).await.expect_err("a chunk is damaged");
    assert!(matches!(error, Error::ChunkDamaged { .. }), "{error:?}");
    faults.clear();
    let plan = PullPlan { rename: &all, files: vec![("../escape".to_owned(), Vec::new())] };
    let error = checkpoint.pull(&folder, &plan).await.expect_err("a file outside");
    assert!(matches!(error, Error::Local { .. }), "{error:?}");
    let plan = PullPlan { rename: &|_| Some("same".to_owned()), files: Vec::new() };
    let error = checkpoint.pull(&folder, &plan).await.expect_err("one name for all");
    assert!(matches!(error, Error::BadShard { .. }), "{error:?}");
    assert_eq!(std::fs::read_dir(scratch.path()).expect("it is there").count(), 0);
}
