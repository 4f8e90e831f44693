//! The replica: model, optimiser and data of one rank.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tch::{Device, Kind, Tensor, nn};
use unimse_checkpoint::{Dtype, Manifest, Tensor as StoredTensor, TensorSpec, Tokenizer};
use unimse_collectives::{Buffer, Collective, nccl};
use unimse_core::id::{Generation, Rank, Step};
use unimse_core::job::ExitCause;
use unimse_core::shard::{Batch, DataOrder};
use unimse_core::spec::Precision;
use unimse_model::{Config, Output, UniMse, weights};
use unimse_torch_ext::{autocast, view};

use super::super::{Description, Halt, Replica, Sums, Surroundings, Update, failed, invalid};
use super::description::{config_of, describe, init_folder, understand};
use super::exact::Exact;
use super::feed::{Feed, Shard};
use super::flat::Flat;
use super::material::Material;
use super::reducer::{Reducer, device_buffer};
use super::{device, evaluation, negatives, optimiser, seeding, tensors, tuning};
use crate::protocol::Begin;

/// What the tensors of a checkpoint are called, for each of the flat tensors of the state.
const PREFIXES: [&str; 3] = ["", "optimizer.exp_avg.", "optimizer.exp_avg_sq."];

/// How long NCCL may take to connect the ranks' GPUs.
const FORM_WITHIN: Duration = Duration::from_mins(2);

/// A rank that trains.
#[derive(Debug)]
pub(super) struct TorchReplica {
    begin: Begin,
    device: Device,
    material: Arc<Material>,
    order: DataOrder,
    feed: Feed,
    model: Model,
    /// The gradients of this step were added up while they were computed.
    reduced: bool,
}

/// A model whose parameters lie in a flat tensor.
#[derive(Debug)]
struct Model {
    unimse: UniMse,
    /// What learns.
    flat: Flat,
    /// What does not.
    frozen: tuning::Named,
    reducer: Reducer,
    /// Adds up the gradients where it can; the reducer does elsewhere.
    exact: Option<Exact>,
    /// Nothing has changed since it was made from the job's seed.
    fresh: bool,
}

/// Makes the replica for a job: opens its data and builds its model.
pub fn make(begin: &Begin, surroundings: &Surroundings) -> Result<Box<dyn Replica>, ExitCause> {
    let began = Instant::now();
    let spec = &begin.spec;
    let device = device::prepare(&begin.slot)?;
    let material = Arc::new(Material::open(spec, surroundings)?);
    let read = began.elapsed();
    let config = config_of(spec, &material)?;
    let train = &spec.train;
    let order = DataOrder::new(train.seed, material.train.len() as u64, train.global_batch, train.micro_batch)
        .map_err(invalid)?;
    let model = Model::new(begin, &config, device)?;
    tracing::info!(
        device = ?device,
        samples = material.train.len(),
        learning = model.flat.entries.iter().map(|entry| entry.len).sum::<usize>(),
        frozen = model.frozen.iter().map(|(_, tensor)| tensor.numel()).sum::<usize>(),
        data_milliseconds = read.as_millis() as u64,
        milliseconds = began.elapsed().as_millis() as u64,
        "model and data are there"
    );
    let feed = Feed::new(Arc::clone(&material), order);
    Ok(Box::new(TorchReplica { begin: begin.clone(), device, material, order, feed, model, reduced: false }))
}

impl Model {
    fn new(begin: &Begin, config: &Config, device: Device) -> Result<Self, ExitCause> {
        let store = nn::VarStore::new(device);
        let unimse = seeding::seeded(begin.spec.train.seed, || UniMse::new(&store.root(), config)).map_err(invalid)?;
        if let Some(folder) = init_folder(&begin.spec) {
            let report = weights::initialise_from_t5(&store, config, &folder).map_err(invalid)?;
            tracing::info!(own = report.missing.len(), folder = %folder.display(), "pretrained weights loaded");
        }
        let (learning, frozen) = tuning::split(weights::parameters(&store), begin.spec.model.trainable, config)?;
        let flat = Flat::new(learning, device)?;
        let reducer = Reducer::new(&flat)?;
        let train = &begin.spec.train;
        let shards = u64::from(train.global_batch.div_ceil(train.micro_batch));
        let exact = Exact::of(&flat, reducer.buckets(), shards);
        Ok(Self { unimse, flat, frozen, reducer, exact, fresh: true })
    }
}

