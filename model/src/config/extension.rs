//! The key `unimse` of a `config.json`: fusion, modality encoders, contrastive loss.

use serde::{Deserialize, Serialize};

use super::{invalid, positive, probability};
use crate::Error;

/// Describes what UniMSE adds to a T5.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UniMseConfig {
    /// The fusion layers in both stacks.
    pub fusion: FusionConfig,
    /// The acoustic encoder; without `dims` the model hears nothing.
    pub acoustic: ModalityConfig,
    /// The visual encoder; without `dims` the model sees nothing.
    pub visual: ModalityConfig,
    /// The contrastive losses.
    pub contrastive: ContrastiveConfig,
    /// Heads beside the generator; absent from most configurations.
    #[serde(skip_serializing_if = "HeadsConfig::is_off")]
    pub heads: HeadsConfig,
    /// How questions are answered unless the asker says otherwise.
    pub answers: AnswerWay,
    /// Low-rank updates; absent from most configurations.
    #[serde(skip_serializing_if = "LoraConfig::is_off")]
    pub lora: LoraConfig,
}

/// Names a way to come from a model to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerWay {
    /// The label string that greedy decoding writes.
    #[default]
    Decoded,
    /// As decoded, but for the score: the mean of all scores, weighted with their probabilities.
    Expected,
    /// What the heads say.
    Heads,
}

/// Describes the heads beside the generator; a weight of 0 means that there is none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadsConfig {
    /// Weight of the score's absolute error.
    pub score: f64,
    /// Weight of the emotions' cross-entropy.
    pub emotion: f64,
    /// Classes of each emotion vocabulary of the label schema.
    pub classes: Vec<i64>,
}

impl HeadsConfig {
    /// Tells whether there are no heads.
    pub fn is_off(&self) -> bool {
        self.score == 0.0 && self.emotion == 0.0
    }
}

/// Describes low-rank updates of the query and value projections of every attention (Hu et al. 2021, arXiv 2106.09685):
/// `W x` becomes `W x + alpha / rank * B (A x)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rows of `A` and columns of `B`; 0 switches the updates off.
    pub rank: i64,
    /// Scale of the update.
    pub alpha: f64,
}

/// Describes the fusion layers (the paper's PMF).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FusionConfig {
    /// How many of the last blocks of encoder and decoder fuse; 0 switches fusion off.
    pub layers: i64,
    /// Width between `down` and `up`.
    pub bottleneck: i64,
    /// How the layers start.
    pub init: FusionInit,
}

/// Names how a fusion layer starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FusionInit {
    /// `out = [I | 0]`, `up = 0`: at step 0 the layer returns its input, and a pretrained T5 stays intact.
    #[default]
    Identity,
    /// As the official code: `down, up ~ N(0, 0.001^2)`, `out` random, which sends the T5 stream through noise.
    Paper,
}

/// Describes one modality's encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModalityConfig {
    /// The distinct feature dimensions of the datasets. The LSTM reads the largest; each other one gets a linear
    /// input layer up to it. Empty: the modality does not exist.
    pub dims: Vec<i64>,
    /// Width of the LSTM's state, per direction.
    pub hidden: i64,
    /// Width of the utterance vector that the fusion layers get.
    pub out: i64,
    /// Whether a second LSTM reads from the end.
    pub bidirectional: bool,
    /// Probability of dropout on the last state.
    pub dropout: f64,
    /// Whether features are scaled to mean 0 and deviation 1, and cut at [`ModalityConfig::CUT`] deviations, by numbers that
    /// the weights hold (`acoustic.standard.<dim>.{mean,scale}`) and nobody trains.
    pub standardise: bool,
}

/// Describes the contrastive losses between text and modalities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContrastiveConfig {
    /// Weight of the text-acoustic loss (the paper's alpha); 0 switches it off.
    pub acoustic: f64,
    /// Weight of the text-visual loss (the paper's beta); 0 switches it off.
    pub visual: f64,
    /// Divides the cosines.
    pub temperature: f64,
    /// Width of the space in which text and modality meet.
    pub dim: i64,
    /// How many of the encoder's last blocks take part; their losses add up.
    pub layers: i64,
    /// Whether the losses are those of the official code; absent from most configurations.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub legacy: bool,
}

impl Default for FusionConfig {
    fn default() -> Self {
        Self { layers: 3, bottleneck: 64, init: FusionInit::Identity }
    }
}

impl Default for ModalityConfig {
    fn default() -> Self {
        Self { dims: Vec::new(), hidden: 64, out: 64, bidirectional: false, dropout: 0.3, standardise: false }
    }
}

