//! The passes over micro-shards: forward with a dropout of its own, the losses, backward.

use std::time::{Duration, Instant};

use tch::{Kind, Tensor};
use unimse_collectives::Collective;
use unimse_core::id::Step;
use unimse_core::spec::Precision;
use unimse_model::Output;
use unimse_torch_ext::autocast;

use super::super::super::{Halt, failed, invalid, spans};
use super::super::feed::Shard;
use super::super::{negatives, seeding, tensors};
use super::TorchReplica;

/// What backward starts from, and what is reported: the loss, its cross-entropy, and both contrastive losses.
struct Losses {
    objective: Tensor,
    parts: [Tensor; 4],
}

impl TorchReplica {
    /// Computes one micro-shard and adds its gradients; returns the parts of the loss as a tensor of four numbers.
    pub(super) fn micro_shard(
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
        let forward = spans::span("forward");
        let losses = self.drawn(step, shard, || {
            model.forward(&batch, true).map(|output| self.losses(shard, output, (tokens, samples), against))
        });
        let Losses { objective, parts } = losses?;
        drop(forward);
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
            own.extend(self.drawn(step, shard, pass)?.map(|views| (first, views)));
        }
        negatives::exchange(&own, [weights.acoustic, weights.visual], weights.temperature, group).map(Some)
    }
}
