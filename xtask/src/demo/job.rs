//! The demo's job, as the command line shows it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::stage::Stage;

/// What the demo reads of `unimse show -o json`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct View {
    pub(crate) state: String,
    pub(crate) reason: String,
    pub(crate) generation: u64,
    pub(crate) step: u64,
    progress: Option<Progress>,
}

#[derive(Debug, Clone, Deserialize)]
struct Progress {
    loss: f64,
    samples_per_second: f64,
}

impl View {
    pub(crate) fn ended(&self) -> bool {
        ["completed", "failed", "cancelled"].contains(&self.state.as_str())
    }
}

/// One line of `unimse metrics -o jsonl`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Point {
    pub(crate) step: u64,
    pub(crate) generation: u64,
    /// Milliseconds since the epoch.
    #[serde(deserialize_with = "milliseconds")]
    pub(crate) at: u64,
}

fn milliseconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
    u64::try_from(time.as_millisecond()).map_err(serde::de::Error::custom)
}

/// Milliseconds since the epoch.
pub(crate) fn now() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?)
}

/// A submitted job.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    stage: &'a Stage,
    pub(crate) id: String,
}

impl<'a> Job<'a> {
    pub(crate) fn submit(stage: &'a Stage, data: &[PathBuf], steps: u64) -> Result<Self> {
        let stores: Vec<String> = data.iter().map(|path| format!("{{path: {}}}", path.display())).collect();
        let stores = stores.join(", ");
        let every = (steps / 6).max(1);
        let text = format!(
            "name: demo\n\
             model: {{preset: tiny}}\n\
             data:\n  train: [{stores}]\n  valid: [{stores}]\n  vocab_size: 2000\n\
             train:\n  max_steps: {steps}\n  global_batch: 32\n  learning_rate: 1e-3\n  schedule: {{type: linear, warmup: 20}}\n  \
             evaluate_every: {every}\n  seed: 42\n\
             resources: {{slots: 2, min_slots: 1}}\n\
             checkpoint: {{every: {every}, keep: {{latest: 2, best: 1}}}}\n\
             log: {{every: 1}}\n"
        );
        let file = stage.path("job.yaml");
        std::fs::write(&file, text)?;
        let file = file.display().to_string();
        stage.unimse(&["validate", &file])?;
        let id = stage.unimse(&["submit", &file, "--key", "demo", "-o", "name"])?.trim().to_owned();
        let again = stage.unimse(&["submit", &file, "--key", "demo", "-o", "name"])?.trim().to_owned();
        ensure!(id == again, "the same key gave two jobs: {id} and {again}");
        Ok(Self { stage, id })
    }

    pub(crate) fn view(&self) -> Result<View> {
        #[derive(Deserialize)]
        struct Shown {
            job: View,
        }
        let text = self.stage.unimse(&["show", &self.id, "-o", "json"])?;
        let shown: Shown =
            serde_json::from_str(&text).with_context(|| format!("cannot read what `unimse show` printed: {text}"))?;
        Ok(shown.job)
    }

    /// Polls until `happened`; a job that ends before has failed the demo.
    pub(crate) fn wait_for(&self, what: &str, patience: Duration, happened: impl Fn(&View) -> bool) -> Result<View> {
        let deadline = Instant::now() + patience;
        loop {
            let view = self.view()?;
            if happened(&view) {
                return Ok(view);
            }
            if view.ended() || Instant::now() > deadline {
                let log = self.stage.unimse(&["logs", &self.id, "--tail", "30"]).unwrap_or_default();
                let shown = self.stage.unimse(&["show", &self.id]).unwrap_or_default();
                bail!(
                    "waited for the moment when the job {what}, but it is {}: {}\n{shown}\n{log}",
                    view.state,
                    view.reason
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn say_progress(&self) -> Result<()> {
        let view = self.view()?;
        if let Some(progress) = view.progress {
            let (loss, speed) = (progress.loss, progress.samples_per_second);
            self.stage.say(&format!("  trains: step {}, loss {loss:.2}, {speed:.0} samples/s", view.step));
        }
        Ok(())
    }

    /// The first training step that a generation completed after a moment.
    pub(crate) fn first_step_of(&self, generation: u64, since: u64) -> Result<Point> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let found = self
                .points()?
                .into_iter()
                .filter(|point| point.generation == generation && point.at >= since)
                .min_by_key(|point| point.at);
            match found {
                Some(point) => return Ok(point),
                None if Instant::now() > deadline => bail!("no step of generation {generation} was reported"),
                None => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    pub(crate) fn check_that_no_step_is_missing(&self, steps: u64) -> Result<()> {
        let seen: BTreeSet<u64> = self.points()?.into_iter().map(|point| point.step).collect();
        let missing: Vec<u64> = (1..=steps).filter(|step| !seen.contains(step)).collect();
        ensure!(missing.is_empty(), "the metrics lack steps {missing:?}");
        self.stage.say(&format!("  the metrics have all {steps} steps, without a gap"));
        Ok(())
    }

    fn points(&self) -> Result<Vec<Point>> {
        let text = self.stage.unimse(&["metrics", &self.id, "train/loss", "-o", "jsonl"])?;
        text.lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("cannot read the metric {line}")))
            .collect()
    }
}
