//! The passes over micro-shards: forward with a dropout of its own, the losses, backward.

use std::time::{Duration, Instant};

use tch::{Kind, Tensor};
use unimse_collectives::Collective;
use unimse_core::id::Step;
use unimse_core::spec::Precision;
use unimse_model::{Batch, Output};
use unimse_torch_ext::autocast;

use super::super::super::{Halt, failed, invalid, spans};
use super::super::feed::Shard;
use super::super::graphs::Shares;
use super::super::{negatives, seeding, tensors};
use super::TorchReplica;

/// What backward starts from, and what is reported: the loss, its cross-entropy, and both contrastive losses.
struct Losses {
    objective: Tensor,
    parts: [Tensor; 4],
}

impl Losses {
    /// The parts as one tensor `[4]`.
    fn reported(&self) -> Tensor {
        Tensor::stack(&self.parts.each_ref().map(|part| part.detach().to_kind(Kind::Float)), 0)
    }
}

impl TorchReplica {
    /// Computes one micro-shard and adds its gradients; returns the parts of the loss as a tensor of four numbers, and the times of
    /// its passes. `recordable` says that `backward` does nothing else, so that the passes may be one recording.
    pub(super) fn micro_shard(
        &self,
        step: Step,
        shard: &Shard,
        shares: &Shares,
        against: Option<&negatives::Part>,
        recordable: bool,
        backward: impl FnOnce(&Tensor) -> Result<(), Halt>,
    ) -> Result<(Tensor, Duration, Duration), Halt> {
        let began = Instant::now();
        let labels = if self.model.unimse.heads().is_some() { shard.labels.as_slice() } else { &[] };
        let batch = tensors::batch(&shard.arrays, &shard.targets, labels, self.device);
        let shares = shares.weighted(self.weights(shard).as_deref());
        if let Some(graphs) = self.model.graphs.as_ref().filter(|_| recordable && against.is_none()) {
            let _span = spans::span("replay");
            let whole = |batch: &Batch, shares: &Shares| {
                let losses = self.precisely(|| self.forward(batch, shares, None))?;
                losses.objective.backward();
                Ok(losses.reported())
            };
            let replayed = self.drawn(step, shard, || graphs.borrow_mut().pass(&batch, &shares, whole))?;
            if let Some(parts) = replayed {
                return Ok((parts, Duration::ZERO, began.elapsed()));
            }
        }
        let batch = tensors::to_device(&batch, self.device);
        let forward = spans::span("forward");
        let losses = self.drawn(step, shard, || self.precisely(|| self.forward(&batch, &shares, against)))?;
        drop(forward);
        let forwarded = began.elapsed();
        backward(&losses.objective)?;
        Ok((losses.reported(), forwarded, began.elapsed().saturating_sub(forwarded)))
    }

    /// Runs what a micro-shard draws random numbers in with its own seed.
    fn drawn<T>(&self, step: Step, shard: &Shard, pass: impl FnOnce() -> T) -> T {
        seeding::seeded(seeding::of_micro_shard(self.begin.spec.train.seed, step, shard.index), pass)
    }

    /// Runs a forward pass in the job's precision.
    fn precisely<T>(&self, pass: impl FnOnce() -> Result<T, unimse_model::Error>) -> Result<T, Halt> {
        let result = match self.begin.spec.train.precision {
            Precision::Fp32 => Ok(pass()),
            Precision::Bf16 => autocast::bf16(self.device.is_cuda(), pass),
        };
        Ok(result.map_err(failed)?.map_err(invalid)?)
    }

    /// The weights of a micro-shard's samples, if any is not 1.
    fn weights(&self, shard: &Shard) -> Option<Vec<f32>> {
        let weigh = || shard.samples.iter().map(|&sample| self.material.weight(sample) as f32).collect();
        self.material.weights.iter().any(|weight| *weight != 1.0).then(weigh)
    }

    /// The losses that a micro-shard adds to the step.
    fn forward(
        &self,
        batch: &Batch,
        Shares { tokens, samples, weights }: &Shares,
        against: Option<&negatives::Part>,
    ) -> Result<Losses, unimse_model::Error> {
        let Output { ce_sum, nll, heads, views, contrastive_acoustic_sum, contrastive_visual_sum, .. } =
            self.model.unimse.forward(batch, true)?;
        let (ce, heads) = match weights {
            None => (ce_sum, heads.sum(Kind::Float)),
            Some(weights) => ((nll * weights).sum(Kind::Float), (heads * weights).sum(Kind::Float)),
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
        Ok(Losses { objective: &ce + heads + contrastive, parts: [loss, ce, acoustic / samples, visual / samples] })
    }

    /// What the micro-shards need of the whole batch, in their order; nothing where their negatives are their own.
    pub(super) fn negatives(
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
            let views = self.drawn(step, shard, || self.precisely(pass))?;
            own.extend(views.map(|views| (first, views)));
        }
        negatives::exchange(&own, [weights.acoustic, weights.visual], weights.temperature, group).map(Some)
    }
}
