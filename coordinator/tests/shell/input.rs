//! Input that is too large, too odd or no input at all.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use unimse_core::id::{JobId, Rank};
use unimse_core::time::Timestamp;
use unimse_proto::Error;
use unimse_proto::session::{AgentReport, FromAgent, Hello, LogLine, Logs, open};

use crate::agent::{Agent, greet, hello, info};
use crate::{client, coordinator, job};

#[tokio::test]
async fn a_message_beyond_the_cap_is_refused_and_the_next_one_served() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let client = client(&running).await;
    let error = client.submit(Some("k".repeat(9 << 20)), &job("a", 1)).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. } | Error::Exhausted { .. }), "{error:?}");
    let error = client.submit(Some("k".repeat(1000)), &job("a", 1)).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    let error = client.submit(Some(String::new()), &job("a", 1)).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    client.submit(None, &job("a", 1)).await.unwrap();
    assert_eq!(client.info().await.unwrap().jobs["queued"], 1);
}

#[tokio::test]
async fn a_report_beyond_the_cap_never_leaves_the_agent_and_the_session_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let (sender, mut receiver, _) = greet(&running.endpoint(), hello(info("n1", 1))).await.unwrap();
    let line = LogLine { number: 0, at: Timestamp(0), level: "info".to_owned(), text: "x".repeat(9 << 20) };
    let logs = Logs { job: JobId(0), generation: unimse_core::id::Generation(1), rank: Rank(0), lines: vec![line] };
    let error = sender.send(FromAgent::Report { seq: 1, report: AgentReport::Logs(logs.clone()) }).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    let small = AgentReport::Logs(Logs { lines: Vec::new(), ..logs });
    sender.send(FromAgent::Report { seq: 1, report: small }).await.unwrap();
    assert!(receiver.next().await.unwrap().is_some(), "it is acknowledged");
}

#[tokio::test]
async fn an_odd_hello_is_refused_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let ask = |hello: Hello| {
        let endpoint = running.endpoint();
        async move { greet(&endpoint, hello).await.map(|(_, _, first)| first).unwrap_err() }
    };
    let mut nameless = info("n1", 1);
    nameless.node = String::new();
    let mut control = info("n1", 1);
    control.node = "n\x1b[31m".to_owned();
    let mut long = info("n1", 1);
    long.incarnation = "x".repeat(1000);
    for odd in [nameless, control, long, info("n1", 5000)] {
        let error = ask(hello(odd)).await;
        assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
    }
    assert!(client(&running).await.nodes().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_session_that_begins_with_something_else_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let (sender, mut receiver) = open(&running.endpoint(), hello(info("n1", 1))).await.unwrap();
    receiver.next().await.unwrap().unwrap();
    sender.send(FromAgent::Hello(hello(info("n1", 1)))).await.unwrap();
    let error = loop {
        match receiver.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a reason"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Invalid { .. }), "{error:?}");
}

#[tokio::test]
async fn noise_on_the_port_disturbs_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut claims_five_gigabytes = preface.to_vec();
    claims_five_gigabytes.extend([0xff; 64]);
    let noises: [&[u8]; 5] =
        [b"\x00\xff\xfe garbage", b"GET", b"\x16\x03\x01\x02\x00\x01", preface, &claims_five_gigabytes];
    let mut open = Vec::new();
    for noise in noises.iter().cycle().take(50) {
        let mut stream = TcpStream::connect(running.address()).await.unwrap();
        stream.write_all(noise).await.unwrap();
        open.push(stream);
    }
    // While all of them hang there, somebody else works.
    let client = client(&running).await;
    let mut agent = Agent::join(&running.endpoint(), info("n1", 1)).await;
    client.submit(None, &job("a", 1)).await.unwrap();
    agent.assigned().await;
    agent.heartbeat().await.unwrap();
    let mut answer = Vec::new();
    open.swap_remove(0).read_to_end(&mut answer).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
}
