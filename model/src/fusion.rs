//! The multimodal fusion layer (the paper's PMF, "FFN adapter" in the official code).
//!
//! After the whole feed-forward sublayer of a block, with `F = [h; a; v]` (the utterance vectors at every position):
//! `h' = out(F + up(sigmoid(down(F))))`. There is no skip connection and no norm of its own.

use tch::nn::Module;
use tch::{Tensor, nn};

use crate::config::{Config, FusionInit};

/// The deviation of the paper's initial weights. The stream that enters is not normalised, and small weights keep the
/// sigmoid away from its flat ends.
const SMALL: f64 = 0.001;

/// Mixes the utterance vectors of the other modalities into the text stream.
#[derive(Debug)]
pub struct Fusion {
    down: nn::Linear,
    up: nn::Linear,
    out: nn::Linear,
}

impl Fusion {
    /// Creates `down`, `up` and `out` under `path`, a block's `fusion`.
    pub fn new(path: &nn::Path, config: &Config) -> Self {
        let d_model = config.t5.d_model;
        let width = d_model + config.unimse.fused_width();
        let bottleneck = config.unimse.fusion.bottleneck;
        let small = nn::Init::Randn { mean: 0.0, stdev: SMALL };
        let linear = |name: &str, inputs: i64, outputs: i64, ws_init: nn::Init| {
            let config = nn::LinearConfig { ws_init, bs_init: Some(nn::Init::Const(0.0)), bias: true };
            nn::linear(path / name, inputs, outputs, config)
        };
        let down = linear("down", width, bottleneck, small);
        match config.unimse.fusion.init {
            FusionInit::Identity => {
                let mut out = linear("out", width, d_model, nn::Init::Const(0.0));
                let identity = Tensor::eye_m(d_model, width, (out.ws.kind(), out.ws.device()));
                tch::no_grad(|| out.ws.copy_(&identity));
                Self { down, up: linear("up", bottleneck, width, nn::Init::Const(0.0)), out }
            }
            FusionInit::Paper => {
                let bound = (width as f64).powf(-0.5);
                let uniform = nn::Init::Uniform { lo: -bound, up: bound };
                let config = nn::LinearConfig { ws_init: uniform, bs_init: Some(uniform), bias: true };
                Self {
                    down,
                    up: linear("up", bottleneck, width, small),
                    out: nn::linear(path / "out", width, d_model, config),
                }
            }
        }
    }

    /// The same layer: its weights are shared.
    pub(crate) fn share(&self) -> Self {
        let linear = |layer: &nn::Linear| nn::Linear {
            ws: layer.ws.shallow_clone(),
            bs: layer.bs.as_ref().map(Tensor::shallow_clone),
        };
        Self { down: linear(&self.down), up: linear(&self.up), out: linear(&self.out) }
    }

    /// Maps the stream `[B, L, d_model]` with the utterance vectors `[B, da + dv]` to the stream after fusion. A packed stream
    /// `[rows, d_model]` takes a vector a row.
    pub fn forward(&self, hidden: &Tensor, modalities: Option<&Tensor>) -> Tensor {
        let joined = match modalities {
            Some(modalities) if hidden.dim() == 2 => Tensor::cat(&[hidden, modalities], -1),
            Some(modalities) => {
                let everywhere = modalities.unsqueeze(1).expand([-1, hidden.size()[1], -1], false);
                Tensor::cat(&[hidden, &everywhere], -1)
            }
            None => hidden.shallow_clone(),
        };
        let mixed = self.up.forward(&self.down.forward(&joined).sigmoid());
        // Under autocast the product is rounded to 16 bits; what the following blocks add to the stream must not be.
        self.out.forward(&(joined + mixed)).to_kind(hidden.kind())
    }
}

#[cfg(test)]
mod tests;
