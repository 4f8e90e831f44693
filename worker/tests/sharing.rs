//! Jobs whose ranks share the optimiser's moments out (ZeRO stage 1), beside jobs whose ranks all have all of them.

use std::collections::BTreeMap;

use unimse_checkpoint::Tensor;
use unimse_core::id::Step;
use unimse_worker::trainer::torch;

use crate::harness::gang::Gang;
use crate::harness::wait;
use crate::syncing::with;
use crate::training::{close, run};

/// Whole tensors: pieces of one are put together.
fn joined(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Vec<u8>> {
    let mut parts: BTreeMap<String, BTreeMap<usize, Vec<u8>>> = BTreeMap::new();
    for (name, tensor) in tensors {
        let piece = name.split_once('[').map(|(whole, rest)| {
            (whole.to_owned(), rest.split(':').next().and_then(|from| from.parse().ok()).expect("a piece's name"))
        });
        let (whole, from) = piece.unwrap_or((name, 0));
        assert!(parts.entry(whole).or_default().insert(from, tensor.data.to_vec()).is_none());
    }
    parts.into_iter().map(|(name, parts)| (name, parts.into_values().flatten().collect())).collect()
}

#[test]
fn they_end_with_the_same_bits_and_each_rank_writes_its_own_moments() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plain = run(&with(folder.path(), 12, &[]), &folder.path().join("plain"), 2, None);
    for world in [1, 2] {
        let place = folder.path().join(format!("shared-{world}"));
        let shared = run(&with(folder.path(), 12, &["train.zero=1"]), &place, world, None);
        let weights = shared.weights();
        let pieces = weights.keys().filter(|name| name.contains('[')).count();
        assert!(pieces > 0 && weights.keys().all(|name| name.contains('[') == name.starts_with("optimizer.")));
        close(&plain.values("train/loss"), &shared.values("train/loss"));
        if world == 2 {
            assert!(joined(weights) == joined(plain.weights()), "parameters or moments differ");
        }
    }
}

#[test]
fn a_checkpoint_goes_to_other_numbers_of_ranks_and_to_ranks_that_share_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plain = with(folder.path(), 20, &[]);
    let whole = run(&plain, &folder.path().join("whole"), 2, None);
    let shared = with(folder.path(), 20, &["train.zero=1"]);
    let gang = Gang::start(&shared, &folder.path().join("parts"), 2, torch::make, 1, None);
    wait("it trains", || gang.members[0].step() >= Step(5));
    gang.stop();
    let at = gang.end().committed.last().expect("it was saved").clone();
    let rest = &whole.values("train/loss")[at.step.0 as usize..];
    for (name, spec, world) in [("three", &shared, 3), ("one", &shared, 1), ("plain", &plain, 2)] {
        let resumed = run(spec, &folder.path().join(name), world, Some(at.clone()));
        close(rest, &resumed.values("train/loss"));
    }
    // And the other way.
    let gang = Gang::start(&plain, &folder.path().join("back"), 2, torch::make, 1, None);
    wait("it trains", || gang.members[0].step() >= Step(5));
    gang.stop();
    let at = gang.end().committed.last().expect("it was saved").clone();
    let resumed = run(&shared, &folder.path().join("back again"), 2, Some(at));
    assert!(joined(resumed.weights()) == joined(whole.weights()), "parameters or moments differ");
}

#[test]
fn a_new_generation_begins_with_the_last_checkpoint_or_with_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sets = ["train.zero=1", "checkpoint.every=4"];
    let spec = with(folder.path(), 24, &sets);
    let whole = run(&spec, &folder.path().join("whole"), 2, None);
    for (name, from) in [("early", 1), ("late", 6)] {
        let mut gang = Gang::start(&spec, &folder.path().join(name), 2, torch::make, 1, None);
        wait("it trains", || gang.members[0].step() >= Step(from) && (from < 4 || !gang.committed().is_empty()));
        assert!(gang.reform(2).is_empty());
        let ended = gang.end();
        assert_eq!(ended.steps(), (1..=24).collect::<Vec<_>>());
        assert!(joined(ended.weights()) == joined(whole.weights()), "{name}: what was lost is made again");
    }
}
