//! Real processes are killed, and the promises hold.

use crate::cluster::counting;
use crate::harness::{Cluster, Trainers, View, alive, kill, wait};

/// The hashes of all shards of the newest checkpoint: equal hashes are equal bytes.
fn weights(cluster: &Cluster, job: &str) -> Vec<String> {
    let shown = cluster.ok(&["ckpt", "show", &format!("{job}:latest"), "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let key = shown["checkpoint"]["manifest"].as_str().expect("a manifest").to_owned();
    let manifest = std::fs::read_to_string(cluster.path("checkpoints").join(key)).expect("the manifest is there");
    let mut hashes = Vec::new();
    collect(&serde_json::from_str(&manifest).expect("JSON"), &mut hashes);
    assert!(!hashes.is_empty(), "no hash in {manifest}");
    hashes
}

fn find(folder: &std::path::Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            find(&entry.path(), found);
        } else {
            found.push(entry.path().display().to_string());
        }
    }
}

fn collect(value: &serde_json::Value, hashes: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (name, value) in map {
                match value.as_str() {
                    Some(text) if name == "blake3" => hashes.push(text.to_owned()),
                    _ => collect(value, hashes),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, hashes)),
        _ => {}
    }
}

#[test]
fn a_killed_trainer_costs_one_generation_and_no_step() {
    let cluster = Cluster::start(Trainers::Fake, &[1, 1]);
    let job = cluster.submit(&counting("killed", 2, 500, ""));
    let before = cluster.wait_for(&job, "trains", |view| view.step > 50);
    let (survivor, victim) = (cluster.trainers(0), cluster.trainers(1));
    kill(victim[0], "KILL");
    let after = cluster.wait_for(&job, "recovers", |view| view.generation == 2 && view.step > before.step);
    assert_eq!(cluster.trainers(0), survivor, "the survivor keeps its process");
    assert_eq!((after.restarts, after.slots_held), (1, 2));
    let view = cluster.completes(&job);
    assert_eq!((view.step, view.generation), (500, 2));
    let steps: Vec<u64> = cluster.metric(&job, "train/loss").iter().map(|point| point.step).collect();
    assert_eq!(steps, (1..=500).collect::<Vec<_>>());
}

#[test]
fn a_killed_agent_leaves_no_orphan_and_the_job_goes_on_without_it() {
    let mut cluster = Cluster::start(Trainers::Fake, &[1, 1]);
    let job = cluster.submit(&counting("orphan", 2, 600, ""));
    cluster.wait_for(&job, "trains", |view| view.step > 30);
    let orphans = cluster.trainers(1);
    cluster.kill_agent(1);
    wait("its trainer is gone", || orphans.iter().all(|&pid| !alive(pid)));
    let view = cluster.wait_for(&job, "shrinks", |view| view.generation == 2 && view.state == "running");
    assert_eq!((view.slots_held, view.restarts), (1, 0), "a lost worker is not the job's fault");
    assert_eq!(cluster.completes(&job).step, 600);
}

#[test]
fn a_coordinator_that_is_away_for_ten_seconds_costs_nothing() {
    let mut cluster = Cluster::start(Trainers::Fake, &[1, 1]);
    let job = cluster.submit(&counting("away", 2, 2500, ""));
    let before = cluster.wait_for(&job, "trains", |view| view.step > 50);
    let trainers = (cluster.trainers(0), cluster.trainers(1));
    cluster.kill_coordinator();
    std::thread::sleep(std::time::Duration::from_secs(10));
    assert_eq!((cluster.trainers(0), cluster.trainers(1)), trainers);
    cluster.start_coordinator();
    let after = cluster.wait_for(&job, "is seen again", |view| view.step > before.step + 200);
    assert_eq!((after.generation, after.restarts), (1, 0));
    assert_eq!((cluster.trainers(0), cluster.trainers(1)), trainers);
    assert_eq!(cluster.completes(&job).generation, 1);
    let points = cluster.metric(&job, "train/loss");
    assert_eq!(points.iter().map(|point| point.step).collect::<Vec<_>>(), (1..=2500).collect::<Vec<_>>());
    assert!(points.iter().all(|point| point.generation == 1));
}

