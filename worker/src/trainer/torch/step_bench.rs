//! The training step alone, on a batch that is given: what a bench compares with another system's step.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use tch::{Device, Kind, Tensor, nn};
use unimse_collectives::local;
use unimse_core::id::Step;
use unimse_core::spec::{TrainSpec, parse_job};
use unimse_model::{Batch, Config, Inputs, Modality, UniMse, weights};

use super::exact::Exact;
use super::flat::Flat;
use super::optimiser;
use super::reducer::Reducer;
use super::seeding::seeded;

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Steps that are timed.
    pub steps: u64,
    /// Steps before them, which choose kernels and fill caches.
    pub warm: u64,
    /// Threads of libtorch.
    pub threads: u32,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The seconds of each timed step.
    pub seconds: Vec<f64>,
    /// Of these the forward pass, the backward pass and the update, in the median.
    pub parts: [f64; 3],
    /// The loss of every step, the untimed ones included.
    pub losses: Vec<f64>,
    /// Most memory the process had, in bytes.
    pub peak_bytes: u64,
}

/// Trains on one batch again and again: `folder` holds a T5 as Hugging Face writes it and `batch.safetensors` with `input_ids`
/// and `attention_mask [B, L]` and `labels [B, T]`, all `Int64`. No dropout, clipping at norm 1, AdamW at a constant rate of 1e-3.
pub fn run(folder: &Path, options: Options) -> Result<Outcome, String> {
    tch::set_num_threads(options.threads as i32);
    let text = std::fs::read_to_string(folder.join("config.json")).map_err(|error| error.to_string())?;
    let mut config = Config::from_json(&text).map_err(|error| error.to_string())?;
    config.t5.dropout_rate = 0.0;
    config.unimse.fusion.layers = 0;
    let store = nn::VarStore::new(Device::Cpu);
    let model = seeded(1, || UniMse::new(&store.root(), &config)).map_err(|error| error.to_string())?;
    weights::initialise_from_t5(&store, &config, folder).map_err(|error| error.to_string())?;
    let batch = batch_of(folder)?;
    let mut flat = Flat::new(weights::parameters(&store), Device::Cpu).map_err(|cause| cause.to_string())?;
    let reducer = Reducer::new(&flat).map_err(|cause| cause.to_string())?;
    let mut group = local::group(1, 0).remove(0);
    let mut exact = Exact::of(&flat, reducer.buckets(), 1);
    let train = settings();
    let (tokens, samples) = (batch.targets.numel() as f64, batch.targets.size()[0] as f64);
    let mut outcome = Outcome { seconds: Vec::new(), parts: [0.0; 3], losses: Vec::new(), peak_bytes: 0 };
    let mut parts = [const { Vec::new() }; 3];
    for step in 1..=options.warm + options.steps {
        let began = Instant::now();
        let _ = flat.gradients.zero_();
        let output = model.forward(&batch, true).map_err(|error| error.to_string())?;
        let loss = model.loss(&output, tokens, samples);
        drop(output);
        let forward = began.elapsed();
        loss.backward();
        if let Some(exact) = &mut exact {
            exact.reduce(&mut flat.gradients, &mut group).map_err(|halt| format!("{halt:?}"))?;
        }
        let backward = began.elapsed();
        optimiser::update(&mut flat, &train, Step(step), u64::MAX).map_err(|cause| cause.to_string())?;
        outcome.losses.push(loss.double_value(&[]));
        let whole = began.elapsed();
        if step > options.warm {
            outcome.seconds.push(whole.as_secs_f64());
            for (part, time) in
                parts.iter_mut().zip([forward, backward.saturating_sub(forward), whole.saturating_sub(backward)])
            {
                part.push(time);
            }
        }
    }
    outcome.parts = parts.map(median);
    outcome.peak_bytes = peak_bytes();
    Ok(outcome)
}

fn batch_of(folder: &Path) -> Result<Batch, String> {
    let tensors = Tensor::read_safetensors(folder.join("batch.safetensors")).map_err(|error| error.to_string())?;
    let get = |name: &str| {
        let found = tensors.iter().find(|(known, _)| known == name);
        found.map(|(_, tensor)| tensor.shallow_clone()).ok_or_else(|| format!("the batch has no `{name}`"))
    };
    let none = || Modality { parts: Vec::new() };
    let (input_ids, attention_mask) = (get("input_ids")?, get("attention_mask")?);
    let inputs = Inputs { input_ids, attention_mask, acoustic: none(), visual: none() };
    Ok(Batch { inputs, targets: get("labels")?.to_kind(Kind::Int64), answers: None })
}

fn settings() -> TrainSpec {
    let text = "name: bench\nmodel: {preset: tiny}\ndata: {train: [{path: none}]}\ntrain: {max_steps: 20, learning_rate: 1e-3, clip: 1.0, weight_decay: 0.01, schedule: {type: constant, warmup: 0}}";
    parse_job(text, "bench").expect("the text above is a valid job").train
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, Duration::as_secs_f64)
}

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}