impl TorchReplica {
    /// Computes one micro-shard and adds its gradients; returns the parts of the loss as a tensor of four numbers.
    fn micro_shard(
        &self,
        step: Step,
        shard: &Shard,
        (tokens, samples): (f64, f64),
        against: Option<&negatives::Part>,
        backward: impl FnOnce(&Tensor) -> Result<(), Halt>,
    ) -> Result<(Tensor, Duration, Duration), Halt> {
        let began = Instant::now();
        let model = &self.model.unimse;
        let labels = if model.heads().is_some() { shard.labels.as_slice() } else { &[] };
        let batch = tensors::batch(&shard.arrays, &shard.targets, labels, self.device);
        let losses = self.drawn(step, shard, || {
            model.forward(&batch, true).map(|output| self.losses(shard, output, (tokens, samples), against))
        });
        let Losses { objective, parts } = losses?;
        let forwarded = began.elapsed();
        backward(&objective)?;
        let parts = parts.map(|part| part.detach().to_kind(Kind::Float));
        Ok((Tensor::stack(&parts, 0), forwarded, began.elapsed().saturating_sub(forwarded)))
    }

    /// Runs a pass over a micro-shard with its own dropout and the job's precision.
    fn drawn<T>(
        &self,
        step: Step,
        shard: &Shard,
        pass: impl FnOnce() -> Result<T, unimse_model::Error>,
    ) -> Result<T, Halt> {
        let train = &self.begin.spec.train;
        let seed = seeding::of_micro_shard(train.seed, step, shard.index);
        let result = seeding::seeded(seed, || match train.precision {
            Precision::Fp32 => Ok(pass()),
            Precision::Bf16 => autocast::bf16(self.device.is_cuda(), pass),
        });
        Ok(result.map_err(failed)?.map_err(invalid)?)
    }

    /// The losses that a micro-shard adds to the step.
    fn losses(
        &self,
        shard: &Shard,
        output: Output,
        (tokens, samples): (f64, f64),
        against: Option<&negatives::Part>,
    ) -> Losses {
        let Output { ce_sum, nll, heads, views, contrastive_acoustic_sum, contrastive_visual_sum, .. } = output;
        let (ce, heads) = if self.material.weights.iter().all(|weight| *weight == 1.0) {
            (ce_sum, heads.sum(Kind::Float))
        } else {
            let weights: Vec<f32> = shard.samples.iter().map(|&sample| self.material.weight(sample) as f32).collect();
            let weights = Tensor::from_slice(&weights).to_device(self.device);
            ((nll * &weights).sum(Kind::Float), (heads * weights).sum(Kind::Float))
        };
        let (ce, heads) = (ce / tokens, heads / samples);
        let weights = &self.model.unimse.config().unimse.contrastive;
        let weighted =
            |acoustic: &Tensor, visual: &Tensor| (acoustic * weights.acoustic + visual * weights.visual) / samples;
        let (acoustic, visual, contrastive) = match against.zip(views) {
            None => {
                let (acoustic, visual) = (contrastive_acoustic_sum, contrastive_visual_sum);
                let contrastive = weighted(&acoustic, &visual);
                (acoustic, visual, contrastive)
            }
            Some((part, views)) => {
                let [acoustic, visual] = part.sums.each_ref().map(|sum| sum.to_device(self.device));
                (acoustic, visual, part.objective(&views) / samples)
            }
        };
        let loss = &ce + &heads + weighted(&acoustic, &visual);
        Losses { objective: &ce + heads + contrastive, parts: [loss, ce, acoustic / samples, visual / samples] }
    }

    /// What the micro-shards need of the whole batch, in their order; nothing where their negatives are their own.
    fn negatives(
        &self,
        step: Step,
        shards: &[Shard],
        group: &mut dyn Collective,
    ) -> Result<Option<Vec<negatives::Part>>, Halt> {
        let spec = &self.begin.spec;
        let weights = &self.model.unimse.config().unimse.contrastive;
        if !spec.model.contrastive.global || !self.model.unimse.is_contrastive() {
            return Ok(None);
        }
        let mut own = Vec::with_capacity(shards.len());
        for shard in shards {
            let inputs = tensors::inputs(&shard.arrays, self.device);
            let pass = || {
                tch::no_grad(|| {
                    let encoded = self.model.unimse.encode(&inputs, true)?;
                    Ok(self.model.unimse.views(&encoded, &inputs))
                })
            };
            let first = u64::from(shard.index) * u64::from(spec.train.micro_batch);
            own.extend(self.drawn(step, shard, pass)?.map(|views| (first, views)));
        }
        negatives::exchange(&own, [weights.acoustic, weights.visual], weights.temperature, group).map(Some)
    }

    fn expect(name: &str, tensor: &StoredTensor, shape: &[i64]) -> Result<Tensor, ExitCause> {
        let found: Vec<i64> = tensor.shape.iter().map(|&size| size as i64).collect();
        if tensor.dtype != Dtype::F32 || found != shape {
            return Err(invalid(format!(
                "tensor `{name}` of the checkpoint is {:?} {found:?}, the model needs F32 {shape:?}; hint: resume with the \
                 `model` section that the checkpoint was made with",
                tensor.dtype
            )));
        }
        Tensor::f_from_data_size(&tensor.data, shape, Kind::Float).map_err(failed)
    }
}

