//! The training step alone, on batches that are given: what a bench compares with another system's step.

mod batches;
mod saving;

use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use serde::Serialize;
use tch::{Device, Tensor, nn};
use unimse_collectives::Collective;
use unimse_core::id::Step;
use unimse_core::spec::{Precision, SyncSpec, TrainSpec, parse_job};
use unimse_model::{Batch, Config, UniMse, flops, weights};
use unimse_torch_ext::{autocast, cuda};

pub use saving::{Saved, run_saving};

use super::super::{Halt, failed, invalid};
use super::copies::Copies;
use super::exact::Exact;
use super::flat::Flat;
use super::graphs::{Graphs, Shares};
use super::powersgd::PowerSgd;
use super::published;
use super::reducer::{Reducer, Wire};
use super::rounds::Rounds;
use super::seeding::seeded;
use super::{device, optimiser};

/// What to measure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Steps that are timed.
    pub steps: u64,
    /// Steps before them, which choose kernels and fill caches.
    pub warm: u64,
    /// Threads of libtorch.
    pub threads: u32,
    /// On the first GPU rather than the CPU.
    pub cuda: bool,
    /// Forward passes under autocast.
    pub bf16: bool,
    /// Record passes as CUDA graphs and replay them.
    pub graphs: bool,
    /// How the ranks agree.
    pub sync: SyncSpec,
    /// Take the samples of this rank of so many, though the group has none but this one.
    pub part: Option<(u32, u32)>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// The seconds of each timed step.
    pub seconds: Vec<f64>,
    /// Of these the forward pass, the backward pass and the update, in the median.
    pub parts: [f64; 3],
    /// Communication that the backward pass did not hide, in the median.
    pub exposed: f64,
    /// The share of all time in which this rank did not wait for others.
    pub hidden: f64,
    /// The loss of every step over all ranks, the untimed ones included.
    pub losses: Vec<f64>,
    /// Most memory the process had, in bytes; on a GPU that of the GPU.
    pub peak_bytes: u64,
    /// Bytes of gradients, or of what stands for them, that this rank gave to sums, over all steps.
    pub sent_bytes: u64,
    /// Parameters that learn.
    pub learning: usize,
    /// Floating-point operations of a step's matrix products on this rank, where all parameters learn; else 0.
    pub flops: f64,
}

/// Trains on one batch again and again: `folder` holds a T5 as Hugging Face writes it and `batch.safetensors` with `input_ids`
/// and `attention_mask [B, L]` and `labels [B, T]`, all `Int64`; a `frozen.json` with `last_blocks` freezes all but that many blocks
/// of each stack. No dropout, clipping at norm 1, AdamW at a constant rate of 1e-3. Each rank of the group takes its share of
/// the rows.
pub fn run(folder: &Path, options: Options, group: Box<dyn Collective>) -> Result<Outcome, String> {
    let mut engine = Engine::new(folder, options, group)?;
    let batch = batches::fixed(folder, (engine.group.rank(), engine.group.world_size()))?.to_device(engine.device);
    let counts = (
        batch.targets.numel() as f64 * f64::from(engine.group.world_size()),
        batch.targets.size()[0] as f64 * f64::from(engine.group.world_size()),
    );
    for _ in 0..options.warm + options.steps {
        engine.step(std::slice::from_ref(&batch), counts)?;
    }
    let all = engine.flat.entries.len() == weights::parameters(&engine.store).len();
    let (rows, input, target) =
        (batch.targets.size()[0], batch.inputs.input_ids.size()[1] as usize, batch.targets.size()[1] as usize);
    let forward = flops::forward(engine.model.config(), (0..rows).map(|_| (input, target)));
    let flops = if all { flops::training(forward, 1.0) } else { 0.0 };
    Ok(Outcome { flops, ..engine.outcome(options.warm) })
}

/// Floating-point operations a second of large matrix products on this machine: what no step can pass.
pub fn product_speed(threads: u32) -> f64 {
    tch::set_num_threads(threads as i32);
    let size = 1024;
    let [a, b] = [1, 2].map(|seed| seeded(seed, || Tensor::randn([size, size], (tch::Kind::Float, Device::Cpu))));
    let times = (0..12).map(|_| {
        let began = Instant::now();
        let _ = a.matmul(&b);
        began.elapsed()
    });
    2.0 * (size as f64).powi(3) / times.min().map_or(f64::NAN, |time| time.as_secs_f64())
}

