//! The model's configuration: a Hugging Face T5 `config.json` plus one key `unimse`.

mod extension;
mod preset;

use serde::{Deserialize, Serialize};

pub use extension::{
    AnswerWay, ContrastiveConfig, FusionConfig, FusionInit, HeadsConfig, LoraConfig, ModalityConfig, UniMseConfig,
};
pub use preset::Preset;

use crate::Error;

/// Describes a whole model; two equal configurations give the same parameter names and shapes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The backbone, under the keys that transformers uses.
    #[serde(flatten)]
    pub t5: T5Config,
    /// What UniMSE adds to it; all defaults if the key is absent, as in a plain T5 directory.
    #[serde(default)]
    pub unimse: UniMseConfig,
}

/// Describes a T5 v1.0 (ReLU, tied) or v1.1 (gated GELU, untied) as Hugging Face's `config.json` does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct T5Config {
    /// Width of the residual stream.
    pub d_model: i64,
    /// Width of one attention head; `num_heads * d_kv` need not be `d_model`.
    pub d_kv: i64,
    /// Inner width of the feed-forward sublayer.
    pub d_ff: i64,
    /// Blocks of the encoder.
    pub num_layers: i64,
    /// Blocks of the decoder; as many as the encoder's if absent.
    #[serde(default)]
    pub num_decoder_layers: Option<i64>,
    /// Attention heads of every block.
    pub num_heads: i64,
    /// Rows of the relative-position table.
    #[serde(default = "default_buckets")]
    pub relative_attention_num_buckets: i64,
    /// Distance from which on all positions share the last bucket.
    #[serde(default = "default_max_distance")]
    pub relative_attention_max_distance: i64,
    /// Probability of dropout, at the places where Hugging Face has it.
    #[serde(default = "default_dropout")]
    pub dropout_rate: f64,
    /// Added to the mean square in every norm.
    #[serde(default = "default_epsilon")]
    pub layer_norm_epsilon: f64,
    /// Scales all initial weights.
    #[serde(default = "default_factor")]
    pub initializer_factor: f64,
    /// The feed-forward sublayer's kind.
    #[serde(default)]
    pub feed_forward_proj: FeedForwardProjection,
    /// Whether the output layer is the embedding (v1.0) or has weights of its own (v1.1).
    #[serde(default = "default_tie")]
    pub tie_word_embeddings: bool,
    /// Whether states are scaled by `d_model^-0.5` before the output layer; as `tie_word_embeddings` if absent.
    /// transformers 5 writes it, because it then writes `tie_word_embeddings: true` for every T5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_decoder_outputs: Option<bool>,
    /// Rows of the embedding; may exceed the tokenizer's vocabulary.
    pub vocab_size: i64,
    /// Token that fills the right of short sequences.
    #[serde(default)]
    pub pad_token_id: i64,
    /// Token that ends a sequence.
    #[serde(default = "default_eos")]
    pub eos_token_id: i64,
    /// Token that starts the decoder; the padding token in all published T5.
    #[serde(default)]
    pub decoder_start_token_id: i64,
}

/// Names the feed-forward sublayer as Hugging Face's `feed_forward_proj` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FeedForwardProjection {
    /// `wo(relu(wi(x)))`, T5 v1.0.
    #[default]
    #[serde(rename = "relu")]
    Relu,
    /// `wo(gelu(wi_0(x)) * wi_1(x))` with the tanh form of GELU, T5 v1.1.
    #[serde(rename = "gated-gelu")]
    GatedGelu,
}

fn default_buckets() -> i64 {
    32
}
fn default_max_distance() -> i64 {
    128
}
fn default_dropout() -> f64 {
    0.1
}
fn default_epsilon() -> f64 {
    1e-6
}
fn default_factor() -> f64 {
    1.0
}
fn default_tie() -> bool {
    true
}
fn default_eos() -> i64 {
    1
}

impl T5Config {
    /// Returns the number of decoder blocks.
    pub fn decoder_layers(&self) -> i64 {
        self.num_decoder_layers.unwrap_or(self.num_layers)
    }

