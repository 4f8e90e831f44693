//! Clients that submit, each over a connection of its own and one job after the other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use unimse_core::spec::parse_job;
use unimse_proto::client::Client;

/// What the clients saw.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) took: Duration,
    /// One for each submit, in no order.
    pub(crate) latencies: Vec<Duration>,
}

impl Load {
    /// Submits `jobs` jobs by so many clients at a time.
    pub(crate) async fn run(endpoint: &str, clients: usize, jobs: usize) -> Result<Self> {
        let mut connected = Vec::new();
        for _ in 0..clients {
            connected.push(Client::connect(endpoint).await?);
        }
        let begun = Instant::now();
        let mut working = JoinSet::new();
        for (number, client) in connected.into_iter().enumerate() {
            let share = (number..jobs).step_by(clients).collect::<Vec<_>>();
            working.spawn(async move { submit(&client, share).await });
        }
        let mut latencies = Vec::with_capacity(jobs);
        while let Some(done) = working.join_next().await {
            latencies.extend(done.context("a client has died")??);
        }
        Ok(Self { took: begun.elapsed(), latencies })
    }
}

async fn submit(client: &Client, share: Vec<usize>) -> Result<Vec<Duration>> {
    let text = "name: bench\nmodel: {preset: base}\ndata: {train: [{path: data/mosi.arrow}, {path: data/meld.arrow}], \
                valid: [{path: data/mosi.arrow}]}\ntrain: {max_steps: 2000, global_batch: 96}\n\
                resources: {slots: 4, min_slots: 2}\nlabels: {team: affect}";
    let spec = parse_job(text, "bench").map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let mut latencies = Vec::with_capacity(share.len());
    for number in share {
        let begun = Instant::now();
        let (_, new) = client.submit(Some(format!("bench-{number}")), &spec).await?;
        latencies.push(begun.elapsed());
        ensure!(new, "job {number} was known already");
    }
    Ok(latencies)
}
