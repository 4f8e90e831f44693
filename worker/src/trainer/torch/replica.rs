//! The replica: model, optimiser and data of one rank.

mod model;
mod passes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};
use unimse_checkpoint::{Manifest, TensorSpec, Tokenizer};
use unimse_collectives::{Collective, nccl};
use unimse_core::id::{Generation, Rank, Step};
use unimse_core::job::ExitCause;
use unimse_core::shard::{Batch, DataOrder};
use unimse_model::config::ContrastiveConfig;
use unimse_model::flops;
use unimse_torch_ext::{cuda, profile};

use super::super::{
    Copier, Description, Halt, Read, Replica, Span, Sums, Surroundings, Update, failed, invalid, spans,
};
use super::description::{config_of, describe, understand};
use super::feed::Feed;
use super::graphs::Shares;
use super::material::Material;
use super::{device, evaluation, optimiser, utilisation, zero};
use crate::protocol::Begin;

use model::Model;

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
    /// The norm of this step's gradients, where this rank has not all of them.
    norm: Option<f64>,
    /// Its rank and world, once it has joined some.
    part: Option<(Rank, u32)>,
    /// Bytes given to sums since somebody asked.
    traffic: u64,
    recording: Option<profile::Recording>,
    /// Operations a second that the slot could do, if that is known.
    peak: Option<f64>,
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
    let model = Model::new(begin, &config, &material, device)?;
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
    Ok(Box::new(TorchReplica {
        begin: begin.clone(),
        device,
        material,
        order,
        feed,
        model,
        reduced: false,
        norm: None,
        part: None,
        traffic: 0,
        recording: None,
        peak: utilisation::peak(&begin.slot, train.precision),
    }))
}

