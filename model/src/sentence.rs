//! A sentence encoder: BERT with a pooled output, exact to Hugging Face's `BertModel`.
//!
//! It finds for an utterance the most similar one of another dataset, whose label is copied (universal labels). Any BERT directory
//! loads: SimCSE, whose vector is the pooler's output, MiniLM of sentence-transformers, whose vector is the mean over tokens.
//!
//! References: Devlin et al. 2019 (arXiv 1810.04805); transformers `models/bert/modeling_bert.py`.

mod layer;

use std::path::Path;

use serde::Deserialize;
use tch::nn::Module;
use tch::{Device, Kind, Tensor, nn};

use crate::Error;
use crate::contrastive::masked_mean;
use crate::t5::padding_bias;
use crate::weights::WeightFiles;

use layer::{Layer, dense, layer_norm};

/// Names which of BERT's outputs is the sentence's vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The state of the first token.
    Cls,
    /// The first token's state through the pooler's layer and tanh, `pooler_output` of transformers.
    Pooler,
    /// The mean of the states of all tokens that are not padding.
    Mean,
}

/// Describes a BERT as Hugging Face's `config.json` does.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SentenceConfig {
    /// `bert`; nothing else is understood.
    pub model_type: String,
    /// Width of the stream.
    pub hidden_size: i64,
    /// Blocks.
    pub num_hidden_layers: i64,
    /// Heads of every block.
    pub num_attention_heads: i64,
    /// Inner width of the feed-forward sublayer.
    pub intermediate_size: i64,
    /// Rows of the table of positions, the longest input.
    pub max_position_embeddings: i64,
    /// Rows of the table of segments.
    #[serde(default = "two")]
    pub type_vocab_size: i64,
    /// Rows of the embedding.
    pub vocab_size: i64,
    /// Added to the variance in every norm.
    #[serde(default = "epsilon")]
    pub layer_norm_eps: f64,
    /// `gelu`; nothing else is understood.
    #[serde(default = "gelu")]
    pub hidden_act: String,
}

fn two() -> i64 {
    2
}
fn epsilon() -> f64 {
    1e-12
}
fn gelu() -> String {
    "gelu".to_owned()
}

/// Turns token numbers into vectors of length 1.
#[derive(Debug)]
pub struct SentenceEncoder {
    words: nn::Embedding,
    positions: nn::Embedding,
    segments: nn::Embedding,
    norm: nn::LayerNorm,
    layers: Vec<Layer>,
    pooler: Option<nn::Linear>,
    pooling: Pooling,
    longest: i64,
    device: Device,
}

/// What a module of `modules.json` pools, as sentence-transformers writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PoolingConfig {
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
}

