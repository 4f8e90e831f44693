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
use super::{device, evaluation, optimiser, seeding, tensors};
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
    flat: Flat,
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
        parameters = model.flat.entries.iter().map(|entry| entry.len).sum::<usize>(),
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
        let flat = Flat::new(weights::parameters(&store), device)?;
        let reducer = Reducer::new(&flat)?;
        let train = &begin.spec.train;
        let shards = u64::from(train.global_batch.div_ceil(train.micro_batch));
        let exact = Exact::of(&flat, reducer.buckets(), shards);
        Ok(Self { unimse, flat, reducer, exact, fresh: true })
    }
}

impl TorchReplica {
    /// Computes one micro-shard and adds its gradients; returns the parts of the loss as a tensor of four numbers.
    fn micro_shard(
        &self,
        step: Step,
        shard: &Shard,
        (tokens, samples): (f64, f64),
        backward: impl FnOnce(&Tensor) -> Result<(), Halt>,
    ) -> Result<(Tensor, Duration, Duration), Halt> {
        let began = Instant::now();
        let train = &self.begin.spec.train;
        let model = &self.model.unimse;
        let batch = tensors::batch(&shard.arrays, &shard.targets, self.device);
        let seed = seeding::of_micro_shard(train.seed, step, shard.index);
        let forward = || model.forward(&batch, true).map(|output| self.parts(shard, &output, tokens, samples));
        let parts = seeding::seeded(seed, || match train.precision {
            Precision::Fp32 => Ok(forward()),
            Precision::Bf16 => autocast::bf16(self.device.is_cuda(), forward),
        });
        let (loss, ce, output) = parts.map_err(failed)?.map_err(invalid)?;
        let forwarded = began.elapsed();
        backward(&loss)?;
        let [acoustic, visual] = [&output.contrastive_acoustic_sum, &output.contrastive_visual_sum];
        let parts = [loss, ce, acoustic / samples, visual / samples].map(|part| part.detach().to_kind(Kind::Float));
        Ok((Tensor::stack(&parts, 0), forwarded, began.elapsed().saturating_sub(forwarded)))
    }

    /// The loss and the cross-entropy that a micro-shard adds to the step.
    fn parts(&self, shard: &Shard, output: &Output, tokens: f64, samples: f64) -> (Tensor, Tensor, Parts) {
        let parts = Parts {
            contrastive_acoustic_sum: output.contrastive_acoustic_sum.shallow_clone(),
            contrastive_visual_sum: output.contrastive_visual_sum.shallow_clone(),
        };
        if self.material.weights.iter().all(|weight| *weight == 1.0) {
            let loss = self.model.unimse.loss(output, tokens, samples);
            return (loss, &output.ce_sum / tokens, parts);
        }
        let weights: Vec<f32> = shard.samples.iter().map(|&sample| self.material.weight(sample) as f32).collect();
        let ce = (&output.nll * Tensor::from_slice(&weights).to_device(self.device)).sum(Kind::Float) / tokens;
        let losses = &self.model.unimse.config().unimse.contrastive;
        let contrastive =
            &parts.contrastive_acoustic_sum * losses.acoustic + &parts.contrastive_visual_sum * losses.visual;
        (&ce + contrastive / samples, ce, parts)
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

/// What is left of an output once its logits are not needed any more.
struct Parts {
    contrastive_acoustic_sum: Tensor,
    contrastive_visual_sum: Tensor,
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
        for place in 0..PREFIXES.len() {
            for entry in &self.model.flat.entries {
                let name = format!("{}{}", PREFIXES[place], entry.name);
                let tensor =
                    stored.get(&name).ok_or_else(|| invalid(format!("the checkpoint has no tensor `{name}`")))?;
                let tensor = Self::expect(&name, tensor, &entry.shape)?;
                let flat = [&self.model.flat.parameters, &self.model.flat.averages, &self.model.flat.squares][place];
                tch::no_grad(|| entry.view(flat).f_copy_(&tensor)).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, root: Rank, group: &mut dyn Collective) -> Result<(), Halt> {
        self.model.fresh = false;
        for tensor in self.model.flat.state() {
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
        let parameters = &self.model.flat.parameters;
        let (total, piece) = (parameters.numel() as i64, 16 << 20);
        for start in (0..total).step_by(piece as usize) {
            let part = parameters.narrow(0, start, piece.min(total - start)).to_device(Device::Cpu);
            if let Ok(bytes) = view::bytes(&part) {
                hasher.update(bytes);
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
            let (own, forward, backward) = self.micro_shard(step, shard, of, backward)?;
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
        let tensors = PREFIXES.iter().flat_map(|prefix| {
            self.model.flat.entries.iter().map(move |entry| TensorSpec {
                name: format!("{prefix}{}", entry.name),
                dtype: Dtype::F32,
                shape: entry.shape.iter().map(|&size| size as usize).collect(),
            })
        });
        tensors.collect()
    }

    fn copy(&mut self, places: &[usize]) -> Result<Vec<Bytes>, ExitCause> {
        let flat = &self.model.flat;
        let state = [&flat.parameters, &flat.averages, &flat.squares];
        let count = flat.entries.len();
        let copy = |&place: &usize| {
            let view = flat.entries[place % count].view(state[place / count]).to_device(Device::Cpu);
            view::bytes(&view).map(Bytes::copy_from_slice).map_err(failed)
        };
        places.iter().map(copy).collect()
    }
}
