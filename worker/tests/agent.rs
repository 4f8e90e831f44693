//! Agents as real processes with real (counting) trainer processes, under signals, orders and an absent coordinator.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use unimse_core::id::{Generation, Rank, Step};
use unimse_core::job::ExitCause;
use unimse_core::machine::{Order, ReportKind};

use crate::harness::coordinator::{Agent, Coordinator, JOB, alive, send};
use crate::harness::{counting, wait};

/// A running job of two ranks on one agent.
fn running(labels: &str, steps: u64, more: &[&str]) -> (Coordinator, Agent, tempfile::TempDir) {
    let coordinator = Coordinator::start();
    let agent = Agent::start(&coordinator, 2, more);
    let store = tempfile::tempdir().expect("a temporary folder");
    coordinator.assign(&counting(labels, steps, ""), store.path(), 1, 2);
    coordinator.form(1, 2);
    coordinator.wait_for_step(5);
    (coordinator, agent, store)
}

const SLOW: &str = "fake-step-ms: '10'";

#[test]
fn a_killed_trainer_is_reported_and_replaced() {
    let (coordinator, agent, store) = running(SLOW, 100_000, &[]);
    let before = agent.trainers();
    assert_eq!(before.len(), 2);
    let killed = Instant::now();
    send(before[1], Signal::SIGKILL);
    wait("the death is reported", || !coordinator.exits(1).is_empty());
    let reported = killed.elapsed();
    let [(rank, cause)] = coordinator.exits(1).try_into().expect("one death");
    assert_eq!(cause, ExitCause::Signalled { signal: 9 });
    wait("the survivor reports the loss too", || {
        let lost = |kind: &ReportKind| matches!(kind, ReportKind::PeerLost { .. });
        coordinator.heard().events.iter().any(|report| report.rank != rank && lost(&report.kind))
    });
    let reached = coordinator.last_step();
    coordinator.assign(&counting(SLOW, 100_000, ""), store.path(), 2, 2);
    coordinator.form(2, 2);
    coordinator.wait_for_step(reached.0 + 1);
    let recovered = killed.elapsed();
    println!("killed trainer: reported after {reported:?}, next step told after {recovered:?}");

    let after = agent.trainers();
    assert!(after.contains(&before[0]), "the survivor keeps its process");
    assert_eq!(after.len(), 2);
    let held: Vec<Option<Step>> = coordinator.ready(2).values().map(|ready| ready.holds).collect();
    assert_eq!(held.iter().flatten().count(), 1, "the survivor holds its state: {held:?}");
    coordinator.wait_for_step(reached.0 + 50);
    let heard = coordinator.heard();
    let steps: Vec<u64> = heard.steps.keys().map(|step| step.0).collect();
    assert_eq!(steps, (1..=steps.len() as u64).collect::<Vec<_>>(), "no step is missing");
}

#[test]
fn a_killed_agent_leaves_no_orphan() {
    let (coordinator, mut agent, _store) = running(SLOW, 100_000, &[]);
    let trainers = agent.trainers();
    assert_eq!(trainers.len(), 2);
    let killed = Instant::now();
    agent.child.kill().expect("the agent runs");
    agent.child.wait().expect("it ended");
    wait("its trainers are gone", || !trainers.iter().any(|&pid| alive(pid)));
    println!("killed agent: trainers gone after {:?}", killed.elapsed());
    drop(coordinator);
}

#[test]
fn training_goes_on_while_the_coordinator_is_away_and_nothing_said_is_lost() {
    let (mut coordinator, agent, _store) = running("fake-step-ms: '2'", 100_000, &[]);
    let trainers = agent.trainers();
    let before = coordinator.last_step();
    coordinator.go_away();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(agent.trainers(), trainers);
    let back = Instant::now();
    coordinator.come_back();
    coordinator.wait_for_agent(2);
    println!("coordinator back: hello after {:?}", back.elapsed());
    coordinator.wait_for_step(before.0 + 600);
    assert_eq!(agent.trainers(), trainers, "nobody was restarted");
    let heard = coordinator.heard();
    let steps: Vec<u64> = heard.steps.keys().map(|step| step.0).collect();
    assert_eq!(steps, (1..=steps.len() as u64).collect::<Vec<_>>(), "no step is missing");
    assert_eq!(heard.hellos[0].info, heard.hellos[1].info, "it is the same worker");
    assert_eq!(heard.hellos[1].trainers.len(), 2);
    assert!(heard.hellos[1].trainers.iter().all(|trainer| trainer.formed && trainer.generation == Generation(1)));
}

#[test]
fn after_the_grace_trainers_end_and_their_end_is_reported() {
    let (mut coordinator, agent, _store) = running(SLOW, 100_000, &["--grace", "1s"]);
    coordinator.go_away();
    wait("the trainers are gone", || agent.trainers().is_empty());
    coordinator.come_back();
    wait("both ends are reported", || coordinator.exits(1).len() == 2);
    let (_, cause) = coordinator.exits(1).remove(0);
    assert!(cause.to_string().contains("no word from the coordinator for 1 s"), "{cause}");
}

