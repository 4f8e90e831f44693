//! Real training on synthetic data: the numbers do not depend on where, by how many, and in how many goes they were computed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use unimse_checkpoint::{Checkpoint, PullPlan, Store, Tokenizer};
use unimse_core::checkpoint::CheckpointRef;
use unimse_core::id::Step;
use unimse_core::job::ExitCause;
use unimse_core::machine::ReportKind;
use unimse_core::spec::{JobSpec, parse_job};
use unimse_data::sample::{SampleOptions, write_samples};
use unimse_data::schema::Split;
use unimse_worker::protocol::FromTrainer;
use unimse_worker::trainer::torch;

use crate::harness::gang::{Ended, Gang};
use crate::harness::wait;

/// Small stores in a folder.
pub(crate) fn stores(folder: &Path, train: usize) -> Vec<PathBuf> {
    let options = SampleOptions { train, valid: 24, test: 8, ..SampleOptions::default() };
    let reports = write_samples(folder, &options).unwrap_or_else(|error| panic!("{error}"));
    reports.into_iter().map(|report| report.store).collect()
}

/// A job of the tiny preset on these stores.
pub(crate) fn training(stores: &[PathBuf], steps: u64, train: &str) -> Arc<JobSpec> {
    let list: Vec<String> = stores.iter().map(|path| format!("{{path: {}}}", path.display())).collect();
    let list = list.join(", ");
    let text = format!(
        "name: training\nmodel: {{preset: tiny}}\ndata: {{train: [{list}], valid: [{list}], vocab_size: 400}}\n\
         train: {{max_steps: {steps}, global_batch: 24, micro_batch: 4, learning_rate: 1e-3, \
         schedule: {{type: linear, warmup: 3}}, evaluate_every: {steps}, seed: 7{train}}}\n\
         checkpoint: {{every: 1000}}\nlog: {{every: 1}}"
    );
    Arc::new(parse_job(&text, "training.yaml").unwrap_or_else(|error| panic!("{error}")))
}

pub(crate) fn run(spec: &Arc<JobSpec>, folder: &Path, world: u32, resume: Option<CheckpointRef>) -> Ended {
    let generation = if resume.is_some() { 2 } else { 1 };
    let ended = Gang::start(spec, folder, world, torch::make, generation, resume).end();
    ended.all(&ExitCause::Finished);
    ended
}

#[track_caller]
pub(crate) fn close(one: &[f64], other: &[f64]) {
    assert_eq!(one.len(), other.len());
    for (place, (a, b)) in one.iter().zip(other).enumerate() {
        assert!((a - b).abs() <= 1e-5 * a.abs(), "value {place}: {a} and {b}");
    }
}

#[test]
fn one_two_and_three_ranks_see_the_same_samples_and_losses() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stores = stores(folder.path(), 60);
    // Without dropout, and with it: what is dropped depends on the micro-shard, not on the rank.
    for dropout in [", dropout: 0", ""] {
        let spec = training(&stores, 20, dropout);
        let alone = run(&spec, &folder.path().join(format!("1{dropout}")), 1, None);
        assert_eq!(alone.steps(), (1..=20).collect::<Vec<_>>());
        let losses = alone.values("train/loss");
        assert!(losses[19] < losses[0], "it learns: {losses:?}");
        for world in [2, 3] {
            let ended = run(&spec, &folder.path().join(format!("{world}{dropout}")), world, None);
            assert_eq!(ended.digests(), alone.digests());
            close(&losses, &ended.values("train/loss"));
            close(&alone.values("train/grad_norm"), &ended.values("train/grad_norm"));
        }
    }
}

#[test]
fn a_job_in_two_goes_ends_with_the_bits_of_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stores = stores(folder.path(), 60);
    let spec = training(&stores, 24, "");
    for world in [1, 2] {
        let place = |name: &str| folder.path().join(format!("{name}-{world}"));
        let whole = run(&spec, &place("whole"), world, None);
        let gang = Gang::start(&spec, &place("parts"), world, torch::make, 1, None);
        wait("it trains", || gang.members[0].step() >= Step(5));
        gang.stop();
        let first = gang.end();
        first.all(&ExitCause::Stopped);
        let at = first.committed.last().expect("it was saved").clone();
        assert!(at.step >= Step(5) && at.step < Step(24), "{at:?}");
        let second = run(&spec, &place("parts"), world, Some(at.clone()));
        assert_eq!(second.steps().first(), Some(&(at.step.0 + 1)));
        assert_eq!(second.weights(), whole.weights(), "world {world}");
    }
}

#[test]
fn a_checkpoint_of_two_ranks_is_resumed_by_three() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stores = stores(folder.path(), 60);
    let spec = training(&stores, 20, "");
    let whole = run(&spec, &folder.path().join("whole"), 2, None);
    let gang = Gang::start(&spec, &folder.path().join("parts"), 2, torch::make, 1, None);
    wait("it trains", || gang.members[0].step() >= Step(5));
    gang.stop();
    let first = gang.end();
    let at = first.committed.last().expect("it was saved").clone();
    let second = run(&spec, &folder.path().join("parts"), 3, Some(at.clone()));
    let rest = &whole.values("train/loss")[at.step.0 as usize..];
    close(rest, &second.values("train/loss"));
    assert_eq!(second.digests(), whole.digests()[at.step.0 as usize..]);
}