/// Trains on batches of the lengths that real data have, of all modalities: `folder` holds a UniMSE and `batches.json`. As the trainer
/// does, samples of a batch are put in order of their length before they are cut into micro-shards of `micro` samples.
pub fn run_lengths(
    folder: &Path,
    options: Options,
    micro: usize,
    group: Box<dyn Collective>,
) -> Result<Outcome, String> {
    let mut engine = Engine::new(folder, options, group)?;
    let (rank, world) = options.part.unwrap_or_else(|| (engine.group.rank(), engine.group.world_size()));
    let (rank, world) = (rank as usize, world as usize);
    for samples in batches::steps(folder)? {
        let began = Instant::now();
        let (shards, counts) = batches::shards(samples, micro);
        // To and fro, as `core::shard` deals them out.
        let turn =
            |index: usize| if (index / world).is_multiple_of(2) { index % world } else { world - 1 - index % world };
        let own = shards.into_iter().enumerate().filter(|(index, _)| turn(*index) == rank).map(|(_, shard)| shard);
        let shards: Vec<Batch> = own.map(|shard| shard.to_device(engine.device)).collect();
        engine.cut = began.elapsed();
        engine.step(&shards, counts)?;
    }
    Ok(engine.outcome(options.warm))
}

/// A model in training.
struct Engine {
    model: UniMse,
    flat: Flat,
    reducer: Reducer,
    exact: Option<Exact>,
    rounds: Option<Rounds>,
    powersgd: Option<PowerSgd>,
    graphs: Option<Graphs>,
    group: Box<dyn Collective>,
    device: Device,
    bf16: bool,
    train: TrainSpec,
    sent: u64,
    /// The time that cutting the next step's batch took.
    cut: Duration,
    times: Vec<[Duration; 4]>,
    exposed: Vec<Duration>,
    losses: Vec<f64>,
    /// Says that a save has copied what the next update changes.
    before_update: Option<Receiver<()>>,
    copies: Copies,
    /// How long updates have waited for that.
    held_up: Duration,
    store: nn::VarStore,
}

impl Engine {
    fn new(folder: &Path, options: Options, group: Box<dyn Collective>) -> Result<Self, String> {
        tch::set_num_threads(options.threads as i32);
        if options.cuda {
            cuda::load().map_err(|reason| reason.to_string())?;
            device::own_stream(0).map_err(|error| error.to_string())?;
        }
        let device = if options.cuda { Device::Cuda(0) } else { Device::Cpu };
        let text = std::fs::read_to_string(folder.join("config.json")).map_err(|error| error.to_string())?;
        let mut config = Config::from_json(&text).map_err(|error| error.to_string())?;
        config.t5.dropout_rate = 0.0;
        let whole = folder.join("batches.json").is_file();
        if !whole {
            config.unimse.fusion.layers = 0;
        }
        let store = nn::VarStore::new(device);
        let model = seeded(1, || UniMse::new(&store.root(), &config)).map_err(|error| error.to_string())?;
        if whole {
            batches::load(&store, folder)?;
        } else {
            let files = published::open(folder)?;
            weights::initialise_from_t5(&store, &config, files.weights).map_err(|error| error.to_string())?;
        }
        let learning = batches::learning(weights::parameters(&store), folder, &config)?;
        let flat = Flat::new(learning, device).map_err(|cause| cause.to_string())?;
        let sync = options.sync;
        let reducer = Reducer::new(&flat, Wire::of(sync.precision)).map_err(|cause| cause.to_string())?;
        let exact = Exact::of(&flat, reducer.buckets(), u64::from(group.world_size()));
        let exact = exact.filter(|_| sync == SyncSpec::default());
        let (rounds, powersgd) = (Rounds::of(&flat, &sync), PowerSgd::of(&flat, &sync, 1));
        Ok(Self {
            model,
            flat,
            reducer,
            exact,
            rounds,
            powersgd,
            graphs: options.graphs.then(|| Graphs::new(device, 1)),
            sent: 0,
            group,
            device,
            bf16: options.bf16,
            train: TrainSpec { sync, ..settings(options.bf16) },
            cut: Duration::ZERO,
            times: Vec::new(),
            exposed: Vec::new(),
            losses: Vec::new(),
            before_update: None,
            copies: Copies::default(),
            held_up: Duration::ZERO,
            store,
        })
    }

