//! The life of a job with agents that only pretend to train.

use std::time::Duration;

use unimse_coordinator::{Config, start};
use unimse_core::id::{Generation, Step};
use unimse_core::job::ExitCause;
use unimse_core::machine::{Order, ReportKind};
use unimse_proto::StreamExt;
use unimse_proto::session::{AgentReport, ToAgent};

use crate::agent::{Agent, greet, hello, info, trainers};
use crate::{client, config, coordinator, job, until, until_state};

#[tokio::test]
async fn a_job_goes_from_submission_to_its_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let client = client(&running).await;
    let mut agent = Agent::join(&running.endpoint(), info("n1", 2)).await;
    let (id, _) = client.submit(None, &job("a", 2)).await.unwrap();

    let assign = agent.assigned().await;
    assert_eq!((assign.job, assign.generation, assign.world_size), (id, Generation(1), 2));
    assert_eq!(assign.spec.name, "a");
    agent.ready(&assign, None).await;
    let form = agent.formed().await;
    assert_eq!(form.peers, ["127.0.0.1:9000", "127.0.0.1:9001"]);
    assert_eq!((form.source, form.resume), (None, None), "from scratch");
    until_state(&client, "a", "running").await;

    let uri = client.info().await.unwrap().checkpoint_uri;
    let folder_of = |step: u64| folder.path().join(format!("state/checkpoints/{id}/step-{step:08}"));
    for step in [5, 10] {
        agent.steps(id, assign.generation, step - 4..step + 1).await;
        std::fs::create_dir_all(folder_of(step)).unwrap();
        std::fs::write(folder_of(step).join("manifest-g0001.json"), "{}").unwrap();
        agent.commit(&uri, id, assign.generation, step).await;
    }
    agent.logs(id, assign.generation, 0..3).await;
    agent.all_acked().await;
    until("the older checkpoint is deleted, in the store and in the list", || async {
        let left = client.checkpoints("a").await.unwrap();
        (left.len() == 1 && left[0].step == Step(10) && !folder_of(5).exists()).then_some(())
    })
    .await;
    assert!(folder_of(10).join("manifest-g0001.json").exists());

    let view = client.job("a").await.unwrap().job;
    assert_eq!((view.step, view.durable_step, view.eta_seconds), (Step(10), Step(10), view.eta_seconds));
    let loss = client.metrics("a", &["train/".to_owned()], Step(7)).await.unwrap();
    assert_eq!(loss.iter().map(|point| point.step.0).collect::<Vec<_>>(), [7, 8, 9, 10]);
    assert_eq!(client.digests("a").await.unwrap().len(), 10);

    let mut follow = client.logs("a", None, 0, true).await.unwrap();
    for number in 0..3 {
        assert_eq!(follow.next().await.unwrap().unwrap().line.text, format!("line {number}"));
    }
    agent.logs(id, assign.generation, 3..4).await;
    assert_eq!(follow.next().await.unwrap().unwrap().line.number, 3, "a new line arrives by itself");
    for rank in [1, 0] {
        agent.report(id, assign.generation, rank, ReportKind::Finished { step: Step(20) }).await;
    }
    agent.all_acked().await;
    until_state(&client, "a", "completed").await;
    assert!(follow.next().await.is_none(), "the log ends with the job");
}

