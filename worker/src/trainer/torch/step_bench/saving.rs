//! Saving while training, as the trainer does it: a copy beside the next step's passes that is done before its update, then the
//! store's writers in the background.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use tch::Tensor;
use unimse_checkpoint::{
    Attempt, DataCursor, Dtype, Manifest, ManifestKey, ShardWriter, Store, TensorSpec, WriteOptions, commit, manifest,
};
use unimse_collectives::Collective;
use unimse_core::id::{Generation, JobId, Rank, Step};
use unimse_core::time::Timestamp;

use super::{Engine, Options, batches, median};

/// What was found; the same names as `xtask/peers/dcp_save.py` has.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Saved {
    /// Median seconds for which a save holds up training.
    pub blocked: f64,
    /// Median seconds until a save is committed, while training goes on.
    pub durable: f64,
    /// Steps done while a save is written against those of an equally long time alone.
    pub throughput: f64,
    /// Median seconds of a step alone.
    pub step: f64,
    /// Bytes of a save.
    pub bytes: u64,
    /// Most memory the process had, in bytes.
    pub peak_bytes: u64,
}

/// A save that is being made.
struct Saving {
    copied: Receiver<()>,
    durable: Receiver<Result<(u64, Instant), String>>,
}

/// Trains on one batch (see [`super::run`]) for `options.steps` steps alone, then beside `saves` saves into the folder `to`, after a
/// first one that is not counted.
pub fn run_saving(
    folder: &Path,
    options: Options,
    group: Box<dyn Collective>,
    (to, saves): (&Path, u64),
) -> Result<Saved, String> {
    let mut engine = Engine::new(folder, options, group)?;
    let batch = [batches::fixed(folder, (0, 1))?.to_device(engine.device)];
    let counts = (batch[0].targets.numel() as f64, batch[0].targets.size()[0] as f64);
    for _ in 0..options.warm + options.steps {
        engine.step(&batch, counts)?;
    }
    let alone = median(engine.times[options.warm as usize..].iter().map(|times| times[0]).collect());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let (mut blocked, mut durable, mut throughput, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for save in 0..=saves {
        let place = to.join(format!("save-{save}"));
        std::fs::create_dir_all(&place).map_err(|error| error.to_string())?;
        let store = Store::open(place.to_str().ok_or("the folder's name is no text")?, [])
            .map_err(|error| error.to_string())?;
        let began = Instant::now();
        let saving = start(&engine, store, save, runtime.handle());
        let mut held_up = began.elapsed();
        engine.before_update = Some(saving.copied);
        let mut steps = 0_u32;
        let (size, at) = loop {
            engine.step(&batch, counts)?;
            held_up += std::mem::take(&mut engine.held_up);
            steps += 1;
            if let Ok(outcome) = saving.durable.try_recv() {
                break outcome?;
            }
        };
        let whole = began.elapsed();
        std::fs::remove_dir_all(&place).map_err(|error| error.to_string())?;
        if save > 0 {
            blocked.push(held_up);
            durable.push(at - began);
            throughput.push(Duration::from_secs_f64(f64::from(steps) * alone / whole.as_secs_f64()));
            bytes = size;
        }
    }
    Ok(Saved {
        blocked: median(blocked),
        durable: median(durable),
        throughput: median(throughput),
        step: alone,
        bytes,
        peak_bytes: super::peak_bytes(),
    })
}

fn start(engine: &Engine, store: Store, number: u64, runtime: &tokio::runtime::Handle) -> Saving {
    let flat = &engine.flat;
    let state = [("", &flat.parameters), ("moments/average/", &flat.averages), ("moments/square/", &flat.squares)];
    let (specs, tensors): (Vec<TensorSpec>, Vec<Tensor>) = state
        .into_iter()
        .flat_map(|(prefix, whole)| flat.entries.iter().map(move |entry| (prefix, whole, entry)))
        .map(|(prefix, whole, entry)| {
            let shape = entry.shape.iter().map(|&size| size as usize).collect();
            (TensorSpec { name: format!("{prefix}{}", entry.name), dtype: Dtype::F32, shape }, entry.view(whole))
        })
        .unzip();
    let memory = engine.copies.clone();
    let (tell_copied, copied) = channel();
    let (tell_durable, durable) = channel();
    let copying = runtime.spawn_blocking(move || {
        let copies = memory.of(&tensors).map_err(|cause| cause.to_string());
        let _ = tell_copied.send(());
        copies
    });
    runtime.spawn(async move {
        let outcome = match copying.await {
            Ok(Ok(copies)) => write(&store, number, specs, copies).await.map(|bytes| (bytes, Instant::now())),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(error.to_string()),
        };
        let _ = tell_durable.send(outcome);
    });
    Saving { copied, durable }
}

/// Writes and commits; returns the bytes.
async fn write(store: &Store, number: u64, specs: Vec<TensorSpec>, copies: Vec<Bytes>) -> Result<u64, String> {
    let said = |error: unimse_checkpoint::Error| error.to_string();
    let key = ManifestKey { job: JobId(1), step: Step(number), generation: Generation(1) };
    let attempt = key.attempt(Attempt::random());
    let mut parts: std::collections::BTreeMap<String, Bytes> =
        specs.iter().map(|spec| spec.name.clone()).zip(copies).collect();
    let mut writer = ShardWriter::new(store, &attempt, Rank(0), specs, WriteOptions::default()).map_err(said)?;
    let names: Vec<String> = writer.tensors().iter().map(|entry| entry.name.clone()).collect();
    for name in names {
        let part = parts.remove(&name).ok_or("a tensor was not copied")?;
        writer.write(&name, part).await.map_err(said)?;
    }
    let manifest = Manifest {
        version: manifest::VERSION,
        cluster: "bench".to_owned(),
        job: key.job,
        generation: key.generation,
        attempt: attempt.attempt.clone(),
        step: key.step,
        world_size: 1,
        created: Timestamp(0),
        shards: vec![writer.finish().await.map_err(said)?],
        cursor: DataCursor { seed: 0, epoch: 0, index: 0, step: key.step },
        optimiser_step: key.step.0,
        rng: serde_json::Value::Null,
        model: serde_json::Value::Null,
        labels: serde_json::Value::Null,
        tokenizer: None,
        metrics: std::collections::BTreeMap::new(),
        job_spec: serde_json::Value::Null,
    };
    Ok(commit(store, &manifest).await.map_err(said)?.bytes)
}
