//! The contrastive losses of the official code (`modules/InfoNCE.py` and `T5Stack` of LeMei/UniMSE), to reproduce it.
//!
//! Against the paper: the text is the *input* of the last block, in the encoder and, over the label's tokens, in the decoder,
//! and the losses of both add up. Means include padding. Each stack has one projection for text and one that sound and picture
//! share; an oversight in the code's parameter groups keeps both at their random values. And sound and picture are put in
//! the order of a sorting by length that was undone before, so that most samples are compared with another one's.
//!
//! Left out: a dropout of 1e-4 on the text.

use tch::{Kind, Tensor, nn};

use super::{info_nce, unit};
use crate::config::Config;
use crate::encoders::EncodedModality;
use crate::unimse::Encoded;

/// Pulls the text of both stacks towards sound and picture as the official code does.
#[derive(Debug)]
pub struct Legacy {
    encoder: Projections,
    decoder: Projections,
    acoustic: bool,
    visual: bool,
}

/// One stack's `info_proj_query` and `info_proj_positive`.
#[derive(Debug)]
struct Projections {
    /// `[dim, d_model]`.
    text: Tensor,
    /// `[dim, hidden]`.
    modality: Tensor,
}

impl Legacy {
    /// The code's width of the common space.
    pub const DIM: i64 = 30;
    /// Of so many of the encoder's last blocks [`Encoded`] must hold the streams: what the last block reads is what the one
    /// before it wrote.
    pub(crate) const BLOCKS: usize = 2;

    /// Creates the projections under `path`, `contrastive`. `None` if the losses are the paper's, or if none has a weight
    /// above 0 and a modality.
    pub fn new(path: &nn::Path, config: &Config) -> Option<Self> {
        let own = &config.unimse;
        let acoustic = own.contrastive.acoustic > 0.0 && own.acoustic.exists();
        let visual = own.contrastive.visual > 0.0 && own.visual.exists();
        if !own.contrastive.legacy || !(acoustic || visual) {
            return None;
        }
        let width = if acoustic { own.acoustic.output_width() } else { own.visual.output_width() };
        let dim = own.contrastive.dim;
        let stack = |name: &str| Projections {
            text: fixed(&(path / name / "text"), dim, config.t5.d_model),
            modality: fixed(&(path / name / "modality"), dim, width),
        };
        Some(Self { encoder: stack("encoder"), decoder: stack("decoder"), acoustic, visual })
    }

    /// Returns each sample's text-acoustic and text-visual loss, `[B]` each; `decoder` is what the decoder's last block read,
    /// `[B, T, d_model]`. A sample without a modality has a zero vector there.
    pub(crate) fn losses(&self, encoded: &Encoded, decoder: &Tensor, temperature: f64) -> (Tensor, Tensor) {
        let pairs = [(&self.encoder, &encoded.blocks[0]), (&self.decoder, decoder)];
        let queries = pairs.map(|(own, stream)| {
            unit(&stream.mean_dim(1, false, Kind::Float).linear::<Tensor>(&own.text.to_kind(Kind::Float), None))
        });
        let side = |encoded: Option<&EncodedModality>| {
            let mut total = queries[0].new_zeros([queries[0].size()[0]], (Kind::Float, queries[0].device()));
            let Some(encoded) = encoded else { return total };
            let means = displaced(encoded);
            let all = total.ones_like();
            for ((own, _), query) in pairs.iter().zip(&queries) {
                let keys = unit(&means.linear::<Tensor>(&own.modality.to_kind(Kind::Float), None));
                total += info_nce(query, &keys, &all, temperature);
            }
            total
        };
        (
            side(encoded.acoustic.as_ref().filter(|_| self.acoustic)),
            side(encoded.visual.as_ref().filter(|_| self.visual)),
        )
    }
}

/// Means over the frames of the longest sample, zeros after the end of the others, in the code's order: `x[argsort(argsort(-lengths))]`.
fn displaced(encoded: &EncodedModality) -> Tensor {
    let frames = &encoded.frames;
    let share = frames.to_kind(Kind::Float) / frames.max().clamp_min(1).to_kind(Kind::Float);
    let means = encoded.mean.to_kind(Kind::Float) * share.unsqueeze(1);
    let order = frames.argsort_stable(true, 0, true).argsort_stable(true, 0, false);
    means.index_select(0, &order)
}

/// A convolution of width 1 without bias as PyTorch begins it, which is never trained.
fn fixed(path: &nn::Path, outputs: i64, inputs: i64) -> Tensor {
    let mut weight = path.zeros_no_train("weight", &[outputs, inputs]);
    let bound = (inputs as f64).powf(-0.5);
    tch::no_grad(|| weight.uniform_(-bound, bound))
}
