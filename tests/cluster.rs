//! Jobs on a cluster without faults: the commands do what they say.

use std::collections::BTreeSet;

use crate::harness::{Cluster, Trainers, View, wait};

/// A job for counting trainers; labels steer them.
pub(crate) fn counting(name: &str, slots: u32, steps: u64, more: &str) -> String {
    format!(
        "name: {name}\nlabels: {{fake-step-ms: '10'}}\nmodel: {{preset: tiny}}\n\
         data: {{train: [{{path: unused.arrow}}], valid: [{{path: unused.arrow}}]}}\n\
         train: {{max_steps: {steps}, global_batch: 24, micro_batch: 4, learning_rate: 1e-3, evaluate_every: 20}}\n\
         resources: {{slots: {slots}, min_slots: 1}}\ncheckpoint: {{every: 20, keep: {{latest: 2, best: 1}}}}\nlog: {{every: 1}}\n{more}"
    )
}

#[test]
fn a_job_trains_on_two_workers_and_leaves_verified_checkpoints() {
    let cluster = Cluster::start(Trainers::Fake, &[1, 1]);
    let job = cluster.submit(&counting("two", 2, 100, ""));
    let view = cluster.completes(&job);
    assert_eq!((view.step, view.durable_step, view.generation), (100, 100, 1));
    let losses = cluster.metric(&job, "train/loss");
    assert_eq!(losses.iter().map(|point| point.step).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    let list = cluster.ok(&["ckpt", "ls", &job, "-o", "json"]);
    assert_eq!(
        list.matches("\"state\": \"committed\"").count(),
        2,
        "keep says two and the best is among them:\n{list}"
    );
    for name in ["best", "latest"] {
        cluster.ok(&["ckpt", "verify", &format!("{job}:{name}")]);
    }
    assert_eq!(view.metrics.keys().map(String::as_str).collect::<Vec<_>>(), ["valid/mae", "valid/score"]);
}

#[test]
fn a_key_is_one_job_from_eight_clients_at_once_and_across_a_restart() {
    let mut cluster = Cluster::start(Trainers::Fake, &[1]);
    let file = cluster.write("job.yaml", &counting("keyed", 1, 5, ""));
    let submit = |cluster: &Cluster| cluster.ok(&["submit", &file, "--key", "night-7", "-o", "name"]).trim().to_owned();
    let ids: BTreeSet<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| submit(&cluster))).collect();
        clients.into_iter().map(|client| client.join().expect("a client does not panic")).collect()
    });
    assert_eq!(ids.len(), 1, "{ids:?}");
    cluster.kill_coordinator();
    cluster.start_coordinator();
    assert_eq!(BTreeSet::from([submit(&cluster)]), ids);
    let list = cluster.ok(&["ps", "-a", "-o", "json"]);
    assert_eq!(list.matches("\"name\": \"keyed\"").count(), 1, "{list}");
}

#[test]
fn pause_frees_the_slots_and_resume_goes_on_from_the_saved_step() {
    let cluster = Cluster::start(Trainers::Fake, &[1]);
    let job = cluster.submit(&counting("paused", 1, 400, ""));
    cluster.wait_for(&job, "trains", |view| view.step > 30);
    cluster.ok(&["pause", &job]);
    let paused = cluster.wait_for(&job, "is paused", |view| view.state == "paused");
    assert!(paused.durable_step >= 30, "{paused:?}");
    let other = cluster.submit(&counting("other", 1, 5, ""));
    cluster.completes(&other);
    cluster.ok(&["resume", &job]);
    let view = cluster.completes(&job);
    assert_eq!((view.step, view.restarts), (400, 0));
    // A step that was saved is not trained again.
    let repeated = cluster.metric(&job, "train/loss").into_iter().filter(|point| point.step <= paused.durable_step);
    assert!(repeated.into_iter().all(|point| point.generation == 1));
}

#[test]
fn cancel_is_final_and_retry_begins_again_from_the_checkpoint() {
    let cluster = Cluster::start(Trainers::Fake, &[1]);
    let job = cluster.submit(&counting("cancelled", 1, 300, ""));
    cluster.wait_for(&job, "has a checkpoint", |view| view.durable_step >= 20);
    cluster.ok(&["cancel", &job]);
    cluster.wait_for(&job, "is cancelled", |view| view.state == "cancelled");
    assert_eq!(cluster.unimse(&["wait", &job]).code, 11);
    wait("its trainer is gone", || cluster.trainers(0).is_empty());
    cluster.ok(&["retry", &job]);
    assert_eq!(cluster.completes(&job).step, 300);
    assert_eq!(cluster.unimse(&["wait", &job]).code, 0);
}

#[test]
fn a_higher_priority_takes_the_slots_and_the_other_goes_on_afterwards() {
    let cluster = Cluster::start(Trainers::Fake, &[1]);
    let low = cluster.submit(&counting("low", 1, 400, "").replace("min_slots: 1", "min_slots: 1, priority: 10"));
    cluster.wait_for(&low, "trains", |view| view.step > 10);
    let high = cluster.submit(&counting("high", 1, 20, "").replace("min_slots: 1", "min_slots: 1, priority: 90"));
    cluster.completes(&high);
    let view = cluster.completes(&low);
    assert_eq!((view.step, view.restarts), (400, 0));
    let shown = cluster.ok(&["show", &low]);
    assert!(shown.contains(&format!("makes room for {high}")), "{shown}");
}

#[test]
fn a_job_that_no_cluster_can_run_waits_and_says_why() {
    let cluster = Cluster::start(Trainers::Fake, &[1]);
    let job = cluster.submit(&counting("large", 64, 5, "").replace("min_slots: 1", "min_slots: 64"));
    let said = cluster.ok(&["explain", &job]);
    assert!(said.contains("needs 64 slots, but the 1 live worker has 1 in all"), "{said}");
    assert_eq!(cluster.view(&job).state, "queued");
    assert_eq!(cluster.unimse(&["wait", &job, "--timeout", "1s"]).code, 12);
}

#[test]
fn a_drained_worker_hands_its_job_over() {
    let cluster = Cluster::start(Trainers::Fake, &[1, 1]);
    let job = cluster.submit(&counting("moved", 1, 600, ""));
    cluster.wait_for(&job, "trains", |view| view.step > 10);
    let from = (0..2).find(|&agent| !cluster.trainers(agent).is_empty()).expect("a trainer runs");
    cluster.ok(&["drain", &format!("node-{from}")]);
    wait("it has moved", || cluster.trainers(from).is_empty() && !cluster.trainers(1 - from).is_empty());
    assert_eq!(cluster.completes(&job).restarts, 0);
}

#[test]
fn metrics_logs_and_waiting_tell_the_same_story() {
    let cluster = Cluster::start(Trainers::Fake, &[1]);
    let job = cluster.submit(&counting("story", 1, 40, ""));
    let waited = cluster.unimse(&["wait", &job]);
    assert_eq!(waited.code, 0, "{}{}", waited.out, waited.err);
    assert!(!cluster.ok(&["logs", &job]).is_empty());
    let failing =
        cluster.submit(&counting("fails", 1, 40, "restart: {max: 0}").replace("fake-step-ms: '10'", "fake-fail: '7'"));
    assert_eq!(cluster.unimse(&["wait", &failing]).code, 10);
    let view: View = cluster.view(&failing);
    assert!(view.reason.contains("told to fail at step 7"), "{view:?}");
    assert!(cluster.ok(&["ps"]).contains("told to fail at step 7"));
}
