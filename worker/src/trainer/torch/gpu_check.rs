//! What only a GPU can show: bf16 training steps, and sums over ranks by NCCL.

use std::time::{Duration, Instant};

use serde::Serialize;
use tch::nn::Module;
use tch::{Device, Kind, Tensor, nn};
use unimse_collectives::{Buffer, Collective, local, nccl};
use unimse_core::id::Step;
use unimse_core::spec::{TrainSpec, parse_job};
use unimse_model::{Batch, Inputs, Modality, Preset, UniMse, weights};
use unimse_torch_ext::{autocast, cuda};

use super::super::{Halt, failed, invalid};
use super::flat::Flat;
use super::graphs::{Graphs, Shares};
use super::reducer::{Reducer, Wire, device_buffer};
use super::seeding::seeded;
use super::{device, optimiser};

/// The variable that lets NCCL from 2.30 put several ranks on one GPU.
pub const MULTI_RANK: (&str, &str) = ("NCCL_MULTI_RANK_GPU_ENABLE", "1");

const STEPS: u64 = 20;
const FORM_WITHIN: Duration = Duration::from_mins(1);
const NUMBERS: i64 = 1 << 20;

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Devices that libtorch sees.
    pub devices: u32,
    /// The losses of the first and the last training step.
    pub losses: (f64, f64),
    /// Milliseconds of a step after the first ones.
    pub step_milliseconds: f64,
    /// The same where passes are replayed as CUDA graphs, which end at the same loss.
    pub graph_milliseconds: f64,
    /// Whether NCCL added up over one rank.
    pub nccl: bool,
}

/// Trains a few bf16 steps of a tiny model on GPU 0, without CUDA graphs and with them, and sums over one rank with NCCL; `None` without a
/// GPU, with the reason.
pub fn run() -> Result<Result<Report, String>, String> {
    let found = match cuda::load() {
        Ok(found) => found,
        Err(reason @ cuda::Unavailable::NoDriver) => return Ok(Err(reason.to_string())),
        Err(reason) => return Err(reason.to_string()),
    };
    device::own_stream(0).map_err(|error| error.to_string())?;
    let (first, last, step) = train(Device::Cuda(0), None)?;
    if !(last.is_finite() && last < first) {
        return Err(format!("bf16 training on the GPU does not learn: the loss went from {first} to {last}"));
    }
    let (_, replayed, replaying) = train(Device::Cuda(0), Some(Graphs::new(Device::Cuda(0), 1)))?;
    // Sums on a GPU are not always made in the same order.
    if (replayed - last).abs() > 0.02 * last.abs().max(0.1) {
        return Err(format!("training with CUDA graphs ends at a loss of {replayed}, without at {last}"));
    }
    nccl::available().map_err(|reason| reason.to_string())?;
    sums(1)?;
    let [step_milliseconds, graph_milliseconds] = [step, replaying].map(|time| time.as_secs_f64() * 1e3);
    Ok(Ok(Report { devices: found.devices, losses: (first, last), step_milliseconds, graph_milliseconds, nccl: true }))
}

/// Sums over two ranks that share GPU 0; works with NCCL from 2.30, if [`MULTI_RANK`] was set when the process started.
pub fn two_ranks() -> Result<(), String> {
    cuda::load().map_err(|reason| reason.to_string())?;
    sums(2)
}

fn settings() -> TrainSpec {
    let text = "name: check\nmodel: {preset: tiny}\ndata: {train: [{path: none}]}\ntrain: {max_steps: 20, learning_rate: 1e-3, precision: bf16, schedule: {type: constant, warmup: 0}}";
    parse_job(text, "gpu-check").expect("the text above is a valid job").train
}

