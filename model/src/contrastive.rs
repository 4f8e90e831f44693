//! The inter-modality contrastive loss: InfoNCE from text to acoustic and from text to visual.
//!
//! As in the paper, the text side is the stream after each of the last encoder blocks (fusion included), and the
//! losses of the blocks add up. Text and modality are each averaged over their true positions, projected to a common
//! space and compared by cosine; the positive is the sample itself, negatives are the other samples of the batch that
//! have the modality. There is no acoustic-visual pair and labels play no part. [`Legacy`] is what the official code does.

mod legacy;

use tch::{Kind, Reduction, Tensor, nn};

use crate::config::Config;
use crate::encoders::EncodedModality;
use crate::t5::{Linear, lowest, projection};

pub use legacy::Legacy;

/// Pulls the text of a sample towards the same sample's sound and picture.
#[derive(Debug)]
pub struct Contrastive {
    text: Linear,
    acoustic: Option<Linear>,
    visual: Option<Linear>,
}

impl Contrastive {
    /// Creates the projections under `path`, `contrastive`: one for text and one for each modality that exists and has
    /// a weight above 0. `None` if there is none, or if the losses are the official code's.
    pub fn new(path: &nn::Path, config: &Config) -> Option<Self> {
        let contrastive = &config.unimse.contrastive;
        if contrastive.legacy {
            return None;
        }
        let linear =
            |name: &str, inputs: i64| projection(&(path / name), inputs, contrastive.dim, (inputs as f64).powf(-0.5));
        let modality = |name: &str, weight: f64, modality: &crate::config::ModalityConfig| {
            (weight > 0.0 && modality.exists()).then(|| linear(name, modality.output_width()))
        };
        let acoustic = modality("acoustic", contrastive.acoustic, &config.unimse.acoustic);
        let visual = modality("visual", contrastive.visual, &config.unimse.visual);
        if acoustic.is_none() && visual.is_none() {
            return None;
        }
        let text = linear("text", config.t5.d_model);
        Some(Self { text, acoustic, visual })
    }

    /// Returns how each sample looks from each side: `texts` are the means `[B, d_model]` of its streams.
    pub fn views(
        &self,
        texts: &[Tensor],
        acoustic: Option<&EncodedModality>,
        visual: Option<&EncodedModality>,
    ) -> Views {
        let queries: Vec<Tensor> = texts.iter().map(|text| unit(&self.text.forward(text))).collect();
        let side = |linear: Option<&Linear>, encoded: Option<&EncodedModality>| {
            linear.zip(encoded).map(|(linear, encoded)| Side {
                keys: unit(&linear.forward(&encoded.mean)),
                present: encoded.present.detach().to_kind(Kind::Float),
            })
        };
        Views {
            queries: Tensor::stack(&queries, 0),
            acoustic: side(self.acoustic.as_ref(), acoustic),
            visual: side(self.visual.as_ref(), visual),
        }
    }
}

/// Holds the unit vectors that the losses compare. They may be those of a micro-batch, or of a whole global batch.
#[derive(Debug)]
pub struct Views {
    /// `[n, B, dim]`, the text after each of the `n` blocks.
    pub queries: Tensor,
    /// The sound, if it takes part.
    pub acoustic: Option<Side>,
    /// The picture, if it takes part.
    pub visual: Option<Side>,
}

/// Holds one modality's side of the comparison.
#[derive(Debug)]
pub struct Side {
    /// `[B, dim]`.
    pub keys: Tensor,
    /// `[B]`, 1 where the sample has the modality and 0 elsewhere.
    pub present: Tensor,
}

impl Views {
    /// Returns each sample's text-acoustic and text-visual loss as an anchor, `[B]` each, added up over the blocks; 0 where it
    /// lacks the modality.
    pub fn losses(&self, temperature: f64) -> (Tensor, Tensor) {
        let side = |side: Option<&Side>| match side {
            Some(Side { keys, present }) => {
                let blocks = 0..self.queries.size()[0];
                let losses: Vec<Tensor> =
                    blocks.map(|block| info_nce(&self.queries.get(block), keys, present, temperature)).collect();
                Tensor::stack(&losses, 0).sum_dim_intlist(0, false, Kind::Float)
            }
            None => Tensor::zeros([self.queries.size()[1]], (Kind::Float, self.queries.device())),
        };
        (side(self.acoustic.as_ref()), side(self.visual.as_ref()))
    }
}

/// Averages `states [B, L, d]` over the positions where `mask [B, L]` is not 0; a row without any gives zeros.
pub fn masked_mean(states: &Tensor, mask: &Tensor) -> Tensor {
    let mask = mask.ne(0).to_kind(states.kind()).unsqueeze(2);
    let count = mask.sum_dim_intlist(1, false, states.kind()).clamp_min(1.0);
    (states * mask).sum_dim_intlist(1, false, states.kind()) / count
}

/// Returns for each sample `-log softmax(query . keys / temperature)` at the sample itself, `[B]`.
///
/// `queries` and `keys` are unit vectors `[B, d]`; where `present [B]` is 0 a sample is neither anchor nor
/// negative, and its own loss is 0.
pub fn info_nce(queries: &Tensor, keys: &Tensor, present: &Tensor, temperature: f64) -> Tensor {
    let batch = queries.size()[0];
    let scores = queries.matmul(&keys.transpose(0, 1)).to_kind(Kind::Float) / temperature;
    let absent = present.eq(0);
    let scores = scores.masked_fill(&absent.unsqueeze(0), lowest(Kind::Float));
    let itself = Tensor::arange(batch, (Kind::Int64, queries.device()));
    let losses = scores.cross_entropy_loss::<Tensor>(&itself, None, Reduction::None, -100, 0.0);
    // An absent anchor's own score is hidden too, so its loss is a huge finite number: dropped, never multiplied.
    losses.masked_fill(&absent, 0.0)
}

/// Scales rows to length 1 in 32 bits; a zero row stays zero.
fn unit(rows: &Tensor) -> Tensor {
    let rows = rows.to_kind(Kind::Float);
    let length = rows.norm_scalaropt_dim(2, 1, true).clamp_min(1e-12);
    rows / length
}

#[cfg(test)]
mod tests;