    /// Tells whether states are scaled down before the output layer.
    pub fn scales_outputs(&self) -> bool {
        self.scale_decoder_outputs.unwrap_or(self.tie_word_embeddings)
    }

    /// Returns the width of all heads together.
    pub fn inner_dim(&self) -> i64 {
        self.num_heads * self.d_kv
    }
}

impl Config {
    /// Reads and checks a `config.json`; keys of Hugging Face that do not concern the model are ignored.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        let config: Self = serde_json::from_str(json).map_err(Error::ConfigJson)?;
        config.validate()?;
        Ok(config)
    }

    /// Writes a `config.json` that both transformers and [`Config::from_json`] read.
    pub fn to_json(&self) -> String {
        let mut value = serde_json::to_value(self).expect("plain structs of numbers and strings serialise");
        let map = value.as_object_mut().expect("a struct serialises to an object");
        map.insert("model_type".to_owned(), "t5".into());
        map.insert("architectures".to_owned(), ["T5ForConditionalGeneration"].as_slice().into());
        map.insert("is_encoder_decoder".to_owned(), true.into());
        map.insert("num_decoder_layers".to_owned(), self.t5.decoder_layers().into());
        serde_json::to_string_pretty(&value).expect("a JSON value serialises")
    }

    /// Checks that a model can be built: every size positive, every probability in range, layers that exist.
    pub fn validate(&self) -> Result<(), Error> {
        let t5 = &self.t5;
        for (field, size) in [
            ("d_model", t5.d_model),
            ("d_kv", t5.d_kv),
            ("d_ff", t5.d_ff),
            ("num_layers", t5.num_layers),
            ("num_decoder_layers", t5.decoder_layers()),
            ("num_heads", t5.num_heads),
            ("vocab_size", t5.vocab_size),
        ] {
            positive(field, size)?;
        }
        // Half of the encoder's buckets are for each direction and half of those for exact distances.
        let buckets = t5.relative_attention_num_buckets;
        if buckets < 4 || buckets % 4 != 0 {
            return Err(invalid("relative_attention_num_buckets", buckets, "use a positive multiple of 4, as 32"));
        }
        if t5.relative_attention_max_distance <= buckets / 2 {
            return Err(invalid(
                "relative_attention_max_distance",
                t5.relative_attention_max_distance,
                "use more than half of relative_attention_num_buckets, as 128",
            ));
        }
        probability("dropout_rate", t5.dropout_rate)?;
        if !(t5.layer_norm_epsilon.is_finite() && t5.layer_norm_epsilon > 0.0) {
            return Err(invalid("layer_norm_epsilon", t5.layer_norm_epsilon, "use a small positive number, as 1e-6"));
        }
        if !(t5.initializer_factor.is_finite() && t5.initializer_factor > 0.0) {
            return Err(invalid("initializer_factor", t5.initializer_factor, "use a positive number, as 1.0"));
        }
        for (field, id) in [
            ("pad_token_id", t5.pad_token_id),
            ("eos_token_id", t5.eos_token_id),
            ("decoder_start_token_id", t5.decoder_start_token_id),
        ] {
            if !(0..t5.vocab_size).contains(&id) {
                return Err(invalid(field, id, &format!("use a token id below vocab_size, {}", t5.vocab_size)));
            }
        }
        self.unimse.validate(t5.num_layers, t5.decoder_layers())
    }
}

fn invalid(field: &'static str, value: impl std::fmt::Display, hint: &str) -> Error {
    Error::Config { field, problem: format!("is {value}"), hint: hint.to_owned() }
}

fn positive(field: &'static str, value: i64) -> Result<(), Error> {
    if value > 0 { Ok(()) } else { Err(invalid(field, value, "use a positive whole number")) }
}

fn probability(field: &'static str, value: f64) -> Result<(), Error> {
    if (0.0..1.0).contains(&value) { Ok(()) } else { Err(invalid(field, value, "use a number from 0 to below 1")) }
}

#[cfg(test)]
mod tests;