#[test]
fn after_everything_was_killed_the_job_goes_on_by_itself_and_ends_with_the_same_bits() {
    let calm = Cluster::start(Trainers::Fake, &[1, 1]);
    let reference = calm.submit(&counting("bits", 2, 300, "").replace("min_slots: 1", "min_slots: 2"));
    calm.completes(&reference);
    let expected = weights(&calm, &reference);

    let mut cluster = Cluster::start(Trainers::Fake, &[1, 1]);
    let job = cluster.submit(&counting("bits", 2, 300, "").replace("min_slots: 1", "min_slots: 2"));
    cluster.wait_for(&job, "has a checkpoint", |view| view.durable_step >= 60);
    cluster.kill_everything();
    cluster.start_coordinator();
    for agent in 0..2 {
        cluster.start_agent(agent);
    }
    let view: View = cluster.completes(&job);
    assert!(view.generation >= 2, "{view:?}");
    assert_eq!(weights(&cluster, &job), expected);
}

#[test]
fn a_stopped_worker_is_replaced_and_its_late_words_are_fenced() {
    let cluster = Cluster::start(Trainers::Fake, &[1, 1]);
    let job = cluster.submit(&counting("zombie", 1, 900, ""));
    cluster.wait_for(&job, "trains", |view| view.durable_step >= 20);
    let zombie = (0..2).find(|&agent| !cluster.trainers(agent).is_empty()).expect("a trainer runs");
    let frozen: Vec<u32> = cluster.trainers(zombie).into_iter().chain([cluster.agent(zombie)]).collect();
    for &pid in &frozen {
        kill(pid, "STOP");
    }
    let view = cluster.wait_for(&job, "runs elsewhere", |view| view.generation == 2 && view.state == "running");
    for &pid in &frozen {
        kill(pid, "CONT");
    }
    wait("the zombie's trainer is gone", || cluster.trainers(zombie).is_empty());
    assert_eq!(view.restarts, 0);
    assert_eq!(cluster.completes(&job).generation, 2);
    let list = cluster.ok(&["ckpt", "ls", &job, "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let newest = shown["checkpoints"].as_array().and_then(|list| list.last()).expect("a checkpoint");
    assert_eq!(newest["generation"], 2, "{list}");
}

#[test]
fn a_poison_job_ends_after_its_budget_and_harms_nobody() {
    let cluster = Cluster::start(Trainers::Fake, &[1]);
    let poison =
        counting("poison", 1, 50, "restart: {max: 2, backoff: 200ms}").replace("fake-step-ms: '10'", "fake-fail: '3'");
    let job = cluster.submit(&poison);
    let view = cluster.wait_for(&job, "fails", View::ended);
    assert_eq!(view.state, "failed");
    assert!(view.reason.contains("gave up after 2 restarts"), "{view:?}");
    let other = cluster.submit(&counting("other", 1, 10, ""));
    cluster.completes(&other);
}

#[test]
fn a_second_coordinator_on_the_same_state_is_refused_and_the_first_goes_on() {
    let cluster = Cluster::start(Trainers::Fake, &[1]);
    let mut command = crate::harness::program("unimse-coordinator");
    command.arg("--state").arg(cluster.path("state")).args(["--listen", "127.0.0.1:0"]);
    let second = crate::harness::ran(command);
    assert_ne!(second.code, 0);
    assert!(second.err.contains("in use") || second.err.contains("another coordinator"), "{}", second.err);
    cluster.ok(&["nodes"]);
}

#[test]
fn a_damaged_checkpoint_is_found_out_and_the_one_before_is_used() {
    let mut cluster = Cluster::start(Trainers::Fake, &[1]);
    let job = cluster.submit(&counting("damaged", 1, 4000, ""));
    cluster.wait_for(&job, "has checkpoints", |view| view.durable_step >= 60);
    cluster.ok(&["pause", &job]);
    let paused = cluster.wait_for(&job, "is paused", |view| view.state == "paused");
    let mut files = Vec::new();
    find(&cluster.path("checkpoints"), &mut files);
    let place = format!("step-{:08}/", paused.durable_step);
    let shards: Vec<&String> =
        files.iter().filter(|file| file.contains(&place) && file.ends_with(".safetensors")).collect();
    assert!(!shards.is_empty(), "no shard of {place} in {files:?}");
    for shard in shards {
        let mut bytes = std::fs::read(shard).expect("a shard");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(shard, bytes).expect("a shard can be damaged");
    }
    let verified = cluster.unimse(&["ckpt", "verify", &format!("{job}:latest")]);
    assert_eq!(verified.code, 1, "{}{}", verified.out, verified.err);
    cluster.ok(&["resume", &job]);
    cluster.wait_for(&job, "goes on", |view| view.state == "running" && view.step > paused.durable_step);
    let list = cluster.ok(&["ckpt", "ls", &job, "-o", "json"]);
    assert!(list.contains("\"state\": \"damaged\""), "{list}");
    let shown = cluster.ok(&["show", &job]);
    assert!(shown.contains("is damaged"), "{shown}");
    cluster.ok(&["cancel", &job]);
    cluster.kill_agent(0);
}
