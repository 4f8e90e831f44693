//! `cargo xtask demo`: the main job from end to end, with real processes that are really killed.
//!
//! It fails loudly when anything that it promises did not happen; what it prints is measured while it runs.

mod cluster;
mod job;
mod stage;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use cluster::Cluster;
use job::{Job, View};
use stage::Stage;

/// What a person can choose.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Folder with real data (`mosi_utterance.pkl`, `meld_train_sent_emo.csv`, `meld_dev_sent_emo.csv`); without it, made-up data
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Optimiser steps of the job
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Leave the demo's folder in place
    #[arg(long)]
    keep: bool,
}

const SPOKEN: [&str; 3] = [
    "this movie was absolutely wonderful and i loved every minute of it",
    "what a terrible waste of time it was so boring and sad",
    "they went to the store and then they came back home",
];
/// In the words that the synthetic datasets know; none of these sentences is in them.
const SYNTHETIC: [&str; 3] = [
    "honestly the music is superb and the cast is brilliant",
    "so the script turned out dreadful",
    "please hide, i am scared, we are in danger",
];

/// Runs the demo with programs that are already built in `programs`.
pub(crate) fn run(programs: &Path, scratch: &Path, options: &Options) -> Result<()> {
    let began = Instant::now();
    let stage = Stage::new(programs, scratch, options.keep)?;
    let data = import(&stage, options.data.as_deref())?;

    stage.say("starts a coordinator and two workers with one slot each");
    let mut cluster = Cluster::start(&stage)?;
    // Real data needs longer to learn from than data that were made to be learned.
    let steps = options.steps.unwrap_or_else(|| if options.data.is_some() { 1200 } else { 400 });
    let job = Job::submit(&stage, &data, steps)?;
    stage.say(&format!("submitted {} (two ranks, {steps} steps): {}", job.id, stage.path("job.yaml").display()));
    job.wait_for("trains", Duration::from_mins(2), |view| view.state == "running" && view.step >= 5)?;
    job.say_progress()?;

    kill_a_trainer(&stage, &cluster, &job, steps)?;
    restart_the_coordinator(&stage, &mut cluster, &job)?;

    let view = job.wait_for("ends", Duration::from_mins(30), View::ended)?;
    ensure!(view.state == "completed", "the job ended as {}: {}", view.state, view.reason);
    stage.say(&format!("completed at step {} in generation {}", view.step, view.generation));
    job.check_that_no_step_is_missing(steps)?;
    results(&stage, &job, &data, if options.data.is_some() { &SPOKEN } else { &SYNTHETIC })?;
    cluster.stop()?;
    stage.done(began);
    Ok(())
}

/// Imports real data, or makes some; gives the stores.
fn import(stage: &Stage, folder: Option<&Path>) -> Result<Vec<PathBuf>> {
    let Some(folder) = folder else {
        stage.say("makes two small datasets (sentiment and emotion) whose text, sound and vision carry the label");
        stage.unimse(&["data", "sample", "--out", stage.str("data")])?;
        let mut stores: Vec<PathBuf> = std::fs::read_dir(stage.path("data"))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|end| end == "arrow"))
            .collect();
        stores.sort();
        ensure!(stores.len() == 2, "`unimse data sample` made {} stores, expected 2", stores.len());
        return Ok(stores);
    };
    stage.say(&format!("imports MOSI and MELD from {}", folder.display()));
    std::fs::create_dir_all(stage.path("data"))?;
    let find = |name: &str| {
        let path = folder.join(name);
        if path.is_file() { Ok(path) } else { bail!("{} is not there", path.display()) }
    };
    let (mosi, meld) = (stage.path("data/mosi.arrow"), stage.path("data/meld.arrow"));
    let train = format!("train={}", find("meld_train_sent_emo.csv")?.display());
    let valid = format!("valid={}", find("meld_dev_sent_emo.csv")?.display());
    let pickle = find("mosi_utterance.pkl")?;
    let text = |path: &Path| path.to_str().map(ToOwned::to_owned).context("a path that is not UTF-8");
    stage.unimse(&["data", "import", "--format", "mmsa", &text(&pickle)?, "--out", &text(&mosi)?])?;
    // A tiny model that begins from nothing reads the utterance alone: its neighbours' words are five times the work, and it takes
    // too long to learn that they are not what is asked for.
    let alone = ["--past", "0", "--future", "0"];
    let import = ["data", "import", "--format", "meld", &train, &valid, "--out", &text(&meld)?];
    stage.unimse(&[&import[..], &alone].concat())?;
    Ok(vec![mosi, meld])
}