impl Default for ContrastiveConfig {
    fn default() -> Self {
        Self { acoustic: 0.5, visual: 0.5, temperature: 0.1, dim: 64, layers: 3, legacy: false }
    }
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: 0, alpha: 16.0 }
    }
}

impl LoraConfig {
    /// Tells whether there are no updates.
    pub fn is_off(&self) -> bool {
        self.rank == 0
    }
}

impl UniMseConfig {
    /// Returns the width of all utterance vectors together, which the fusion layers append to the stream.
    pub fn fused_width(&self) -> i64 {
        self.acoustic.width() + self.visual.width()
    }

    pub(super) fn validate(&self, encoder_layers: i64, decoder_layers: i64) -> Result<(), Error> {
        let least = encoder_layers.min(decoder_layers);
        if !(0..=least).contains(&self.fusion.layers) {
            return Err(invalid("fusion.layers", self.fusion.layers, &format!("use 0 to {least}, the model's blocks")));
        }
        positive("fusion.bottleneck", self.fusion.bottleneck)?;
        self.acoustic.validate(["acoustic.dims", "acoustic.hidden", "acoustic.out", "acoustic.dropout"])?;
        self.visual.validate(["visual.dims", "visual.hidden", "visual.out", "visual.dropout"])?;
        let contrastive = &self.contrastive;
        for (field, weight) in
            [("contrastive.acoustic", contrastive.acoustic), ("contrastive.visual", contrastive.visual)]
        {
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(invalid(field, weight, "use 0 or a positive number, as 0.5"));
            }
        }
        if !(contrastive.temperature.is_finite() && contrastive.temperature > 0.0) {
            return Err(invalid("contrastive.temperature", contrastive.temperature, "use a positive number, as 0.1"));
        }
        positive("contrastive.dim", contrastive.dim)?;
        for (field, weight) in [("heads.score", self.heads.score), ("heads.emotion", self.heads.emotion)] {
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(invalid(field, weight, "use 0 or a positive number, as 1.0"));
            }
        }
        for &classes in &self.heads.classes {
            positive("heads.classes", classes)?;
        }
        if self.answers == AnswerWay::Heads && self.heads.is_off() {
            return Err(invalid("answers", "heads", "give heads.score or heads.emotion a weight above 0"));
        }
        if self.lora.rank < 0 {
            return Err(invalid("lora.rank", self.lora.rank, "use 0 for none, or a small number, as 8"));
        }
        if !(self.lora.alpha.is_finite() && self.lora.alpha > 0.0) {
            return Err(invalid("lora.alpha", self.lora.alpha, "use a positive number, as 16"));
        }
        if !(1..=encoder_layers).contains(&contrastive.layers) {
            let hint = format!("use 1 to {encoder_layers}, the encoder's blocks");
            return Err(invalid("contrastive.layers", contrastive.layers, &hint));
        }
        if contrastive.legacy {
            self.validate_legacy(encoder_layers, decoder_layers)?;
        }
        Ok(())
    }

    /// The official code compares the input of the last block, and projects sound and picture alike.
    fn validate_legacy(&self, encoder_layers: i64, decoder_layers: i64) -> Result<(), Error> {
        if encoder_layers.min(decoder_layers) < 2 {
            let hint = "use two blocks or more in both stacks, or the paper's losses";
            return Err(invalid("contrastive.legacy", "true", hint));
        }
        let widths = (self.acoustic.output_width(), self.visual.output_width());
        if self.acoustic.exists() && self.visual.exists() && widths.0 != widths.1 {
            let hint = format!("use {}, as acoustic.hidden: they share a projection", self.acoustic.hidden);
            return Err(invalid("visual.hidden", self.visual.hidden, &hint));
        }
        Ok(())
    }
}

impl ModalityConfig {
    /// Deviations beyond which a standardised feature is cut: published features have values a hundred deviations out.
    pub const CUT: f64 = 3.0;

    /// Tells whether any dataset has this modality.
    pub fn exists(&self) -> bool {
        !self.dims.is_empty()
    }

    /// Returns the width that this modality adds to the fused vector.
    pub fn width(&self) -> i64 {
        if self.exists() { self.out } else { 0 }
    }

    /// Returns the width of the LSTM's output, both directions together.
    pub fn output_width(&self) -> i64 {
        if self.bidirectional { 2 * self.hidden } else { self.hidden }
    }

    fn validate(&self, [dims, hidden, out, dropout]: [&'static str; 4]) -> Result<(), Error> {
        for (index, &dim) in self.dims.iter().enumerate() {
            positive(dims, dim)?;
            if self.dims[..index].contains(&dim) {
                return Err(invalid(dims, format!("{:?}", self.dims), "list each dimension once"));
            }
        }
        positive(hidden, self.hidden)?;
        positive(out, self.out)?;
        probability(dropout, self.dropout)
    }
}
