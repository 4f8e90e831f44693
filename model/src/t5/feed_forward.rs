//! The feed-forward sublayer, `DenseReluDense` in the checkpoint.

use tch::{Tensor, nn};
use unimse_torch_ext::{fused, sublayer};

use super::{LayerNorm, Linear, projection};
use crate::config::{FeedForwardProjection, T5Config};

/// Norm, widen, activate, narrow, add to the stream.
#[derive(Debug)]
pub struct FeedForward {
    norm: LayerNorm,
    inner: Inner,
    wo: Linear,
    dropout: f64,
}

#[derive(Debug)]
enum Inner {
    Relu { wi: Linear },
    GatedGelu { wi_0: Linear, wi_1: Linear },
}

impl FeedForward {
    /// Creates the sublayer under `path`, which is a block's `layer.1` (encoder) or `layer.2` (decoder).
    pub fn new(path: &nn::Path, config: &T5Config) -> Self {
        let dense = path / "DenseReluDense";
        let (d_model, d_ff, factor) = (config.d_model, config.d_ff, config.initializer_factor);
        let widen = |name: &str| projection(&(&dense / name), d_model, d_ff, factor * (d_model as f64).powf(-0.5));
        let inner = match config.feed_forward_proj {
            FeedForwardProjection::Relu => Inner::Relu { wi: widen("wi") },
            FeedForwardProjection::GatedGelu => Inner::GatedGelu { wi_0: widen("wi_0"), wi_1: widen("wi_1") },
        };
        Self {
            inner,
            wo: projection(&(&dense / "wo"), d_ff, d_model, factor * (d_ff as f64).powf(-0.5)),
            norm: LayerNorm::new(&(path / "layer_norm"), d_model, config.layer_norm_epsilon),
            dropout: config.dropout_rate,
        }
    }

    /// The same sublayer: its weights are shared.
    pub(super) fn share(&self) -> Self {
        let inner = match &self.inner {
            Inner::Relu { wi } => Inner::Relu { wi: wi.share() },
            Inner::GatedGelu { wi_0, wi_1 } => Inner::GatedGelu { wi_0: wi_0.share(), wi_1: wi_1.share() },
        };
        Self { norm: self.norm.share(), inner, wo: self.wo.share(), dropout: self.dropout }
    }

    /// Maps the stream `[B, L, d_model]` to the stream after this sublayer.
    pub fn forward(&self, hidden: &Tensor, train: bool) -> Tensor {
        if sublayer::fits(hidden) {
            let p = if train { self.dropout } else { 0.0 };
            let (LayerNorm { weight: norm, epsilon }, wo) = (&self.norm, &self.wo.weight);
            return match &self.inner {
                Inner::Relu { wi } => sublayer::feed_forward(hidden, norm, &wi.weight, wo, *epsilon, p),
                Inner::GatedGelu { wi_0, wi_1 } => {
                    sublayer::gated_feed_forward(hidden, norm, [&wi_0.weight, &wi_1.weight], wo, *epsilon, p)
                }
            };
        }
        let normed = self.norm.forward(hidden);
        let inner = match &self.inner {
            Inner::Relu { wi } => wi.forward(&normed).relu(),
            Inner::GatedGelu { wi_0, wi_1 } => wi_0.forward(&normed).gelu("tanh") * wi_1.forward(&normed),
        };
        let narrowed = self.wo.forward(&fused::dropout(&inner, self.dropout, train));
        fused::dropout_add(&narrowed, hidden, self.dropout, train)
    }
}