/// SIGKILL to one rank half-way: the other keeps its state, and the job goes on within seconds.
///
/// A few steps after the middle, where a validation is due that would count as part of the recovery.
fn kill_a_trainer(stage: &Stage, cluster: &Cluster, job: &Job, steps: u64) -> Result<()> {
    let middle = steps / 2 + (steps / 20).min(5);
    let before =
        job.wait_for("is half-way", Duration::from_mins(20), |view| view.step >= middle && view.state == "running")?;
    let victim = cluster.trainers(1)?;
    let survivor = cluster.trainers(0)?;
    ensure!(
        victim.len() == 1 && survivor.len() == 1,
        "expected one trainer a worker, found {victim:?} and {survivor:?}"
    );
    stage.say(&format!("kills the trainer of worker demo-b (SIGKILL, process {}) at step {}", victim[0], before.step));
    let killed = job::now()?;
    cluster::kill(victim[0])?;
    let after = job.wait_for("recovers", Duration::from_mins(1), |view| {
        view.generation > before.generation && view.state == "running" && view.step > before.step
    })?;
    ensure!(cluster.trainers(0)? == survivor, "the surviving trainer was restarted, but it should have kept its state");
    let step = job.first_step_of(after.generation, killed)?;
    let seconds = (step.at.saturating_sub(killed)) as f64 / 1000.0;
    stage.say(&format!(
        "  generation {} completed step {} after {seconds:.1} s; the survivor kept its process",
        after.generation, step.step
    ));
    Ok(())
}

/// SIGKILL to the coordinator: training goes on without it, and nothing is lost.
fn restart_the_coordinator(stage: &Stage, cluster: &mut Cluster, job: &Job) -> Result<()> {
    let before = job.view()?;
    let trainers = (cluster.trainers(0)?, cluster.trainers(1)?);
    stage.say(&format!("kills the coordinator (SIGKILL) at step {} and leaves it away for 3 s", before.step));
    cluster.kill_coordinator()?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(trainers == (cluster.trainers(0)?, cluster.trainers(1)?), "a trainer ended while the coordinator was away");
    cluster.start_coordinator()?;
    let after =
        job.wait_for("is seen again", Duration::from_mins(1), |view| view.step > before.step || view.ended())?;
    ensure!(after.generation == before.generation, "the restart of the coordinator cost a generation");
    stage.say(&format!(
        "  started again: step {}, still generation {}, the same trainers",
        after.step, after.generation
    ));
    Ok(())
}

/// Metrics, checkpoints, and predictions of the best one.
fn results(stage: &Stage, job: &Job, data: &[PathBuf], sentences: &[&str]) -> Result<()> {
    stage.say("checkpoints (the manifest is the commit; every byte is hashed)");
    stage.show(&["ckpt", "ls", &job.id])?;
    let best = format!("{}:best", job.id);
    stage.unimse(&["ckpt", "verify", &best])?;
    stage.unimse(&["ckpt", "pull", &best, stage.str("best")])?;
    stage.say("validation metrics of the best checkpoint");
    let stores: Vec<String> = data.iter().map(|path| path.display().to_string()).collect();
    let mut evaluate = vec!["evaluate", stage.str("best")];
    evaluate.extend(stores.iter().map(String::as_str));
    evaluate.extend(["--split", "valid"]);
    stage.show(&evaluate)?;
    stage.say("predictions of the pulled checkpoint");
    let mut predict = vec!["predict".to_owned(), stage.str("best").to_owned()];
    predict.extend(sentences.iter().map(|sentence| format!("--text={sentence}")));
    let printed = stage.show(&predict.iter().map(String::as_str).collect::<Vec<_>>())?;
    let predicted = |sentence: &&str| printed.lines().any(|line| line.ends_with(*sentence));
    ensure!(sentences.iter().all(predicted), "expected a prediction for each of the {} sentences", sentences.len());
    Ok(())
}
