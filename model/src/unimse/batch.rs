//! What goes into the model and what comes out.

use tch::{Device, Tensor};

use crate::contrastive::Views;
use crate::encoders::Modality;
use crate::heads::Answers;
use crate::t5::Packing;

/// Holds the inputs of `B` samples.
#[derive(Debug)]
pub struct Inputs {
    /// `[B, L]`, tokens of the text, padded on the right (`Int64`).
    pub input_ids: Tensor,
    /// `[B, L]`, 0 at padding and 1 elsewhere (any kind).
    pub attention_mask: Tensor,
    /// The sound of those samples that have it.
    pub acoustic: Modality,
    /// The picture of those samples that have it.
    pub visual: Modality,
}

/// Holds inputs with their targets.
#[derive(Debug)]
pub struct Batch {
    /// The input side.
    pub inputs: Inputs,
    /// `[B, T]`, tokens of the label string with its end token, padded on the right with
    /// [`super::IGNORED_TARGET`] (`Int64`).
    pub targets: Tensor,
    /// The truth for the heads, where the model has some.
    pub answers: Option<Answers>,
}

/// Holds the sums of a batch, for the caller to divide by the counts of the global batch.
#[derive(Debug)]
pub struct Output {
    /// Sum over target tokens of the cross-entropy, natural logarithm (scalar, `Float`).
    pub ce_sum: Tensor,
    /// Number of target tokens (scalar, `Int64`).
    pub tokens: Tensor,
    /// `[B]`, each sample's part of `ce_sum`.
    pub nll: Tensor,
    /// `[B]`, each sample's weighted loss of the heads; zeros without heads.
    pub heads: Tensor,
    /// What the contrastive losses compared, if there are any.
    pub views: Option<Views>,
    /// Sum over samples and blocks of the text-acoustic loss, without its weight (scalar, `Float`).
    pub contrastive_acoustic_sum: Tensor,
    /// Sum over samples and blocks of the text-visual loss, without its weight (scalar, `Float`).
    pub contrastive_visual_sum: Tensor,
    /// Scores of every token at every target position, `[B, T, vocab]` or `[rows, vocab]`.
    pub(super) scores: Tensor,
    /// Where there is no padding among them.
    pub(super) packing: Option<Packing>,
}

impl Output {
    /// Returns the scores of every token at every target position, `[B, T, vocab]`; those of padding mean nothing.
    pub fn logits(&self) -> Tensor {
        match &self.packing {
            Some(packing) => packing.unpack(&self.scores),
            None => self.scores.shallow_clone(),
        }
    }
}

impl Inputs {
    /// Makes another tensor of each.
    #[must_use]
    pub fn map(&self, other: &dyn Fn(&Tensor) -> Tensor) -> Self {
        Self {
            input_ids: other(&self.input_ids),
            attention_mask: other(&self.attention_mask),
            acoustic: self.acoustic.map(other),
            visual: self.visual.map(other),
        }
    }

    /// Copies all tensors to a device.
    #[must_use]
    pub fn to_device(&self, device: Device) -> Self {
        self.map(&|tensor| tensor.to_device(device))
    }
}

impl Batch {
    /// Makes another tensor of each.
    #[must_use]
    pub fn map(&self, other: &dyn Fn(&Tensor) -> Tensor) -> Self {
        let answers = self.answers.as_ref().map(|answers| answers.map(other));
        Self { inputs: self.inputs.map(other), targets: other(&self.targets), answers }
    }

    /// Copies all tensors to a device.
    #[must_use]
    pub fn to_device(&self, device: Device) -> Self {
        self.map(&|tensor| tensor.to_device(device))
    }

    /// Names all tensors, always in the same order.
    pub fn tensors(&self) -> Vec<&Tensor> {
        let Inputs { input_ids, attention_mask, acoustic, visual } = &self.inputs;
        let parts = acoustic.parts.iter().chain(&visual.parts);
        let answers = self.answers.iter().flat_map(|answers| std::iter::once(&answers.scores).chain(&answers.classes));
        [input_ids, attention_mask, &self.targets]
            .into_iter()
            .chain(parts.flat_map(|part| [&part.rows, &part.features, &part.lengths]))
            .chain(answers)
            .collect()
    }
}
