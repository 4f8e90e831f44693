//! What the coordinator costs: the real program over real connections, with its journal on the disk of the target folder.
//!
//! `cargo xtask bench coordinator` runs it. Prints one JSON object a line. The first argument is how many jobs the large runs have
//! (10,000 by default).

mod load;
mod process;

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tempfile::TempDir;

use load::Load;
use process::Coordinator;

/// Starts of which the median counts.
const STARTS: usize = 9;
/// Starts on a state with many jobs, of which the median counts.
const RECOVERIES: usize = 3;
/// Submits of the client that is alone.
const ALONE: usize = 2000;

fn main() -> Result<()> {
    // Cargo itself passes `--bench`.
    let jobs = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(10_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        disk()?;
        start_up().await?;
        alone().await?;
        crowd(jobs).await
    })
}

/// A state folder on the disk that holds the build outputs: the system's folder for temporary files may be memory.
fn scratch() -> Result<TempDir> {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).context("make a state folder")
}

/// What the disk itself takes for the least that a durable answer needs; no client alone can be faster.
fn disk() -> Result<()> {
    let folder = scratch()?;
    let mut file = File::create(folder.path().join("probe")).context("create a file")?;
    let mut took = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        file.rewind().and_then(|()| file.write_all(&[7; 4096])).and_then(|()| file.sync_data()).context("write")?;
        took.push(begun.elapsed());
    }
    emit("write and sync 4 KiB, p50", millis(percentile(&mut took, 50)), "ms", "lower", None, "the disk's own floor");
    Ok(())
}

async fn start_up() -> Result<()> {
    let mut took = Vec::new();
    let mut memory = 0.0_f64;
    for _ in 0..STARTS {
        let folder = scratch()?;
        let coordinator = Coordinator::start(folder.path()).await?;
        took.push(coordinator.ready_after);
        memory = memory.max(coordinator.resident_megabytes()?);
        coordinator.stop()?;
    }
    let note = format!("to the first answer, empty state, median of {STARTS}");
    emit("start-up", millis(percentile(&mut took, 50)), "ms", "lower", Some(100.0), &note);
    emit("memory when idle", memory, "MB", "lower", Some(50.0), "resident, after the first answer");
    Ok(())
}

async fn alone() -> Result<()> {
    let folder = scratch()?;
    let coordinator = Coordinator::start(folder.path()).await?;
    let load = Load::run(&coordinator.endpoint, 1, ALONE).await?;
    coordinator.stop()?;
    report(load, 1, None);
    Ok(())
}

/// Many clients fill a state, which is then brought back from turns and from a snapshot.
async fn crowd(jobs: usize) -> Result<()> {
    let folder = scratch()?;
    let mut coordinator = Coordinator::start(folder.path()).await?;
    let load = Load::run(&coordinator.endpoint, 16, jobs).await?;
    report(load, 16, Some(2000.0));
    let each = coordinator.processor_time()?.as_secs_f64() * 1e6 / jobs as f64;
    emit("processor time of a submit", each, "us", "lower", None, "of all the coordinator's threads, 16 clients");
    emit(
        &format!("memory with {jobs} jobs"),
        coordinator.resident_megabytes()?,
        "MB",
        "lower",
        None,
        "after the submits",
    );

    // Without a snapshot a killed process leaves nothing but turns.
    coordinator.kill()?;
    let journal = held(folder.path())?;
    let (mut took, mut spent) = (Vec::new(), Vec::new());
    for _ in 0..RECOVERIES {
        coordinator = Coordinator::start(folder.path()).await?;
        took.push(coordinator.ready_after);
        spent.push(coordinator.processor_time()?);
        coordinator.expect_jobs(jobs).await?;
        coordinator.kill()?;
    }
    let note =
        format!("start to first answer, {:.0} ms of processor time, {journal}", millis(percentile(&mut spent, 50)));
    emit(&format!("replay of {jobs} jobs"), millis(percentile(&mut took, 50)), "ms", "lower", Some(2000.0), &note);

    let (mut took, mut spent) = (Vec::new(), Vec::new());
    let mut memory = 0.0_f64;
    Coordinator::start(folder.path()).await?.stop()?;
    let journal = held(folder.path())?;
    for _ in 0..RECOVERIES {
        coordinator = Coordinator::start(folder.path()).await?;
        took.push(coordinator.ready_after);
        spent.push(coordinator.processor_time()?);
        coordinator.expect_jobs(jobs).await?;
        memory = memory.max(coordinator.resident_megabytes()?);
        coordinator.stop()?;
    }
    let note =
        format!("start to first answer, {:.0} ms of processor time, {journal}", millis(percentile(&mut spent, 50)));
    let name = format!("snapshot of {jobs} jobs");
    emit(&name, millis(percentile(&mut took, 50)), "ms", "lower", Some(2000.0), &note);
    emit(&format!("memory with {jobs} jobs, restarted"), memory, "MB", "lower", None, "resident, from the snapshot");
    Ok(())
}

fn report(load: Load, clients: usize, budget: Option<f64>) {
    let Load { took, mut latencies } = load;
    let many = latencies.len();
    let plural = if clients == 1 { "client" } else { "clients" };
    let mut note = format!("{many} jobs with keys, each answered when it is on the disk");
    if budget.is_some() {
        note.push_str("; Slurm's documentation: 500 simple batch jobs/s, which it also runs (quoted, not measured)");
    }
    let rate = many as f64 / took.as_secs_f64();
    emit(&format!("durable submits, {clients} {plural}"), rate, "/s", "higher", budget, &note);
    for percent in [50, 99] {
        let name = format!("submit p{percent}, {clients} {plural}");
        emit(&name, millis(percentile(&mut latencies, percent)), "ms", "lower", None, "as the client sees it");
    }
}

/// What the journal of a coordinator that is gone consists of.
fn held(state: &Path) -> Result<String> {
    let journal = rusqlite::Connection::open(state.join("journal.db")).context("open the journal")?;
    let read = "SELECT (SELECT count(*) FROM turns), (SELECT coalesce(sum(length(events)), 0) FROM turns),
                (SELECT coalesce(sum(length(state)), 0) FROM snapshot)";
    let (turns, events, snapshot): (i64, f64, f64) =
        journal.query_row(read, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).context("read the journal")?;
    ensure!(turns > 0 || snapshot > 0.0, "the journal is empty");
    Ok(format!("{turns} turns of {:.1} MB, snapshot of {:.1} MB", events / 1e6, snapshot / 1e6))
}

fn percentile(sample: &mut [Duration], percent: usize) -> Duration {
    sample.sort_unstable();
    sample[(sample.len() - 1) * percent / 100]
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[expect(clippy::print_stdout, reason = "the records are this program's result")]
fn emit(name: &str, value: f64, unit: &str, better: &str, budget: Option<f64>, note: &str) {
    println!(
        "{}",
        json!({"name": name, "value": value, "unit": unit, "better": better, "budget": budget, "note": note})
    );
}