#[test]
fn orders_of_the_past_change_nothing() {
    let (coordinator, agent, store) = running(SLOW, 100_000, &[]);
    let trainers = agent.trainers();
    coordinator.assign(&counting(SLOW, 100_000, ""), store.path(), 1, 2);
    coordinator.order(Order::Kill { job: JOB, generation: Generation(0) });
    coordinator.order(Order::Stop { job: JOB, generation: Generation(7) });
    let reached = coordinator.last_step();
    coordinator.wait_for_step(reached.0 + 100);
    assert_eq!(agent.trainers(), trainers);
    coordinator.order(Order::Kill { job: JOB, generation: Generation(1) });
    wait("a kill of the present ends them", || agent.trainers().is_empty());
    assert!(coordinator.exits(1).is_empty(), "what was ordered is not reported");
}

#[test]
fn an_agent_that_was_given_up_starts_over_as_a_new_worker() {
    let (mut coordinator, agent, store) = running(SLOW, 100_000, &[]);
    coordinator.go_away();
    coordinator.refuse("the coordinator declared this worker lost", true);
    coordinator.come_back();
    coordinator.wait_for_agent(3);
    wait("the trainers are gone", || agent.trainers().is_empty());
    let (first, last) = {
        let heard = coordinator.heard();
        (heard.hellos[0].info.incarnation.clone(), heard.hellos.last().expect("it came").clone())
    };
    assert_ne!(last.info.incarnation, first);
    coordinator.assign(&counting(SLOW, 100_000, ""), store.path(), 5, 1);
    wait("it works again", || coordinator.ready(5).len() == 1);
    assert!(coordinator.heard().applied[&last.info.incarnation] <= 20, "numbers begin at 1 again");
}

#[test]
fn a_terminated_agent_lets_its_trainers_save() {
    let (coordinator, mut agent, _store) = running(SLOW, 100_000, &[]);
    agent.signal(Signal::SIGTERM);
    let status = agent.child.wait().expect("it ends");
    assert!(status.success(), "{status}");
    let exits = coordinator.exits(1);
    assert_eq!(exits.len(), 2);
    assert!(exits.iter().all(|(_, cause)| *cause == ExitCause::Stopped), "{exits:?}");
    let committed = |kind: &ReportKind| if let ReportKind::Committed { at, .. } = kind { Some(at.step) } else { None };
    let saved = coordinator.heard().events.iter().filter_map(|report| committed(&report.kind)).max();
    assert_eq!(saved, Some(coordinator.last_step()), "no step is lost");
    // It says that it goes before its trainers do, and that it is gone when all they said was heard.
    let heard = coordinator.heard();
    let [leaving, left] = heard.farewell.as_slice() else { panic!("{:?}", heard.farewell) };
    assert!(leaving.starts_with("leaving"), "{leaving}");
    assert_eq!(*left, format!("left after {} reports", heard.events.len()));
    let before: usize = leaving.split_whitespace().nth(2).and_then(|count| count.parse().ok()).expect("a number");
    assert!(before < heard.events.len(), "{leaving}, {left}");
}

#[test]
fn an_agent_whose_stdin_ends_may_end_with_it() {
    let (_coordinator, mut agent, _store) = running(SLOW, 100_000, &["--exit-on-stdin-eof"]);
    drop(agent.child.stdin.take());
    assert!(agent.child.wait().expect("it ends").success());
}

#[test]
fn last_words_and_logs_of_a_failing_trainer_reach_the_coordinator() {
    let coordinator = Coordinator::start();
    let _agent = Agent::start(&coordinator, 1, &[]);
    let store = tempfile::tempdir().expect("a temporary folder");
    let cases = [
        ("fake-fail: '3', fake-fail-how: invalid", "told to fail at step 3"),
        ("fake-fail: '3', fake-fail-how: memory", "out of memory: told to fail at step 3"),
        ("fake-fail: '3', fake-fail-how: panic", "exit code 101"),
    ];
    for (generation, (labels, expected)) in (1..).zip(cases) {
        coordinator.assign(&counting(labels, 50, ""), store.path(), generation, 1);
        coordinator.form(generation, 1);
        wait("it is reported", || !coordinator.exits(generation).is_empty());
        let (rank, cause) = coordinator.exits(generation).remove(0);
        assert_eq!(rank, Rank(0));
        assert!(cause.to_string().contains(expected), "{cause}");
    }
    assert!(coordinator.heard().lines.iter().any(|line| line.contains("ready")), "logs are told");
}

#[cfg(feature = "torch")]
#[test]
fn after_a_killed_real_trainer_the_next_step_is_made() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let spec = crate::training::training(&crate::training::stores(folder.path(), 60), 100_000, "");
    let coordinator = Coordinator::start();
    let agent = Agent::start_real(&coordinator, 2, &[]);
    let assigned = Instant::now();
    coordinator.assign(&spec, folder.path(), 1, 2);
    coordinator.form(1, 2);
    coordinator.wait_for_step(1);
    println!("real trainers: first step told {:?} after the assignment", assigned.elapsed());
    coordinator.wait_for_step(10);
    let killed = Instant::now();
    send(agent.trainers()[1], Signal::SIGKILL);
    wait("the death is reported", || !coordinator.exits(1).is_empty());
    let reached = coordinator.last_step();
    coordinator.assign(&spec, folder.path(), 2, 2);
    coordinator.form(2, 2);
    let formed = killed.elapsed();
    coordinator.wait_for_step(reached.0 + 1);
    println!("killed real trainer: all ready after {formed:?}, next step told after {:?}", killed.elapsed());
}