impl TorchReplica {
    /// Keeps this rank's share of the moments, if they are shared out.
    fn take_part(&mut self) {
        if let Some((rank, world)) = self.part {
            self.model.take_part(rank, world);
        }
    }
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
        let (own, wanted) = (&mut config.unimse, &wanted.unimse);
        let ContrastiveConfig { dim, legacy, .. } = own.contrastive;
        own.contrastive = ContrastiveConfig { dim, legacy, ..wanted.contrastive.clone() };
        own.answers = wanted.answers;
        for (own, wanted) in
            [(&mut own.heads.score, wanted.heads.score), (&mut own.heads.emotion, wanted.heads.emotion)]
        {
            // A head that is not there cannot be trained, and one that is there stays.
            if *own > 0.0 && wanted > 0.0 {
                *own = wanted;
            }
        }
        self.material = Arc::new(self.material.with_words(words));
        self.feed = Feed::new(Arc::clone(&self.material), self.order);
        self.model = Model::new(&self.begin, &config, &self.material, self.device)?;
        self.take_part();
        Ok(())
    }

    fn is_whole(&self) -> bool {
        !self.model.shares_moments()
    }

    fn join(&mut self, _generation: Generation, group: Box<dyn Collective>) -> Result<Box<dyn Collective>, Halt> {
        if let Some(powersgd) = &mut self.model.powersgd {
            powersgd.forget();
        }
        self.part = Some((Rank(group.rank()), group.world_size()));
        self.take_part();
        match self.device {
            Device::Cuda(index) => Ok(Box::new(nccl::connect(group, index as u32, FORM_WITHIN)?)),
            _ => Ok(group),
        }
    }

    fn initialise(&mut self) -> Result<(), ExitCause> {
        if !self.model.fresh {
            self.model = Model::new(&self.begin, &self.model.unimse.config().clone(), &self.material, self.device)?;
            self.take_part();
        }
        Ok(())
    }

    fn load(&mut self, manifest: &Manifest, read: &mut Read<'_>) -> Result<(), ExitCause> {
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
        self.model.load(read)
    }

    fn receive(&mut self, root: Rank, group: &mut dyn Collective) -> Result<(), Halt> {
        self.model.receive(root, group)
    }

    fn fingerprint(&mut self) -> u64 {
        self.model.fingerprint()
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
        let shards = {
            let _span = spans::span("data");
            self.feed.next(batch.cursor, rank, world)?
        };
        let mut sums = Sums { data: began.elapsed(), ..Sums::default() };
        self.model.flat.clear();
        if let Some(exact) = &mut self.model.exact {
            exact.clear();
        }
        let whole = (self.material.weighted_tokens(&batch.samples), batch.samples.len() as f64);
        let shares = Shares::of(whole, self.device);
        let began = Instant::now();
        let against = self.negatives(step, &shards, group)?;
        sums.forward += began.elapsed();
        let alone = self.model.rounds.is_some() || self.model.powersgd.is_some();
        let overlaps = !alone && self.model.reducer.overlaps(group);
        self.reduced = overlaps;
        let mut parts = Tensor::zeros([4], (Kind::Float, self.device));
        let last = shards.len().saturating_sub(1);
        let mut forward_flops = 0.0;
        for (place, shard) in shards.iter().enumerate() {
            if let Some(exact) = self.model.exact.as_mut().filter(|_| place > 0) {
                exact.set_aside(&mut self.model.flat.gradients);
            }
            let reducer = &self.model.reducer;
            let summed = overlaps && place == last;
            let mut exposed = Duration::ZERO;
            let backward = |loss: &Tensor| {
                let _span = spans::span("backward");
                if summed {
                    exposed = reducer.during(&mut *group, || loss.backward())?;
                } else {
                    loss.backward();
                }
                Ok(())
            };
            let against = against.as_ref().map(|parts| &parts[place]);
            let (own, forward, backward) = self.micro_shard(step, shard, &shares, against, !summed, backward)?;
            parts += own;
            sums.forward += forward;
            sums.backward += backward.saturating_sub(exposed);
            sums.exposed += exposed;
            sums.tokens += shard.tokens();
            forward_flops += flops::forward(self.model.unimse.config(), shard.lengths());
            sums.samples += shard.samples.len() as u64;
            shard.samples.iter().for_each(|&sample| sums.digest.add(sample));
        }
        if shards.is_empty() && overlaps {
            // The other ranks add up theirs now; this one takes part with nothing.
            self.model.reducer.all(group)?;
        }
        if self.model.rounds.is_some() && sums.samples > 0 {
            // A step of its own counts its own samples as a whole batch.
            let own = batch.samples.len() as f64 / sums.samples as f64;
            let _ = self.model.flat.gradients.g_mul_scalar_(own);
        }
        let reading = Instant::now();
        let [loss, ce, acoustic, visual]: [f32; 4] =
            Vec::<f32>::try_from(&parts).ok().and_then(|parts| parts.try_into().ok()).unwrap_or([f32::NAN; 4]);
        sums.backward += reading.elapsed();
        sums.flops = flops::training(forward_flops, self.model.learning_share());
        sums.peak = self.peak;
        sums.loss = f64::from(loss);
        sums.ce = f64::from(ce);
        sums.contrastive_acoustic = f64::from(acoustic);
        sums.contrastive_visual = f64::from(visual);
        Ok(sums)
    }

    fn reduce(&mut self, step: Step, exactly: bool, group: &mut dyn Collective) -> Result<(), Halt> {
        let Model { flat, reducer, exact, rounds, powersgd, .. } = &mut self.model;
        if rounds.is_some() {
            return Ok(());
        }
        if let Some(powersgd) = powersgd {
            self.traffic += powersgd.reduce(&mut flat.gradients, step, exactly, group)?;
            return Ok(());
        }
        if group.world_size() > 1 {
            self.traffic += reducer.bytes();
        }
        let _span = spans::span("reduce");
        self.norm = None;
        match exact {
            Some(exact) => return exact.reduce(&mut flat.gradients, group),
            None if self.reduced => reducer.finish(group)?,
            None => {
                reducer.all(group)?;
                reducer.finish(group)?;
            }
        }
        if self.model.shares_moments() {
            self.norm = Some(zero::norm(&self.model.flat, group)?);
        }
        Ok(())
    }

    fn synchronise(&mut self, step: Step, total: u64, group: &mut dyn Collective) -> Result<bool, Halt> {
        if self.model.shares_moments() {
            self.model.reducer.gather(&self.model.flat.parameters, group)?;
        }
        let Model { flat, rounds: Some(rounds), .. } = &mut self.model else { return Ok(true) };
        if !self.begin.spec.train.sync.agrees_after(step, total) {
            return Ok(false);
        }
        self.traffic += rounds.agree(flat, group)?;
        Ok(true)
    }

    fn rewind(&mut self) -> Result<(), ExitCause> {
        if let Model { flat, rounds: Some(rounds), .. } = &mut self.model {
            rounds.rewind(flat);
        }
        Ok(())
    }

    fn traffic(&mut self) -> u64 {
        std::mem::take(&mut self.traffic)
    }

    fn device_memory(&self) -> Option<u64> {
        match self.device {
            Device::Cuda(index) => cuda::peak_memory(index as u32).ok(),
            _ => None,
        }
    }

    fn record(&mut self) -> Result<(), ExitCause> {
        self.recording = Some(profile::Recording::begin().map_err(failed)?);
        Ok(())
    }

    fn recorded(&mut self) -> Result<Vec<Span>, ExitCause> {
        let Some(recording) = self.recording.take() else { return Ok(Vec::new()) };
        let span = |span: profile::Span| Span {
            name: span.name.into(),
            category: if span.backward { "backward" } else { "operator" },
            begin: span.begin,
            end: span.end,
            thread: span.thread,
        };
        Ok(recording.finish().map_err(failed)?.into_iter().map(span).collect())
    }

    fn update(&mut self, step: Step, total: u64) -> Result<Update, ExitCause> {
        let Model { flat, rounds, .. } = &mut self.model;
        if let Some(rounds) = rounds {
            rounds.leave(flat);
        }
        let train = &self.begin.spec.train;
        match self.norm {
            Some(norm) => optimiser::update_with(flat, norm, train, step, total),
            None => optimiser::update(flat, train, step, total),
        }
    }

    fn evaluate(&mut self, group: &mut dyn Collective) -> Result<BTreeMap<String, f64>, Halt> {
        let batch = self.begin.spec.train.micro_batch.max(16);
        let metrics = evaluation::validate(&self.model.unimse, &self.material, self.device, batch as usize, group)?;
        Ok(metrics.into_iter().map(|(name, value)| (format!("valid/{name}"), value)).collect())
    }

    fn tensors(&self) -> Vec<(TensorSpec, Option<Rank>)> {
        self.model.tensors()
    }

    fn copier(&self, places: &[usize]) -> Copier {
        self.model.copier(places)
    }
}
