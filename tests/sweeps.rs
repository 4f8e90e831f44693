//! Sweeps survive what happens to the coordinator.

use std::time::Duration;

use crate::harness::{Cluster, Trainers, wait};

const SWEEP: &str = "\
name: lr
job:
  name: trial
  labels: {fake-step-ms: '15'}
  model: {preset: tiny}
  data: {train: [{path: unused.arrow}], valid: [{path: unused.arrow}]}
  train: {max_steps: 90, global_batch: 24, micro_batch: 4, evaluate_every: 10}
  checkpoint: {every: 10}
method: random
metric: {name: valid/score, goal: maximize}
parameters:
  train.learning_rate: {min: 1e-5, max: 1e-2, scale: log}
early_stop: {type: asha, min_steps: 10, factor: 3}
max_trials: 9
parallel: 2
seed: 5
";

/// What must not depend on kills: each trial's parameters, rungs and end, and the best.
fn outcome(cluster: &Cluster, sweep: &str) -> serde_json::Value {
    let text = cluster.ok(&["sweep", "show", sweep, "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let view = &shown["sweep"];
    assert_eq!(view["status"], "completed", "{text}");
    let trials = view["trials"].as_array().expect("trials").iter();
    let rows: Vec<_> = trials
        .map(|trial| serde_json::json!([trial["trial"], trial["parameters"], trial["rungs"], trial["state"]]))
        .collect();
    assert_eq!(rows.len(), 9);
    serde_json::json!({ "rows": rows, "best": view["best_trial"], "value": view["best_value"] })
}

fn run(kills: u32) -> serde_json::Value {
    let mut cluster = Cluster::start(Trainers::Fake, &[2]);
    let file = cluster.write("sweep.yaml", SWEEP);
    let sweep = cluster.ok(&["sweep", "run", &file]).trim().to_owned();
    for kill in 1..=kills {
        wait("the sweep has moved on", || {
            let text = cluster.unimse(&["sweep", "show", &sweep, "-o", "json"]).out;
            // One more trial has begun than at the kill before.
            text.matches("\"job\": \"j-").count() > kill as usize * 2
        });
        cluster.kill_coordinator();
        std::thread::sleep(Duration::from_millis(400));
        cluster.start_coordinator();
    }
    wait("the sweep ends", || {
        let text = cluster.unimse(&["sweep", "show", &sweep, "-o", "json"]).out;
        text.contains("\"status\": \"completed\"") || text.contains("\"status\": \"failed\"")
    });
    outcome(&cluster, &sweep)
}

#[test]
fn a_sweep_whose_coordinator_is_killed_twice_promotes_the_same_trials_and_finds_the_same_best() {
    let calm = run(0);
    assert_eq!(run(2), calm);
    let stopped = calm["rows"].as_array().expect("rows").iter().filter(|row| row[3] != "finished").count();
    assert!(stopped > 0, "early stopping stopped nobody: {calm}");
}
