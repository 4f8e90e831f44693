//! The coordinator as its clients and agents meet it: over real connections, with agents that only pretend to train.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod agent;
mod curves;
mod faults;
mod input;
mod life;
mod pages;
mod process;
mod submit;

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use unimse_coordinator::{Config, Running, start};
use unimse_core::spec::{JobSpec, parse_job};
use unimse_proto::client::Client;

/// No condition takes that long, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(folder: &Path) -> Config {
    Config { lease: Duration::from_secs(20), ..Config::local(folder.join("state")) }
}

async fn coordinator(folder: &Path) -> Running {
    start(config(folder)).await.unwrap()
}

async fn client(running: &Running) -> Client {
    Client::connect(&running.endpoint()).await.unwrap()
}

fn job(name: &str, slots: u32) -> JobSpec {
    let text = format!(
        "name: {name:?}\nmodel: {{preset: tiny}}\ndata: {{train: [{{path: a.arrow}}]}}\n\
         train: {{max_steps: 20, global_batch: 8}}\nresources: {{slots: {slots}, min_slots: 1}}\n\
         checkpoint: {{every: 5, keep: {{latest: 1, best: 0}}}}"
    );
    parse_job(&text, "test").unwrap()
}

/// Asks until the answer is there; never sleeps and hopes.
async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until_state(client: &Client, job: &str, state: &str) {
    until(&format!("{job} is {state}"), || async {
        let view = client.job(job).await.unwrap().job;
        (view.state == state).then_some(())
    })
    .await;
}
