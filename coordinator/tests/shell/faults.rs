//! Full disks, stolen folders, ghosts.

use std::time::Duration;

use unimse_coordinator::journal::{FaultyJournal, MemoryJournal, SqliteJournal};
use unimse_coordinator::{Error, start, start_with};
use unimse_core::id::Step;
use unimse_core::machine::ReportKind;
use unimse_proto::Error as ProtoError;
use unimse_proto::client::Client;
use unimse_proto::session::{Hello, ToAgent};

use crate::agent::{Agent, greet, hello, info, trainers};
use crate::pages::get;
use crate::{client, config, coordinator, job, until, until_state};

#[tokio::test]
async fn a_second_coordinator_on_one_state_is_refused_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let error = start(config(folder.path())).await.unwrap_err();
    assert!(matches!(error, Error::StateDir(_)), "{error:?}");
    assert!(error.to_string().contains("in use by another coordinator"), "{error}");
    client(&running).await.submit(None, &job("a", 1)).await.unwrap();
    assert_eq!(client(&running).await.info().await.unwrap().epoch, 1, "the epoch did not grow either");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let other = tempfile::tempdir().unwrap();
    let mut taken = config(other.path());
    taken.listen = running.address();
    let error = start(taken).await.unwrap_err();
    assert!(matches!(error, Error::Bind { .. }), "{error:?}");
    assert!(error.to_string().contains(&running.address().to_string()), "{error}");
}

#[tokio::test]
async fn a_full_disk_refuses_what_is_new_and_forgets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("state")).unwrap();
    let sqlite = SqliteJournal::open(&folder.path().join("state/journal.db")).unwrap();
    let journal = FaultyJournal::new(sqlite);
    let faults = journal.faults();
    let running = start_with(config(folder.path()), Box::new(journal)).await.unwrap();
    let client = client(&running).await;
    let mut agent = Agent::join(&running.endpoint(), info("n1", 1)).await;
    let (id, _) = client.submit(Some("before".to_owned()), &job("a", 1)).await.unwrap();
    let assign = agent.assigned().await;
    agent.ready(&assign, None).await;
    agent.formed().await;
    agent.all_acked().await;

    faults.fill(u32::MAX);
    let error = client.submit(Some("during".to_owned()), &job("b", 1)).await.unwrap_err();
    assert!(matches!(error, ProtoError::Exhausted { .. }), "{error:?}");
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    assert!(client.job("b").await.is_err(), "what was refused is not shown either");
    assert_eq!(client.job("a").await.unwrap().job.state, "running", "training goes on");
    assert!(get(&running, "/healthz").await.starts_with("HTTP/1.1 503"));
    assert!(get(&running, "/").await.contains("The disk under the journal is full"));

    // What the agent says now cannot be kept: it loses its session and will repeat it all, in order.
    agent.report(id, assign.generation, 0, ReportKind::PeerLost { step: Step(3), detail: "x".to_owned() }).await;
    agent.commit("memory://", id, assign.generation, 5).await;
    while let Ok(Some(word)) = agent.hear().await {
        assert!(!matches!(word, ToAgent::Ack { .. }), "nothing is acknowledged that is not kept");
    }
    let hello = Hello { trainers: trainers(&assign, true), ..hello(agent.info.clone()) };
    let (_, _, first) = greet(&running.endpoint(), hello).await.unwrap();
    assert!(matches!(first, ToAgent::Refused { register_anew: false, .. }), "{first:?}");

    faults.fill(0);
    let (_, new) =
        until("there is room again", || async { client.submit(Some("during".to_owned()), &job("b", 1)).await.ok() })
            .await;
    assert!(new, "the refused submission left no trace");
    agent.come_back(&running.endpoint(), trainers(&assign, true)).await;
    agent.all_acked().await;
    assert_eq!(client.job("a").await.unwrap().job.durable_step, Step(5));
    assert!(get(&running, "/healthz").await.starts_with("HTTP/1.1 200"));
    running.kill().await;
    let running = coordinator(folder.path()).await;
    let client = Client::connect(&running.endpoint()).await.unwrap();
    for key in ["before", "during"] {
        assert!(!client.submit(Some(key.to_owned()), &job("x", 1)).await.unwrap().1, "{key} is known");
    }
}

#[tokio::test]
async fn agents_of_another_cluster_or_of_a_newer_coordinator_are_not_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let ask = |hello: Hello| {
        let endpoint = running.endpoint();
        async move {
            match greet(&endpoint, hello).await.unwrap().2 {
                ToAgent::Refused { reason, register_anew } => (reason, register_anew),
                other => panic!("{other:?}"),
            }
        }
    };
    let stranger = Hello { cluster: Some("elsewhere".to_owned()), ..hello(info("n1", 1)) };
    let (reason, anew) = ask(stranger).await;
    assert!(reason.contains("belongs to cluster elsewhere") && !anew, "{reason}");
    let (reason, anew) = ask(Hello { epoch: 9, ..hello(info("n1", 1)) }).await;
    assert!(reason.contains("epoch 9") && !anew, "{reason}");
}

#[tokio::test]
async fn a_restarted_coordinator_gives_everybody_a_full_lease() {
    let folder = tempfile::tempdir().unwrap();
    let lease = Duration::from_secs(2);
    let short = || unimse_coordinator::Config { lease, ..config(folder.path()) };
    let running = start(short()).await.unwrap();
    let mut agent = Agent::join(&running.endpoint(), info("n1", 1)).await;
    client(&running).await.submit(None, &job("a", 1)).await.unwrap();
    let assign = agent.assigned().await;
    agent.ready(&assign, None).await;
    agent.formed().await;
    agent.all_acked().await;
    running.kill().await;
    // Away for longer than a lease.
    tokio::time::sleep(lease + Duration::from_millis(500)).await;
    let running = start(short()).await.unwrap();
    agent.come_back(&running.endpoint(), trainers(&assign, true)).await;
    let client = client(&running).await;
    agent.steps(assign.job, assign.generation, 0..1).await;
    agent.all_acked().await;
    let view = client.job("a").await.unwrap().job;
    assert_eq!((view.state.as_str(), view.generation), ("running", assign.generation));
}

#[tokio::test]
async fn a_journal_in_memory_serves_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let journal = MemoryJournal::default();
    let running = start_with(config(folder.path()), Box::new(journal.clone())).await.unwrap();
    client(&running).await.submit(Some("k".to_owned()), &job("a", 1)).await.unwrap();
    running.stop().await.unwrap();
    let running = start_with(config(folder.path()), Box::new(journal)).await.unwrap();
    let client = client(&running).await;
    until_state(&client, "a", "queued").await;
    assert!(!client.submit(Some("k".to_owned()), &job("a", 1)).await.unwrap().1);
}
