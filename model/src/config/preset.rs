//! Sizes by name.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Config, FeedForwardProjection, FusionConfig, ModalityConfig, T5Config, UniMseConfig};
use crate::Error;

/// Names a size; small, base and large are T5 v1.0's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// 3 + 3 blocks of width 128 and a vocabulary of 4096: for demonstrations and tests, trains on two CPU cores.
    Tiny,
    /// 60 M parameters of T5.
    Small,
    /// 223 M parameters of T5; the size of the paper.
    Base,
    /// 738 M parameters of T5.
    Large,
}

impl FromStr for Preset {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "tiny" => Ok(Self::Tiny),
            "small" => Ok(Self::Small),
            "base" => Ok(Self::Base),
            "large" => Ok(Self::Large),
            _ => Err(Error::Config {
                field: "preset",
                problem: format!("is `{name}`"),
                hint: "use tiny, small, base or large".to_owned(),
            }),
        }
    }
}

impl Preset {
    /// Returns the configuration of this size without modalities: set `unimse.acoustic.dims` and `visual.dims` to
    /// what the datasets have, and `t5.vocab_size` if the tokenizer is another one than T5's.
    pub fn config(self) -> Config {
        let (d_model, d_kv, d_ff, layers, heads, vocab_size) = match self {
            Self::Tiny => (128, 32, 256, 3, 4, 4096),
            Self::Small => (512, 64, 2048, 6, 8, 32_128),
            Self::Base => (768, 64, 3072, 12, 12, 32_128),
            Self::Large => (1024, 64, 4096, 24, 16, 32_128),
        };
        let unimse = if self == Self::Tiny {
            let modality = ModalityConfig { hidden: 32, out: 32, ..ModalityConfig::default() };
            UniMseConfig {
                fusion: FusionConfig { bottleneck: 16, ..FusionConfig::default() },
                acoustic: modality.clone(),
                visual: modality,
                ..UniMseConfig::default()
            }
        } else {
            UniMseConfig::default()
        };
        Config {
            t5: T5Config {
                d_model,
                d_kv,
                d_ff,
                num_layers: layers,
                num_decoder_layers: Some(layers),
                num_heads: heads,
                relative_attention_num_buckets: 32,
                relative_attention_max_distance: 128,
                dropout_rate: 0.1,
                layer_norm_epsilon: 1e-6,
                initializer_factor: 1.0,
                feed_forward_proj: FeedForwardProjection::Relu,
                tie_word_embeddings: true,
                scale_decoder_outputs: None,
                vocab_size,
                pad_token_id: 0,
                eos_token_id: 1,
                decoder_start_token_id: 0,
            },
            unimse,
        }
    }
}