#[tokio::test]
async fn training_goes_on_while_the_coordinator_is_killed_and_restarted() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let mut agent = Agent::join(&running.endpoint(), info("n1", 1)).await;
    let (id, _) = client(&running).await.submit(None, &job("a", 1)).await.unwrap();
    let assign = agent.assigned().await;
    agent.ready(&assign, None).await;
    agent.formed().await;
    agent.steps(id, assign.generation, 0..3).await;
    agent.all_acked().await;
    running.kill().await;

    // Said into the void, and kept.
    agent.steps(id, assign.generation, 3..6).await;
    agent.commit("memory://", id, assign.generation, 5).await;
    let running = coordinator(folder.path()).await;
    agent.come_back(&running.endpoint(), trainers(&assign, true)).await;
    assert_eq!(agent.epoch, 2);
    agent.all_acked().await;
    let client = client(&running).await;
    let detail = client.job("a").await.unwrap();
    assert_eq!((detail.job.state.as_str(), detail.job.generation), ("running", Generation(1)), "nobody restarted");
    assert_eq!((detail.job.durable_step, detail.job.restarts), (Step(5), 0));
    let steps: Vec<u64> = client.digests("a").await.unwrap().iter().map(|(step, _)| step.0).collect();
    assert_eq!(steps, [0, 1, 2, 3, 4, 5]);
    agent.report(id, assign.generation, 0, ReportKind::Finished { step: Step(20) }).await;
    until_state(&client, "a", "completed").await;
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let mut agent = Agent::join(&running.endpoint(), info("n1", 1)).await;
    let (id, _) = client(&running).await.submit(None, &job("a", 1)).await.unwrap();
    let assign = agent.assigned().await;
    agent.ready(&assign, None).await;
    agent.formed().await;
    for round in 0..100 {
        agent.steps(id, assign.generation, round..round + 1).await;
        agent.logs(id, assign.generation, round..round + 1).await;
        let metrics = [("valid/score".to_owned(), round as f64)].into();
        agent.report(id, assign.generation, 0, ReportKind::Evaluated { step: Step(round), metrics }).await;
    }
    // Killed somewhere between the first and the last acknowledgement.
    while agent.acked < 150 {
        agent.hear().await.unwrap();
    }
    running.kill().await;
    let acked = agent.acked;
    let running = coordinator(folder.path()).await;
    let client = client(&running).await;
    // The first report was Ready; then three a round.
    let rounds = (acked - 1) / 3;
    assert!(client.digests("a").await.unwrap().len() as u64 >= rounds);
    let log: Vec<_> = client.logs("a", None, 0, false).await.unwrap().collect().await;
    assert!(log.len() as u64 >= rounds);
    assert!(client.job("a").await.unwrap().job.evaluated_step >= Some(Step(rounds - 1)));
}

#[tokio::test]
async fn a_generation_that_is_over_can_publish_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let client = client(&running).await;
    let mut agent = Agent::join(&running.endpoint(), info("n1", 2)).await;
    let (id, _) = client.submit(None, &job("a", 2)).await.unwrap();
    let old = agent.assigned().await;
    agent.ready(&old, None).await;
    agent.formed().await;
    agent.steps(id, old.generation, 0..4).await;
    let cause = ExitCause::Signalled { signal: 9 };
    agent.report(id, old.generation, 1, ReportKind::Exited { cause, step: Some(Step(5)) }).await;
    let new = agent.assigned().await;
    assert_eq!(new.generation, Generation(2));
    agent.ready(&new, Some(Step(5))).await;
    let form = agent.formed().await;
    assert_eq!(form.source.map(|(_, step)| step), Some(Step(5)));

    // Steps 4 and 5 were made before the fall and are taken over; 6 and 7 came too late, a zombie's.
    agent.steps(id, old.generation, 4..8).await;
    agent.commit("memory://", id, old.generation, 5).await;
    agent.report(id, old.generation, 0, ReportKind::Finished { step: Step(20) }).await;
    agent.all_acked().await;
    let detail = client.job("a").await.unwrap();
    assert_eq!((detail.job.state.as_str(), detail.checkpoints.len()), ("running", 0));
    let steps: Vec<u64> = client.digests("a").await.unwrap().iter().map(|(step, _)| step.0).collect();
    assert_eq!(steps, [0, 1, 2, 3, 4, 5]);
    agent.steps(id, new.generation, 6..7).await;
    agent.all_acked().await;
    assert_eq!(client.digests("a").await.unwrap()[6].1, "0000000200000006");
}

#[tokio::test]
async fn a_silent_worker_is_lost_and_told_so_when_it_speaks_again() {
    let folder = tempfile::tempdir().unwrap();
    let lease = Duration::from_millis(600);
    let running = start(Config { lease, ..config(folder.path()) }).await.unwrap();
    let client = client(&running).await;
    let mut agent = Agent::join(&running.endpoint(), info("n1", 1)).await;
    client.submit(None, &job("a", 1)).await.unwrap();
    agent.assigned().await;
    // It stays connected but says nothing: hung, for all anybody can tell.
    until_state(&client, "a", "queued").await;
    let node = &client.nodes().await.unwrap()[0];
    assert_eq!(node.state, "lost");
    assert!(node.reason.contains("not heard of"), "{}", node.reason);
    let told = loop {
        match agent.hear().await.unwrap() {
            Some(ToAgent::Refused { register_anew, .. }) => break register_anew,
            Some(_) => {}
            None => panic!("the session ended without a word"),
        }
    };
    assert!(told, "kill the trainers and start over");
    let (_, _, first) = greet(&running.endpoint(), hello(agent.info.clone())).await.unwrap();
    assert!(matches!(first, ToAgent::Refused { register_anew: true, .. }), "{first:?}");
    let mut reborn = info("n1", 1);
    reborn.incarnation = "n1-2".to_owned();
    let mut agent = Agent::join(&running.endpoint(), reborn).await;
    assert_eq!(agent.assigned().await.generation, Generation(2));
}

