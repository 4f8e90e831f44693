//! How ranks agree: rounds of their own steps, factors in place of gradients, half the bytes. And what a profile shows of it.

use std::path::Path;
use std::sync::Arc;

use unimse_checkpoint::Store;
use unimse_core::id::Step;
use unimse_core::spec::{JobSpec, apply_sets};
use unimse_worker::trainer::torch;

use crate::harness::gang::Gang;
use crate::harness::wait;
use crate::training::{close, run, stores, training};

pub(crate) fn with(folder: &Path, steps: u64, sets: &[&str]) -> Arc<JobSpec> {
    let data = (0..100).map(|number| folder.join(format!("data-{number}"))).find(|data| !data.exists());
    let stores = stores(&data.expect("a test makes a few of them"), 60);
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Arc::new(apply_sets(&training(&stores, steps, ""), &sets).unwrap_or_else(|error| panic!("{error}")))
}

const ROUNDS: &[&str] =
    &["checkpoint.every=4", "train.evaluate_every=4", "train.sync.every=4", "train.sync.outer_learning_rate=0.9"];

#[test]
fn rounds_learn_account_for_every_sample_and_send_seldom() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plain = run(
        &with(folder.path(), 24, &["checkpoint.every=4", "train.evaluate_every=4"]),
        &folder.path().join("plain"),
        2,
        None,
    );
    let rounds = run(&with(folder.path(), 24, ROUNDS), &folder.path().join("rounds"), 2, None);
    assert_eq!(rounds.digests(), plain.digests());
    let losses = rounds.values("train/loss");
    assert!(losses[23] < 0.8 * losses[0], "it learns: {losses:?}");
    let sent = rounds.values("train/sent_megabytes");
    let silent = sent.iter().enumerate().filter(|(_, sent)| **sent == 0.0).map(|(place, _)| place + 1);
    assert!(silent.eq((1..=24).filter(|step| step % 4 != 0)), "{sent:?}");
    assert!(sent.iter().sum::<f64>() < 0.8 * plain.values("train/sent_megabytes").iter().sum::<f64>());
}

#[test]
fn a_round_that_is_broken_off_is_made_again_to_the_same_bits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let spec = with(folder.path(), 24, ROUNDS);
    let whole = run(&spec, &folder.path().join("whole"), 2, None);

    // Asked to stop in the middle of a round, the ranks go on to its end.
    let gang = Gang::start(&spec, &folder.path().join("parts"), 2, torch::make, 1, None);
    wait("it trains", || gang.members[0].step() >= Step(5));
    gang.stop();
    let at = gang.end().committed.last().expect("it was saved").clone();
    assert!(at.step.0.is_multiple_of(4), "{at:?}");
    let resumed = run(&spec, &folder.path().join("parts"), 2, Some(at));
    assert!(resumed.weights() == whole.weights(), "a job in two goes ends with the bits of one");

    // A new generation in the middle of a round begins it anew, from memory.
    let mut gang = Gang::start(&spec, &folder.path().join("broken"), 2, torch::make, 1, None);
    wait("it trains", || gang.members[0].step() >= Step(6));
    assert!(gang.reform(2).is_empty());
    let broken = gang.end();
    assert!(broken.weights() == whole.weights(), "a round counts once");
}

#[test]
fn rounds_go_on_with_another_number_of_ranks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let spec = with(folder.path(), 24, ROUNDS);
    let mut gang = Gang::start(&spec, &folder.path().join("grown"), 1, torch::make, 1, None);
    wait("it trains", || gang.members[0].step() >= Step(6));
    assert!(gang.reform(2).is_empty());
    let grown = gang.end();
    let losses = grown.values("train/loss");
    assert!(losses[losses.len() - 1] < 0.8 * losses[0], "it learns: {losses:?}");
}

#[test]
fn factors_learn_and_resume_from_a_checkpoint_to_the_same_bits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sets = [
        "checkpoint.every=8",
        "checkpoint.keep.latest=9",
        "train.sync.rank=2",
        "train.sync.warmup=2",
        "train.dropout=0",
    ];
    let spec = with(folder.path(), 24, &sets);
    let place = folder.path().join("ckpt");
    let whole = run(&spec, &place, 2, None);
    let exact = run(&with(folder.path(), 24, &["train.dropout=0"]), &folder.path().join("exact"), 2, None);
    let (losses, reference) = (whole.values("train/loss"), exact.values("train/loss"));
    close(&losses[..2], &reference[..2]);
    assert!(losses[23] < 0.8 * losses[0], "it learns: {losses:?}");
    let sent = whole.values("train/sent_megabytes");
    assert!(sent[2] < 0.3 * sent[1] && sent[7] == sent[1], "factors are small, what is saved is exact: {sent:?}");

    let at = whole.committed.iter().find(|at| at.step == Step(8)).expect("step 8 was saved").clone();
    let resumed = run(&spec, &place, 2, Some(at));
    assert!(resumed.weights() == whole.weights(), "going on from step 8 gives the same bits");
}

#[test]
fn gradients_in_bf16_learn_about_the_same_and_send_half() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let full = run(&with(folder.path(), 16, &["train.dropout=0"]), &folder.path().join("fp32"), 2, None);
    let sets = ["train.dropout=0", "train.sync.precision=bf16"];
    let half = run(&with(folder.path(), 16, &sets), &folder.path().join("bf16"), 2, None);
    for (step, (a, b)) in full.values("train/loss").iter().zip(half.values("train/loss")).enumerate() {
        assert!((a - b).abs() <= 0.02 * a.abs(), "step {}: {a} and {b}", step + 1);
    }
    assert_eq!(half.values("train/sent_megabytes")[0] * 2.0, full.values("train/sent_megabytes")[0]);
}

#[test]
fn a_profile_shows_phases_and_operators() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = folder.path().join("ckpt");
    let ended = run(&with(folder.path(), 14, &["log.profile=2"]), &place, 1, None);
    let job = ended
        .committed
        .last()
        .expect("it was saved")
        .manifest
        .parse::<unimse_checkpoint::ManifestKey>()
        .expect("a key")
        .job;
    let store = Store::open(place.to_str().expect("a plain path"), []).expect("the folder is there");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let traces = runtime.block_on(store.traces(job)).expect("they were written");
    let [(_, file)] = traces.as_slice() else { panic!("one rank, not {}", traces.len()) };
    let trace: serde_json::Value = serde_json::from_slice(file).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("a list");
    let count = |name: &str| events.iter().filter(|event| event["name"] == name).count();
    assert_eq!((count("step 11"), count("step 12"), count("step 13")), (1, 1, 0));
    // Six micro-shards a step.
    assert_eq!((count("forward"), count("backward"), count("update"), count("reduce")), (12, 12, 2, 2));
    assert!(count("aten::linear") > 0 && events.iter().any(|event| event["cat"] == "backward"));
}