/// Learns one made-up batch by heart; returns the first and the last loss, and the time of a step.
fn train(device: Device, mut graphs: Option<Graphs>) -> Result<(f64, f64, Duration), String> {
    let mut config = Preset::Tiny.config();
    config.unimse.acoustic.dims = vec![5];
    config.unimse.visual.dims = vec![20];
    let store = nn::VarStore::new(device);
    let model = seeded(1, || UniMse::new(&store.root(), &config)).map_err(|error| error.to_string())?;
    let mut flat = Flat::new(weights::parameters(&store), device).map_err(|cause| cause.to_string())?;
    let batch = seeded(2, || made_up(config.t5.vocab_size, device));
    let train = settings();
    let shares = Shares::of((batch.targets.numel() as f64, 8.0), device);
    let pass = |batch: &Batch, shares: &Shares| {
        let forward = || model.forward(batch, true);
        let output = autocast::bf16(device.is_cuda(), forward).map_err(failed)?.map_err(invalid)?;
        let loss = model.loss_over(&output, &shares.tokens, &shares.samples);
        loss.backward();
        Ok::<_, Halt>(loss.detach().view([1]))
    };
    let mut losses = Vec::new();
    let mut began = Instant::now();
    for step in 1..=STEPS {
        if step == 6 {
            // The first steps choose kernels and fill caches.
            began = Instant::now();
        }
        flat.clear();
        let one = || {
            if let Some(graphs) = &mut graphs
                && let Some(loss) = graphs.pass(&batch, &shares, pass)?
            {
                return Ok(loss.copy());
            }
            pass(&batch, &shares)
        };
        let loss = seeded(step, one).map_err(|halt| format!("{halt:?}"))?;
        optimiser::update(&mut flat, &train, Step(step), STEPS).map_err(|cause| cause.to_string())?;
        losses.push(loss.double_value(&[]));
    }
    let step = began.elapsed() / (STEPS - 5) as u32;
    if let Some(graphs) = &graphs
        && graphs.replays() + 2 != STEPS
    {
        return Err(format!("{} of {STEPS} steps were replayed", graphs.replays()));
    }
    Ok((losses[0], losses[losses.len() - 1], step))
}

fn made_up(vocabulary: i64, device: Device) -> Batch {
    let ids = |columns| Tensor::randint_low(3, vocabulary, [8, columns], (Kind::Int64, device));
    let features = |frames, width| {
        let lengths = Tensor::full([8], frames, (Kind::Int64, device));
        Modality::uniform(Tensor::randn([8, frames, width], (Kind::Float, device)), lengths)
    };
    let inputs = Inputs {
        input_ids: ids(32),
        attention_mask: Tensor::ones([8, 32], (Kind::Int64, device)),
        acoustic: features(50, 5),
        visual: features(50, 20),
    };
    Batch { inputs, targets: ids(8), answers: None }
}

/// Sums over ranks that are threads of this process, on GPU 0: plainly, and bucket by bucket beside a backward pass.
fn sums(world: u32) -> Result<(), String> {
    let ranks = local::group(world, 1);
    let outcomes: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let rank = |control| scope.spawn(move || sum(Box::new(control), world));
        let threads: Vec<_> = ranks.into_iter().map(rank).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a rank panicked".to_owned())?).collect()
    });
    outcomes.into_iter().collect()
}

fn sum(control: Box<dyn Collective>, world: u32) -> Result<(), String> {
    let fail = |error: unimse_collectives::Error| error.to_string();
    let device = Device::Cuda(0);
    let mut group = nccl::connect(control, 0, FORM_WITHIN).map_err(fail)?;
    let own = f64::from(group.rank() + 1);
    let numbers = Tensor::full([NUMBERS], own, (Kind::Float, device));
    group.all_reduce(Buffer::Device(device_buffer(&numbers))).map_err(fail)?;
    let expected = f64::from(world * (world + 1) / 2);
    let (least, most) = (numbers.min().double_value(&[]), numbers.max().double_value(&[]));
    if (least, most) != (expected, expected) {
        return Err(format!("NCCL's sum over {world} ranks is {least} to {most}, not {expected}"));
    }
    let store = nn::VarStore::new(device);
    let layers: Vec<nn::Linear> =
        (0..8).map(|place| nn::linear(&store.root() / place, 1024, 1024, nn::LinearConfig::default())).collect();
    let flat = Flat::new(weights::parameters(&store), device).map_err(|cause| cause.to_string())?;
    let _ = tch::no_grad(|| flat.parameters.shallow_clone().fill_(1e-3));
    let reducer = Reducer::new(&flat, Wire::F32).map_err(|cause| cause.to_string())?;
    let backward = || {
        let input = Tensor::full([4, 1024], own, (Kind::Float, device));
        let output = layers.iter().fold(input, |x, layer| layer.forward(&x));
        output.sum(Kind::Float).backward();
    };
    backward();
    let alone = flat.gradients.copy();
    let _ = flat.gradients.shallow_clone().zero_();
    let halted = |halt| format!("the overlapped sum failed: {halt:?}");
    if reducer.overlaps(&group) {
        reducer.during(&mut group, backward).map_err(halted)?;
    } else {
        backward();
        reducer.all(&mut group).map_err(halted)?;
    }
    reducer.finish(&mut group).map_err(halted)?;
    let total = flat.gradients.copy();
    group.all_reduce(Buffer::Device(device_buffer(&alone))).map_err(fail)?;
    if !total.allclose(&alone, 1e-4, 1e-4, false) {
        return Err("sums beside the backward pass differ from sums after it".to_owned());
    }
    Ok(())
}