fn missing(name: &str) -> ExitCause {
    invalid(format!(
        "the checkpoint has no tensor `{name}`; hint: resume with the `model.trainable` and `model.lora` that it was made with"
    ))
}

/// What backward starts from, and what is reported: the loss, its cross-entropy, and both contrastive losses.
struct Losses {
    objective: Tensor,
    parts: [Tensor; 4],
}

impl Replica for TorchReplica {
    fn order(&self) -> DataOrder {
        self.order
    }

    fn description(&self) -> Description {
        describe(self.model.unimse.config(), &self.material)
    }

    fn adopt(&mut self, description: &Description) -> Result<(), ExitCause> {
        let own = self.description();
        if (&own.model, &own.labels, &own.tokenizer)
            == (&description.model, &description.labels, &description.tokenizer)
        {
            return Ok(());
        }
        let (mut config, words) = understand(description)?;
        // What training does may change from one checkpoint to the next, what the model is may not.
        let wanted = self.model.unimse.config();
        config.t5.dropout_rate = wanted.t5.dropout_rate;
        config.unimse.acoustic.dropout = wanted.unimse.acoustic.dropout;
        config.unimse.visual.dropout = wanted.unimse.visual.dropout;
        config.unimse.contrastive = unimse_model::config::ContrastiveConfig {
            dim: config.unimse.contrastive.dim,
            ..wanted.unimse.contrastive.clone()
        };
        self.material = Arc::new(self.material.with_words(words));
        self.feed = Feed::new(Arc::clone(&self.material), self.order);
        self.model = Model::new(&self.begin, &config, self.device)?;
        Ok(())
    }

    fn join(&mut self, _generation: Generation, group: Box<dyn Collective>) -> Result<Box<dyn Collective>, Halt> {
        match self.device {
            Device::Cuda(index) => Ok(Box::new(nccl::connect(group, index as u32, FORM_WITHIN)?)),
            _ => Ok(group),
        }
    }

    fn initialise(&mut self) -> Result<(), ExitCause> {
        if !self.model.fresh {
            self.model = Model::new(&self.begin, &self.model.unimse.config().clone(), self.device)?;
        }
        Ok(())
    }

    fn load(&mut self, stored: &BTreeMap<String, StoredTensor>, manifest: &Manifest) -> Result<(), ExitCause> {
        let tokenizer = match &manifest.tokenizer {
            Some(Tokenizer::Inline(text)) => Some(text.clone()),
            Some(Tokenizer::Key(key)) => {
                return Err(invalid(format!("cannot read the tokenizer at `{key}` of the checkpoint")));
            }
            None => None,
        };
        let data = self.material.identity();
        self.adopt(&Description { model: manifest.model.clone(), labels: manifest.labels.clone(), tokenizer, data })?;
        self.model.fresh = false;
        let take = |name: &str, mut own: Tensor| {
            let tensor = stored.get(name).ok_or_else(|| missing(name))?;
            let tensor = Self::expect(name, tensor, &own.size())?;
            tch::no_grad(|| own.f_copy_(&tensor)).map_err(failed)
        };
        let Model { flat, frozen, .. } = &self.model;
        for (prefix, state) in PREFIXES.iter().zip([&flat.parameters, &flat.averages, &flat.squares]) {
            for entry in &flat.entries {
                take(&format!("{prefix}{}", entry.name), entry.view(state))?;
            }
        }
        frozen.iter().try_for_each(|(name, tensor)| take(name, tensor.shallow_clone()))
    }

    fn receive(&mut self, root: Rank, group: &mut dyn Collective) -> Result<(), Halt> {
        self.model.fresh = false;
        let Model { flat, frozen, .. } = &mut self.model;
        for tensor in flat.state().into_iter().chain(frozen.iter_mut().map(|(_, tensor)| tensor)) {
            if tensor.device().is_cuda() {
                group.broadcast(root.0, Buffer::Device(device_buffer(tensor)))?;
            } else {
                group.broadcast(root.0, Buffer::F32(view::host_mut(tensor).map_err(failed)?))?;
            }
        }
        Ok(())
    }

