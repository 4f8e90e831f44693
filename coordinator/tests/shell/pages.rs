//! The web face.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use unimse_coordinator::Running;

use crate::agent::{Agent, info};
use crate::{client, coordinator, job};

/// Asks for a page; gives back head and body as they came.
pub(crate) async fn get(running: &Running, path: &str) -> String {
    get_as(running, path, "localhost").await
}

async fn get_as(running: &Running, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(running.address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_pages_show_what_there_is_and_escape_it() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let empty = get(&running, "/").await;
    assert!(empty.starts_with("HTTP/1.1 200") && empty.contains("None yet"), "{empty}");

    let client = client(&running).await;
    let mut agent = Agent::join(&running.endpoint(), info("<b>node</b>", 1)).await;
    let mut spec = job("a", 1);
    spec.labels.insert("team".to_owned(), "x".to_owned());
    let (id, _) = client.submit(None, &spec).await.unwrap();
    let assign = agent.assigned().await;
    agent.ready(&assign, None).await;
    agent.formed().await;
    agent.steps(id, assign.generation, 0..15).await;
    agent.logs(id, assign.generation, 0..2).await;
    agent.all_acked().await;

    let status = get(&running, "/").await;
    assert!(status.contains(&format!("<a href=\"/jobs/{id}\">{id}</a>")), "{status}");
    assert!(!status.contains("<b>node</b>"), "a name is text, never markup");
    assert!(status.contains("step 14 of 20"), "{status}");
    assert!(status.contains("content-security-policy: default-src 'none'"), "{status}");
    assert!(!status.contains("http://") && !status.contains("https://"), "nothing comes from elsewhere");

    let page = get(&running, "/jobs/a").await;
    for part in ["<svg", "train/loss", "line 1", "generation 1", "formed; starts from scratch", "checkpoint"] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    let missing = get(&running, "/jobs/%3Cscript%3E").await;
    assert!(missing.starts_with("HTTP/1.1 404") && !missing.contains("<script>"), "{missing}");
    for (path, kind) in
        [("/static/page.css", "text/css"), ("/static/page.js", "text/javascript"), ("/favicon.ico", "image/svg+xml")]
    {
        assert!(get(&running, path).await.contains(&format!("content-type: {kind}")), "{path}");
    }
}

#[tokio::test]
async fn prometheus_finds_jobs_workers_and_commits() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    client(&running).await.submit(None, &job("a", 1)).await.unwrap();
    let agent = Agent::join(&running.endpoint(), info("n1", 3)).await;
    let text = get(&running, "/metrics").await;
    for line in [
        "unimse_jobs{state=\"queued\"} 0",
        "unimse_jobs{state=\"starting\"} 1",
        "unimse_workers{state=\"alive\"} 1",
        "unimse_slots 3",
        "unimse_slots_used 1",
        "unimse_sessions 1",
        "unimse_events_total 2",
        "unimse_commit_seconds_count 2",
        "unimse_epoch 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
    }
    drop(agent);
}

#[tokio::test]
async fn a_page_of_another_site_cannot_read_ours_by_a_name_that_points_here() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    assert!(get_as(&running, "/", "evil.example").await.starts_with("HTTP/1.1 421"));
    assert!(get_as(&running, "/", "127.0.0.1:1").await.starts_with("HTTP/1.1 200"));
    assert!(get(&running, "/nothing").await.starts_with("HTTP/1.1 404"));
}
