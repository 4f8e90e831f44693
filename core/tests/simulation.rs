//! Seeded storms: the real decision code drives virtual agents through crashes, lost messages, pauses and restarts of the
//! coordinator, in virtual time. A failure names its seed: give that number to `storm` to see it again.

#[path = "simulation/cluster.rs"]
mod cluster;

use cluster::{Cluster, Faults};
use unimse_core::job::Phase;
use unimse_core::worker::WorkerState;

const SEEDS: u64 = 150;

/// Runs one storm to its end and checks what must always hold.
fn storm(seed: u64, faults: Faults) -> Cluster {
    let mut cluster = Cluster::new(seed, faults);
    cluster.submit_jobs(6);
    cluster.run_until_faults_end();
    cluster.run_until_quiet();
    cluster
}

#[test]
fn every_job_ends_and_every_invariant_holds_in_any_storm() {
    let mut fenced = 0;
    for seed in 0..SEEDS {
        let cluster = storm(seed, Faults::all());
        fenced += cluster.fenced;
        for job in cluster.machine.state().jobs.values() {
            assert!(job.phase.ended(), "seed {seed}: {} is {} for ever: {:#?}", job.id, job.phase.word(), job.history);
            let explained = matches!(&job.phase, Phase::Failed { reason, .. } if reason.contains("gave up after"));
            assert!(
                matches!(job.phase, Phase::Completed { .. }) || explained,
                "seed {seed}: {} ended as {}: {:#?}",
                job.id,
                job.phase.word(),
                job.history
            );
        }
    }
    assert!(fenced > 100, "storms without words from the dead test no fence; there were {fenced}");
}

#[test]
fn without_faults_nothing_is_ever_restarted() {
    for seed in 0..40 {
        let cluster = storm(seed, Faults::none());
        for job in cluster.machine.state().jobs.values() {
            assert!(matches!(job.phase, Phase::Completed { .. }), "seed {seed}");
            assert_eq!(job.restarts, 0, "seed {seed}: {:#?}", job.history);
        }
    }
}

#[test]
fn a_coordinator_that_restarts_all_the_time_restarts_no_trainer() {
    for seed in 0..40 {
        let cluster = storm(seed, Faults { coordinator_restart: 30, ..Faults::none() });
        for job in cluster.machine.state().jobs.values() {
            assert!(matches!(job.phase, Phase::Completed { .. }), "seed {seed}: {:#?}", job.history);
            assert_eq!(job.restarts, 0, "seed {seed}: {:#?}", job.history);
        }
        assert!(cluster.restarts_of_coordinator > 0, "seed {seed} never restarted it");
    }
}

#[test]
fn workers_that_leave_in_order_cost_no_budget_and_nobody_waits_for_their_lease() {
    let mut left = 0;
    for seed in 0..40 {
        let cluster = storm(seed, Faults { agent_stop: 15, ..Faults::none() });
        for job in cluster.machine.state().jobs.values() {
            assert!(matches!(job.phase, Phase::Completed { .. }), "seed {seed}: {:#?}", job.history);
            assert_eq!(job.restarts, 0, "seed {seed}: {:#?}", job.history);
        }
        for worker in cluster.machine.state().workers.values() {
            assert!(!matches!(worker.state, WorkerState::Lost { .. }), "seed {seed}: {worker:?}");
            left += u32::from(matches!(worker.state, WorkerState::Left { .. }));
        }
    }
    assert!(left > 400, "only {left} workers left");
}

#[test]
fn the_same_seed_gives_the_same_story() {
    let story = |seed| serde_json::to_string(storm(seed, Faults::all()).machine.state()).expect("plain data");
    assert_eq!(story(7), story(7));
    assert_ne!(story(7), story(8));
}

#[test]
fn a_sweep_ends_with_the_same_best_in_any_storm() {
    let outcome = |seed, faults| {
        let mut cluster = Cluster::new(seed, faults);
        cluster.submit_sweep();
        cluster.run_until_faults_end();
        cluster.run_until_quiet();
        let record = cluster.machine.state().sweeps.values().next().expect("one sweep").clone();
        let rows: Vec<_> = record.sweep.table().into_iter().map(|row| (row.trial, row.rungs, row.status)).collect();
        (record.status_word(), record.sweep.best().map(|best| (best.trial, best.value)), rows)
    };
    let calm = outcome(0, Faults::none());
    for seed in 1..40 {
        let faults = Faults {
            coordinator_restart: 20,
            lost_order: 10,
            trainer_crash: 10,
            agent_crash: 2,
            agent_stop: 2,
            ..Faults::none()
        };
        assert_eq!(outcome(seed, faults), calm, "seed {seed}");
    }
}
