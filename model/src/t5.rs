//! T5 v1.0 and v1.1, exact to Hugging Face's `T5ForConditionalGeneration`.
//!
//! - Pre-norm blocks with RMS norm (no mean, no bias), variance in 32 bits.
//! - No scaling of q·k: the initial weights contain it.
//! - Relative-position buckets, bidirectional in the encoder and looking back only in the decoder. The table lives in
//!   block 0 and its bias is computed once a forward pass and shared by all blocks; cross-attention has none.
//! - Dropout after the embedding, on attention probabilities, inside and after the feed-forward sublayer, after each
//!   attention, and after the final norm.
//! - Fusion layers (see [`crate::fusion`]) follow the last blocks of both stacks.
//!
//! References: Raffel et al. 2020 (arXiv 1910.10683); transformers `models/t5/modeling_t5.py`.

mod attention;
mod decoder;
mod encoder;
mod feed_forward;
mod layer_norm;
mod linear;
mod lora;
mod packing;
mod position;

pub use attention::{Attention, Bias, KeyValue};
pub use decoder::{Cache, Decoder, DecoderOutput};
pub use encoder::{Encoder, EncoderOutput};
pub use feed_forward::FeedForward;
pub use layer_norm::LayerNorm;
pub(crate) use linear::{Linear, projection};
pub use packing::{Packed, Packing};
pub use position::RelativeBias;

use tch::{Kind, Tensor};

/// Returns the bias `[B, 1, 1, S]` that hides the positions where `mask [B, S]` is 0, in element type `kind`.
pub fn padding_bias(mask: &Tensor, kind: Kind) -> Tensor {
    let hidden = mask.eq(0).unsqueeze(1).unsqueeze(1);
    Tensor::zeros(hidden.size(), (kind, mask.device())).masked_fill(&hidden, lowest(kind))
}

/// Returns the lowest finite number of a floating-point kind, which hides a position without making a row that is
/// hidden altogether NaN.
pub(crate) fn lowest(kind: Kind) -> f64 {
    match kind {
        Kind::Half => -65_504.0,
        Kind::BFloat16 => -3.389_531_389_251_535_5e38,
        Kind::Double => f64::MIN,
        _ => f64::from(f32::MIN),
    }
}

#[cfg(test)]
mod tests;
