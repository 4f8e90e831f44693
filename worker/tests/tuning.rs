//! What is trained and against what: frozen set-ups, low-rank updates, heads, negatives of the whole batch.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tch::Device;
use unimse_core::id::Step;
use unimse_core::spec::{JobSpec, apply_sets};
use unimse_data::schema::Split;
use unimse_model::config::AnswerWay;
use unimse_worker::trainer::torch;

use crate::harness::gang::Gang;
use crate::harness::wait;
use crate::training::{close, pull, run, stores, training};

fn with(stores: &[PathBuf], steps: u64, sets: &[&str]) -> Arc<JobSpec> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let spec = apply_sets(&training(stores, steps, ""), &sets).unwrap_or_else(|error| panic!("{error}"));
    Arc::new(spec)
}

#[test]
fn no_set_up_depends_on_the_world_size() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stores = stores(folder.path(), 60);
    let set_ups: [(&str, &[&str]); 3] = [
        ("global", &["model.contrastive.global=true", "model.heads.score=1", "model.heads.emotion=0.5"]),
        ("paper", &["model.trainable=paper", "train.adapter_learning_rate=3e-3"]),
        ("lora", &["model.trainable=adapters", "model.lora.rank=4"]),
    ];
    for (name, sets) in set_ups {
        let spec = with(&stores, 8, sets);
        let alone = run(&spec, &folder.path().join(format!("{name}-1")), 1, None);
        let losses = alone.values("train/loss");
        assert!(losses[7] < losses[0], "{name} learns: {losses:?}");
        let two = run(&spec, &folder.path().join(format!("{name}-2")), 2, None);
        close(&losses, &two.values("train/loss"));
    }
}

#[test]
fn negatives_of_the_whole_batch_do_not_depend_on_the_micro_batch() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stores = stores(folder.path(), 60);
    let losses = |name: &str, sets: &[&str]| {
        let ended = run(&with(&stores, 4, sets), &folder.path().join(name), 1, None);
        ["train/contrastive_acoustic", "train/contrastive_visual"].map(|value| ended.values(value))
    };
    // Dropout is seeded by the micro-shard, so it is off here.
    let global = ["model.contrastive.global=true", "train.dropout=0"];
    let small = losses("small", &[&global[..], &["train.micro_batch=4"]].concat());
    let large = losses("large", &[&global[..], &["train.micro_batch=12"]].concat());
    for (small, large) in small.iter().zip(&large) {
        close(&small[..2], &large[..2]);
    }
    let own = losses("own", &["train.dropout=0", "train.micro_batch=4"]);
    assert!(own[0][0] < 0.8 * small[0][0], "fewer negatives are easier: {} {}", own[0][0], small[0][0]);
}

#[test]
fn frozen_weights_are_in_every_checkpoint_once_and_stay_as_they_were() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stores = stores(folder.path(), 60);
    let spec = with(&stores, 12, &["model.trainable=adapters", "model.lora.rank=4"]);
    let place = |name: &str| folder.path().join(name);
    let whole = run(&spec, &place("whole"), 2, None);
    let weights = whole.weights();
    let moments: Vec<&String> = weights.keys().filter(|name| name.starts_with("optimizer.")).collect();
    assert!(moments.iter().all(|name| !name.ends_with("shared.weight") && !name.ends_with(".q.weight")), "{moments:?}");
    assert!(moments.iter().any(|name| name.ends_with(".q.lora_B.weight")), "{moments:?}");
    assert!(weights.contains_key("shared.weight") && weights.contains_key("acoustic.standard.12.mean"));

    let gang = Gang::start(&spec, &place("parts"), 2, torch::make, 1, None);
    wait("it trains", || gang.members[0].step() >= Step(4));
    gang.stop();
    let at = gang.end().committed.last().expect("it was saved").clone();
    let second = run(&spec, &place("parts"), 2, Some(at));
    let resumed = second.weights();
    assert!(resumed == weights, "a job in two goes ends with the bits of one");
    let first: BTreeMap<_, _> =
        run(&with(&stores, 4, &["model.trainable=adapters", "model.lora.rank=4"]), &place("short"), 1, None).weights();
    assert!(first["shared.weight"] == weights["shared.weight"], "it is frozen");
}

#[test]
fn a_model_with_heads_answers_in_three_ways() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stores = stores(folder.path(), 60);
    let spec = with(&stores, 60, &["model.heads.score=1", "model.heads.emotion=1", "model.answers=heads"]);
    let ended = run(&spec, &folder.path().join("ckpt"), 1, None);
    let pulled = folder.path().join("pulled");
    pull(ended.committed.last().expect("it was saved"), &pulled);
    let mut model = torch::ModelFolder::open(&pulled, Device::Cpu).expect("the folder is complete");
    let evaluate =
        |model: &torch::ModelFolder| model.evaluate(&stores, Split::Valid, 16, None).expect("the stores fit");
    let heads = evaluate(&model);
    let [low, high] = heads.details.intervals["sample-sentiment/mae"];
    assert!(low < heads.metrics["mae"] && heads.metrics["mae"] < high);
    let confusion = &heads.details.confusion["sample-emotion"];
    assert_eq!(confusion.counts.iter().flatten().sum::<u64>(), 24);
    let mut errors = vec![heads.metrics["mae"]];
    for way in [AnswerWay::Decoded, AnswerWay::Expected] {
        model.set_answers(way).expect("every model can");
        errors.push(evaluate(&model).metrics["mae"]);
    }
    assert!(errors[0] != errors[1] && errors[1] != errors[2] && errors[0] != errors[2], "{errors:?}");
}