    fn fingerprint(&mut self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        let frozen = self.model.frozen.iter().map(|(_, tensor)| tensor.view(-1));
        for tensor in std::iter::once(self.model.flat.parameters.shallow_clone()).chain(frozen) {
            let (total, piece) = (tensor.numel() as i64, 16 << 20);
            for start in (0..total).step_by(piece as usize) {
                let part = tensor.narrow(0, start, piece.min(total - start)).to_device(Device::Cpu);
                if let Ok(bytes) = view::bytes(&part) {
                    hasher.update(bytes);
                }
            }
        }
        u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("a hash has 32 bytes"))
    }

    fn gradients(
        &mut self,
        step: Step,
        batch: &Batch,
        (rank, world): (Rank, u32),
        group: &mut dyn Collective,
    ) -> Result<Sums, Halt> {
        let began = Instant::now();
        self.model.fresh = false;
        let shards = self.feed.next(batch.cursor, rank, world)?;
        let mut sums = Sums { data: began.elapsed(), ..Sums::default() };
        let _ = self.model.flat.gradients.zero_();
        if let Some(exact) = &mut self.model.exact {
            exact.clear();
        }
        let of = (self.material.weighted_tokens(&batch.samples), batch.samples.len() as f64);
        let began = Instant::now();
        let against = self.negatives(step, &shards, group)?;
        sums.forward += began.elapsed();
        let overlaps = self.model.reducer.overlaps(group);
        self.reduced = overlaps;
        let mut parts = Tensor::zeros([4], (Kind::Float, self.device));
        let last = shards.len().saturating_sub(1);
        for (place, shard) in shards.iter().enumerate() {
            if let Some(exact) = self.model.exact.as_mut().filter(|_| place > 0) {
                exact.set_aside(&mut self.model.flat.gradients);
            }
            let reducer = &self.model.reducer;
            let backward = |loss: &Tensor| {
                if overlaps && place == last {
                    reducer.during(&mut *group, || loss.backward())
                } else {
                    loss.backward();
                    Ok(())
                }
            };
            let (own, forward, backward) =
                self.micro_shard(step, shard, of, against.as_ref().map(|parts| &parts[place]), backward)?;
            parts += own;
            sums.forward += forward;
            sums.backward += backward;
            sums.samples += shard.samples.len() as u64;
            shard.samples.iter().for_each(|&sample| sums.digest.add(sample));
        }
        if shards.is_empty() && overlaps {
            // The other ranks add up theirs now; this one takes part with nothing.
            self.model.reducer.all(group)?;
        }
        let reading = Instant::now();
        let [loss, ce, acoustic, visual]: [f32; 4] =
            Vec::<f32>::try_from(&parts).ok().and_then(|parts| parts.try_into().ok()).unwrap_or([f32::NAN; 4]);
        sums.backward += reading.elapsed();
        sums.loss = f64::from(loss);
        sums.ce = f64::from(ce);
        sums.contrastive_acoustic = f64::from(acoustic);
        sums.contrastive_visual = f64::from(visual);
        Ok(sums)
    }

    fn reduce(&mut self, group: &mut dyn Collective) -> Result<(), Halt> {
        let Model { flat, reducer, exact, .. } = &mut self.model;
        match exact {
            Some(exact) => exact.reduce(&mut flat.gradients, group),
            None if self.reduced => reducer.finish(group),
            None => {
                reducer.all(group)?;
                reducer.finish(group)
            }
        }
    }

    fn update(&mut self, step: Step, total: u64) -> Result<Update, ExitCause> {
        optimiser::update(&mut self.model.flat, &self.begin.spec.train, step, total)
    }

    fn evaluate(&mut self, group: &mut dyn Collective) -> Result<BTreeMap<String, f64>, Halt> {
        let batch = self.begin.spec.train.micro_batch.max(16);
        let metrics = evaluation::validate(&self.model.unimse, &self.material, self.device, batch as usize, group)?;
        Ok(metrics.into_iter().map(|(name, value)| (format!("valid/{name}"), value)).collect())
    }

    fn tensors(&self) -> Vec<TensorSpec> {
        let spec = |name: String, shape: &[i64]| TensorSpec {
            name,
            dtype: Dtype::F32,
            shape: shape.iter().map(|&size| size as usize).collect(),
        };
        let Model { flat, frozen, .. } = &self.model;
        let learning = PREFIXES.iter().flat_map(|prefix| {
            flat.entries.iter().map(move |entry| spec(format!("{prefix}{}", entry.name), &entry.shape))
        });
        learning.chain(frozen.iter().map(|(name, tensor)| spec(name.clone(), &tensor.size()))).collect()
    }

    fn copy(&mut self, places: &[usize]) -> Result<Vec<Bytes>, ExitCause> {
        let Model { flat, frozen, .. } = &self.model;
        let state = [&flat.parameters, &flat.averages, &flat.squares];
        let count = flat.entries.len();
        let copy = |&place: &usize| {
            let tensor = match state.get(place / count) {
                Some(state) => flat.entries[place % count].view(state),
                None => frozen[place - state.len() * count].1.detach(),
            };
            view::bytes(&tensor.to_device(Device::Cpu)).map(Bytes::copy_from_slice).map_err(failed)
        };
        places.iter().map(copy).collect()
    }
}