impl SentenceEncoder {
    /// Loads a directory's `config.json` and its weights, which are given. Without `pooling`, `1_Pooling/config.json` decides; where that
    /// is absent too, it is the pooler if the weights have one, else the first token.
    ///
    /// Fails if a file is missing, the model is not a BERT, or a tensor is missing or has another shape.
    pub fn open(
        folder: &Path,
        mut files: WeightFiles,
        pooling: Option<Pooling>,
        device: Device,
    ) -> Result<Self, Error> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Io { path, source })?;
        let config: SentenceConfig = serde_json::from_str(&text).map_err(Error::ConfigJson)?;
        config.validate()?;
        // Models with a head on top keep the encoder under a name of its own, and so did old programs the norms.
        let names: Vec<String> = files.names().map(str::to_owned).collect();
        for name in &names {
            let plain = name.strip_prefix("bert.").unwrap_or(name);
            let plain =
                plain.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias");
            files.rename(name, &plain);
        }
        let has_pooler = files.contains("pooler.dense.weight");
        let pooling = pooling.or_else(|| published_pooling(folder)).unwrap_or(if has_pooler {
            Pooling::Pooler
        } else {
            Pooling::Cls
        });
        let store = nn::VarStore::new(device);
        let encoder = Self::new(&store.root(), &config, pooling, device);
        let missing = files.load_into(&store)?.missing;
        if missing.is_empty() { Ok(encoder) } else { Err(Error::Missing { names: missing }) }
    }

    fn new(path: &nn::Path, config: &SentenceConfig, pooling: Pooling, device: Device) -> Self {
        let (hidden, embeddings) = (config.hidden_size, path / "embeddings");
        let table =
            |name: &str, rows: i64| nn::embedding(&embeddings / name, rows, hidden, nn::EmbeddingConfig::default());
        let layers = path / "encoder" / "layer";
        Self {
            words: table("word_embeddings", config.vocab_size),
            positions: table("position_embeddings", config.max_position_embeddings),
            segments: table("token_type_embeddings", config.type_vocab_size),
            norm: layer_norm(&(&embeddings / "LayerNorm"), config),
            layers: (0..config.num_hidden_layers).map(|index| Layer::new(&(&layers / index), config)).collect(),
            pooler: (pooling == Pooling::Pooler).then(|| dense(&(path / "pooler" / "dense"), hidden, hidden)),
            pooling,
            longest: config.max_position_embeddings,
            device,
        }
    }

    /// Returns the longest input in tokens, the special ones included.
    pub fn longest(&self) -> i64 {
        self.longest
    }

    /// Returns which output is the sentence's vector.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Encodes token numbers `ids [B, L]` (`Int64`) of which `mask [B, L]` is 0 at padding; returns unit vectors `[B, hidden]`.
    pub fn encode(&self, ids: &Tensor, mask: &Tensor) -> Tensor {
        tch::no_grad(|| {
            let pooled = self.pooled(&ids.to_device(self.device), &mask.to_device(self.device));
            let length = pooled.norm_scalaropt_dim(2, -1, true).clamp_min(1e-12);
            pooled / length
        })
    }

    fn pooled(&self, ids: &Tensor, mask: &Tensor) -> Tensor {
        let states = self.states(ids, mask);
        let first = || states.select(1, 0);
        match (&self.pooler, self.pooling) {
            (Some(pooler), _) => pooler.forward(&first()).tanh(),
            (None, Pooling::Mean) => masked_mean(&states, mask),
            (None, _) => first(),
        }
    }

    /// The states `[B, L, hidden]` of the last block.
    fn states(&self, ids: &Tensor, mask: &Tensor) -> Tensor {
        let length = ids.size()[1];
        let positions = Tensor::arange(length, (Kind::Int64, ids.device()));
        let segments = Tensor::zeros([1], (Kind::Int64, ids.device()));
        let embedded = self.words.forward(ids) + self.positions.forward(&positions) + self.segments.forward(&segments);
        let bias = padding_bias(mask, embedded.kind());
        self.layers.iter().fold(self.norm.forward(&embedded), |states, layer| layer.forward(&states, &bias))
    }
}

impl SentenceConfig {
    fn validate(&self) -> Result<(), Error> {
        let refuse = |field, problem: String, hint: &str| Err(Error::Config { field, problem, hint: hint.to_owned() });
        if self.model_type != "bert" {
            return refuse("model_type", format!("is `{}`", self.model_type), "use a BERT, as SimCSE or MiniLM");
        }
        if self.hidden_act != "gelu" {
            return refuse("hidden_act", format!("is `{}`", self.hidden_act), "use a BERT with gelu");
        }
        for (field, size) in [
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
            ("vocab_size", self.vocab_size),
        ] {
            if !(1..=1 << 24).contains(&size) {
                return refuse(field, format!("is {size}"), "use a positive number of a usual size");
            }
        }
        if self.hidden_size % self.num_attention_heads != 0 {
            let hint = "use a multiple of num_attention_heads";
            return refuse("hidden_size", format!("is {}", self.hidden_size), hint);
        }
        Ok(())
    }
}

fn published_pooling(folder: &Path) -> Option<Pooling> {
    let text = std::fs::read_to_string(folder.join("1_Pooling").join("config.json")).ok()?;
    let config: PoolingConfig = serde_json::from_str(&text).ok()?;
    match config {
        PoolingConfig { pooling_mode_mean_tokens: true, .. } => Some(Pooling::Mean),
        PoolingConfig { pooling_mode_cls_token: true, .. } => Some(Pooling::Cls),
        PoolingConfig { .. } => None,
    }
}

#[cfg(test)]
mod tests;