#[tokio::test]
async fn a_name_belongs_to_one_connected_agent() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let first = Agent::join(&running.endpoint(), info("n1", 1)).await;
    let mut other = info("n1", 1);
    other.incarnation = "n1-other".to_owned();
    let (_, _, answer) = greet(&running.endpoint(), hello(other.clone())).await.unwrap();
    let ToAgent::Refused { reason, register_anew: false } = answer else { panic!("{answer:?}") };
    assert!(reason.contains("--name"), "{reason}");
    let worker = first.worker;
    drop(first);
    // Not connected any more, though its lease runs: the restarted agent takes the name over.
    let endpoint = running.endpoint();
    let successor = until("the name is free", || async {
        match greet(&endpoint, hello(other.clone())).await.unwrap() {
            (sender, receiver, ToAgent::Welcome { worker, .. }) => Some((sender, receiver, worker)),
            _ => None,
        }
    })
    .await;
    assert_ne!(successor.2, worker);
    let nodes = client(&running).await.nodes().await.unwrap();
    assert_eq!(nodes.iter().filter(|node| node.state == "alive").count(), 1);
}

#[tokio::test]
async fn an_agent_that_says_goodbye_frees_its_slots_at_once_and_for_good() {
    let folder = tempfile::tempdir().unwrap();
    // A lease that outlasts every test: nothing here happens because somebody was silent.
    let running = start(Config { lease: Duration::from_hours(1), ..config(folder.path()) }).await.unwrap();
    let client = client(&running).await;
    let mut leaving = Agent::join(&running.endpoint(), info("n1", 1)).await;
    client.submit(None, &job("a", 1)).await.unwrap();
    let first = leaving.assigned().await;
    leaving.ready(&first, None).await;
    leaving.formed().await;
    let mut staying = Agent::join(&running.endpoint(), info("n2", 1)).await;

    leaving.say(AgentReport::Leaving).await;
    assert!(matches!(leaving.order().await, Order::Stop { .. }));
    leaving.commit("memory://", first.job, first.generation, 7).await;
    let kind = ReportKind::Exited { cause: ExitCause::Stopped, step: Some(Step(7)) };
    leaving.report(first.job, first.generation, 0, kind).await;
    let second = staying.assigned().await;
    staying.ready(&second, None).await;
    assert_eq!(staying.formed().await.resume.map(|at| at.step), Some(Step(7)));
    leaving.say(AgentReport::Left).await;
    while let Ok(Some(word)) = leaving.hear().await {
        assert!(!matches!(word, ToAgent::Refused { .. }), "it is not told to come back");
    }
    let history = client.job("a").await.unwrap().history;
    assert!(history.iter().any(|entry| entry.what.contains("worker n1 leaves")), "{history:?}");
    running.kill().await;

    let running = coordinator(folder.path()).await;
    let nodes = crate::client(&running).await.nodes().await.unwrap();
    let states: Vec<(&str, &str)> = nodes.iter().map(|node| (node.node.as_str(), node.state.as_str())).collect();
    assert_eq!(states, [("n2", "alive"), ("n1", "left")]);
}

#[tokio::test]
async fn a_drained_node_gets_no_new_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let client = client(&running).await;
    let mut agent = Agent::join(&running.endpoint(), info("n1", 1)).await;
    client.drain("n1", true).await.unwrap();
    client.submit(None, &job("a", 1)).await.unwrap();
    assert_eq!(client.nodes().await.unwrap()[0].state, "drained");
    assert_eq!(client.job("a").await.unwrap().job.state, "queued");
    client.drain(&agent.worker.to_string(), false).await.unwrap();
    agent.assigned().await;
    client.cancel("a").await.unwrap();
    assert!(matches!(agent.order().await, Order::Kill { .. }));
}

#[tokio::test]
async fn an_agent_that_takes_no_orders_loses_its_session_and_hinders_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let client = client(&running).await;
    // Joins and never reads again.
    let agent = Agent::join(&running.endpoint(), info("deaf", 1)).await;
    until("the session is dropped", || async {
        for _ in 0..100 {
            client.submit(None, &job("a", 1)).await.unwrap();
            client.cancel("a").await.unwrap();
        }
        let dropped = running.handle().query(|present| present.sessions == 0).await.unwrap();
        dropped.then_some(())
    })
    .await;
    drop(agent);
}
