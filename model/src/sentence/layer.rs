//! One block of BERT: norms after the additions, scaled attention, exact GELU.

use tch::nn::Module;
use tch::{Kind, Tensor, nn};

use super::SentenceConfig;

#[derive(Debug)]
pub(super) struct Layer {
    query: nn::Linear,
    key: nn::Linear,
    value: nn::Linear,
    attended: nn::Linear,
    attention_norm: nn::LayerNorm,
    widen: nn::Linear,
    narrow: nn::Linear,
    norm: nn::LayerNorm,
    heads: i64,
}

impl Layer {
    pub(super) fn new(path: &nn::Path, config: &SentenceConfig) -> Self {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (attention, output) = (path / "attention", path / "output");
        let own = |name: &str| dense(&(&attention / "self" / name), hidden, hidden);
        Self {
            query: own("query"),
            key: own("key"),
            value: own("value"),
            attended: dense(&(&attention / "output" / "dense"), hidden, hidden),
            attention_norm: layer_norm(&(&attention / "output" / "LayerNorm"), config),
            widen: dense(&(path / "intermediate" / "dense"), hidden, inner),
            narrow: dense(&(&output / "dense"), inner, hidden),
            norm: layer_norm(&(&output / "LayerNorm"), config),
            heads: config.num_attention_heads,
        }
    }

    /// Maps states `[B, L, hidden]`; `bias [B, 1, 1, L]` hides padding.
    pub(super) fn forward(&self, states: &Tensor, bias: &Tensor) -> Tensor {
        let size = states.size();
        let width = size[2] / self.heads;
        let split = |tensor: Tensor| tensor.view([size[0], size[1], self.heads, width]).transpose(1, 2);
        let [query, key, value] = [&self.query, &self.key, &self.value].map(|linear| split(linear.forward(states)));
        let scores = query.matmul(&key.transpose(-1, -2)) / (width as f64).sqrt() + bias;
        let attended = scores.softmax(-1, Kind::Float).matmul(&value).transpose(1, 2).reshape(size.as_slice());
        let states = self.attention_norm.forward(&(self.attended.forward(&attended) + states));
        let inner = self.widen.forward(&states).gelu("none");
        self.norm.forward(&(self.narrow.forward(&inner) + states))
    }
}

/// A linear layer whose values come from a file.
pub(super) fn dense(path: &nn::Path, inputs: i64, outputs: i64) -> nn::Linear {
    let zero = nn::Init::Const(0.0);
    nn::linear(path, inputs, outputs, nn::LinearConfig { ws_init: zero, bs_init: Some(zero), bias: true })
}

pub(super) fn layer_norm(path: &nn::Path, config: &SentenceConfig) -> nn::LayerNorm {
    let options = nn::LayerNormConfig { eps: config.layer_norm_eps, ..nn::LayerNormConfig::default() };
    nn::layer_norm(path, vec![config.hidden_size], options)
}