    /// One step on the micro-shards of this rank; `tokens` and `samples` count the global batch.
    fn step(&mut self, shards: &[Batch], (tokens, samples): (f64, f64)) -> Result<(), String> {
        let began = Instant::now();
        let halted = |halt| format!("{halt:?}");
        self.flat.clear();
        if let Some(exact) = &mut self.exact {
            exact.clear();
        }
        let group = self.group.as_mut();
        let usual = self.rounds.is_none() && self.powersgd.is_none();
        let overlaps = usual && self.reducer.overlaps(group);
        let shares = Shares::of((tokens, samples), self.device);
        let (mut forward, mut exposed, mut total) = (Duration::ZERO, Duration::ZERO, Vec::new());
        for (place, batch) in shards.iter().enumerate() {
            if let Some(exact) = self.exact.as_mut().filter(|_| place > 0) {
                exact.set_aside(&mut self.flat.gradients);
            }
            let summed = overlaps && place + 1 == shards.len();
            let began = Instant::now();
            let model = &self.model;
            let pass = |batch: &Batch, shares: &Shares| {
                let pass = || {
                    model.forward(batch, true).map(|output| model.loss_over(&output, &shares.tokens, &shares.samples))
                };
                let loss = if self.bf16 { autocast::bf16(self.device.is_cuda(), pass) } else { Ok(pass()) };
                Ok::<_, Halt>(loss.map_err(failed)?.map_err(invalid)?)
            };
            if let Some(graphs) = self.graphs.as_mut().filter(|_| !summed) {
                let whole = |batch: &Batch, shares: &Shares| {
                    let loss = pass(batch, shares)?;
                    loss.backward();
                    Ok(loss.detach().view([1]))
                };
                if let Some(loss) = graphs.pass(batch, &shares, whole).map_err(halted)? {
                    total.push(loss.copy().squeeze());
                    continue;
                }
            }
            let loss = pass(batch, &shares).map_err(halted)?;
            forward += began.elapsed();
            if summed {
                exposed = self.reducer.during(group, || loss.backward()).map_err(halted)?;
            } else {
                loss.backward();
            }
            total.push(loss.detach());
        }
        let reducing = Instant::now();
        let step = Step(self.losses.len() as u64 + 1);
        if usual && group.world_size() > 1 {
            self.sent += self.reducer.bytes();
        }
        match &mut self.exact {
            Some(exact) => exact.reduce(&mut self.flat.gradients, group).map_err(halted)?,
            None if self.rounds.is_some() => {
                let _ = self.flat.gradients.g_mul_scalar_(f64::from(group.world_size()));
            }
            None if self.powersgd.is_some() => {
                let powersgd = self.powersgd.as_mut().expect("the line above");
                self.sent += powersgd.reduce(&mut self.flat.gradients, step, false, group).map_err(halted)?;
            }
            None if overlaps => self.reducer.finish(group).map_err(halted)?,
            None => {
                self.reducer.all(group).map_err(halted)?;
                self.reducer.finish(group).map_err(halted)?;
            }
        }
        if group.world_size() > 1 {
            exposed += reducing.elapsed();
        }
        let mut loss = [Tensor::stack(&total, 0).sum(tch::Kind::Float).double_value(&[]) as f32];
        group.all_reduce(loss.as_mut_slice().into()).map_err(|error| error.to_string())?;
        let backward = began.elapsed().saturating_sub(forward);
        if let Some(rounds) = &mut self.rounds {
            rounds.leave(&mut self.flat);
        }
        if let Some(copied) = self.before_update.take() {
            let waiting = Instant::now();
            copied.recv().map_err(|_| "the copy of a save ended")?;
            self.held_up += waiting.elapsed();
        }
        optimiser::update(&mut self.flat, &self.train, step, u64::MAX).map_err(|cause| cause.to_string())?;
        let agreeing = Instant::now();
        if let Some(rounds) = &mut self.rounds
            && self.train.sync.agrees_after(step, u64::MAX)
        {
            self.sent += rounds.agree(&mut self.flat, group).map_err(halted)?;
            exposed += agreeing.elapsed();
        }
        self.losses.push(f64::from(loss[0]));
        let whole = began.elapsed();
        let update = whole.saturating_sub(forward + backward);
        self.times.push([whole + std::mem::take(&mut self.cut), forward, backward, update]);
        self.exposed.push(exposed);
        Ok(())
    }

    fn outcome(self, warm: u64) -> Outcome {
        let timed = &self.times[(warm as usize).min(self.times.len())..];
        let part = |part: usize| median(timed.iter().map(|times| times[part]).collect());
        Outcome {
            seconds: timed.iter().map(|times| times[0].as_secs_f64()).collect(),
            parts: [part(1), part(2), part(3)],
            exposed: median(self.exposed[(warm as usize).min(self.exposed.len())..].to_vec()),
            hidden: 1.0 - seconds(&self.exposed) / self.times.iter().map(|times| times[0].as_secs_f64()).sum::<f64>(),
            losses: self.losses,
            peak_bytes: match self.device {
                Device::Cuda(index) => cuda::peak_memory(index as u32).unwrap_or(0),
                _ => peak_bytes(),
            },
            sent_bytes: self.sent,
            learning: self.flat.entries.iter().map(|entry| entry.len).sum(),
            flops: 0.0,
        }
    }
}

fn settings(bf16: bool) -> TrainSpec {
    let text = "name: bench\nmodel: {preset: tiny}\ndata: {train: [{path: none}]}\ntrain: {max_steps: 20, learning_rate: 1e-3, clip: 1.0, weight_decay: 0.01, schedule: {type: constant, warmup: 0}}";
    let mut train = parse_job(text, "bench").expect("the text above is a valid job").train;
    if bf16 {
        train.precision = Precision::Bf16;
    }
    train
}

fn seconds(times: &[Duration]) -> f64 {
    times.iter().map(Duration::as_secs_f64).sum()
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