#[test]
fn a_new_rank_takes_the_state_from_a_peers_memory() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stores = stores(folder.path(), 60);
    let spec = training(&stores, 30, "");
    let whole = run(&spec, &folder.path().join("whole"), 2, None);
    let mut gang = Gang::start(&spec, &folder.path().join("grown"), 1, torch::make, 1, None);
    wait("it trains", || gang.members[0].step() >= Step(5));
    assert!(gang.reform(2).is_empty());
    let grown = gang.end();
    grown.all(&ExitCause::Finished);
    assert_eq!(grown.steps(), (1..=30).collect::<Vec<_>>());
    close(&whole.values("train/loss"), &grown.values("train/loss"));
}

#[test]
fn bf16_learns_about_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stores = stores(folder.path(), 60);
    let full = run(&training(&stores, 20, ", dropout: 0"), &folder.path().join("fp32"), 1, None);
    let half = run(&training(&stores, 20, ", dropout: 0, precision: bf16"), &folder.path().join("bf16"), 1, None);
    for (step, (a, b)) in full.values("train/loss").iter().zip(half.values("train/loss")).enumerate() {
        assert!((a - b).abs() <= 0.05 * a.abs(), "step {}: {a} and {b}", step + 1);
    }
}

#[test]
fn a_few_samples_are_learned_by_heart_and_evaluated_alike_in_the_job_and_afterwards() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stores = stores(folder.path(), 24);
    let spec = training(&stores, 100, ", dropout: 0");
    let ended = run(&spec, &folder.path().join("ckpt"), 2, None);
    let losses = ended.values("train/ce");
    assert!(losses[99] < 0.25 * losses[0], "from {} to {}", losses[0], losses[99]);
    let metrics = ended.said.iter().flatten().find_map(|message| match message {
        FromTrainer::Event { kind: ReportKind::Evaluated { metrics, .. }, .. } => Some(metrics.clone()),
        _ => None,
    });
    let metrics: BTreeMap<String, f64> = metrics.expect("the last step is evaluated");
    for name in
        ["valid/score", "valid/mae", "valid/wf1", "valid/sample-sentiment/acc2_non0", "valid/sample-emotion/wf1"]
    {
        assert!(metrics.contains_key(name), "{name} is not in {metrics:?}");
    }

    let pulled = folder.path().join("pulled");
    pull(ended.committed.last().expect("it was saved"), &pulled);
    let model = torch::ModelFolder::open(&pulled, tch::Device::Cpu).expect("the folder is complete");
    let mut lines = Vec::new();
    let mut tell = |line| {
        lines.push(line);
        Ok(())
    };
    let evaluated = model.evaluate(&stores, Split::Valid, 7, Some(&mut tell)).expect("the stores fit");
    assert_eq!(lines.len(), 48);
    for (name, value) in &metrics {
        let other = evaluated.metrics[name.trim_start_matches("valid/")];
        assert!((value - other).abs() < 1e-9, "{name}: {value} in the job, {other} afterwards");
    }
    let learned = model.evaluate(&stores, Split::Train, 16, None).expect("the stores fit");
    assert!(learned.metrics["score"] > 0.9, "{:?}", learned.metrics);

    let exported = folder.path().join("exported");
    torch::export(&pulled, &exported, torch::Precision::Fp32).expect("a new folder");
    let again = torch::ModelFolder::open(&exported, tch::Device::Cpu).expect("the folder is complete");
    let again = again.evaluate(&stores, Split::Valid, 7, None).expect("the stores fit");
    assert_eq!(again, evaluated, "an exported model is the same model");
    let refused = torch::export(&pulled, &exported, torch::Precision::Fp32).expect_err("it is there already");
    assert!(refused.contains("is not empty") && refused.contains("hint"), "{refused}");

    let line: &torch::SampleLine = &lines[0];
    assert!(line.nll > 0.0 && line.nll.is_finite());
    assert_eq!(line.target_ids.last(), Some(&1));
    let question = torch::Question { text: "the movie was wonderful".to_owned(), ..torch::Question::default() };
    let guess = model.predict(&[question], 8).expect("a sentence needs no features").remove(0);
    assert!(["negative", "neutral", "positive"].contains(&guess.polarity.as_str()), "{guess:?}");
    assert!((-3.0..=3.0).contains(&guess.score) && guess.emotion.is_some(), "{guess:?}");
}

/// Writes a folder as `unimse ckpt pull` does, from nothing but the manifest.
pub(crate) fn pull(at: &CheckpointRef, folder: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(&at.uri, []).expect("a folder");
        let checkpoint =
            Checkpoint::open(&store, &at.manifest.parse().expect("a key"), None).await.expect("it is there");
        let manifest = checkpoint.manifest();
        let Some(Tokenizer::Inline(tokenizer)) = &manifest.tokenizer else { panic!("no tokenizer") };
        let json = |value: &serde_json::Value| serde_json::to_vec_pretty(value).expect("plain data");
        let files = vec![
            ("config.json".to_owned(), json(&manifest.model)),
            ("labels.json".to_owned(), json(&manifest.labels)),
            ("tokenizer.json".to_owned(), tokenizer.clone().into_bytes()),
        ];
        let rename = |name: &str| (!name.starts_with("optimizer.")).then(|| name.to_owned());
        checkpoint.pull(folder, &PullPlan { rename: &rename, files }).await.expect("the folder can be written");
    });
}

#[test]
fn a_dataset_that_is_missing_or_damaged_fails_the_job_for_good_with_its_path() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = vec![folder.path().join("nowhere.arrow")];
    let ended = Gang::start_unformed(&training(&missing, 5, ""), folder.path(), torch::make).end();
    let ExitCause::Invalid { message } = &ended.causes[0] else { panic!("{:?}", ended.causes) };
    assert!(message.contains("nowhere.arrow") && message.contains("hint:"), "{message}");
}
