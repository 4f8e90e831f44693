//! Multi-head attention without scaling.

use std::cell::OnceCell;
use std::sync::Arc;

use tch::{Kind, Tensor, nn};
use unimse_torch_ext::{accumulate, autocast, fused, sublayer};

use super::lora::Projection;
use super::{LayerNorm, Linear, Packing, projection};
use crate::config::Config;

/// Attends with queries from one sequence to keys and values of the same or another.
#[derive(Debug)]
pub struct Attention {
    q: Projection,
    k: Linear,
    v: Projection,
    o: Linear,
    heads: i64,
    d_kv: i64,
    dropout: f64,
}

/// Holds keys and values, each `[B, H, S, d_kv]`.
#[derive(Debug)]
pub struct KeyValue {
    /// What queries are compared with.
    pub key: Tensor,
    /// What is averaged.
    pub value: Tensor,
}

/// What is added to the scores of all blocks of a stack.
#[derive(Debug)]
pub struct Bias {
    /// `[1, H, Q, S]`, for relative positions.
    relative: Option<Tensor>,
    /// `[B, 1, 1, S]`, which hides padding.
    padding: Option<Tensor>,
    /// Where the rows of samples begin, of what asks and of what is read, if there is no padding between them.
    rows: Option<[Arc<[i64]>; 2]>,
    /// Both, once somebody needs them as one.
    sum: OnceCell<Tensor>,
    /// The same without gradients, as a GPU's attention wants it.
    whole: OnceCell<Tensor>,
}

impl Bias {
    /// Takes what there is of both; there must be one.
    pub fn new(relative: Option<&Tensor>, padding: Option<&Tensor>) -> Self {
        let [relative, padding] = [relative, padding].map(|part| part.map(Tensor::shallow_clone));
        Self { relative, padding, rows: None, sum: OnceCell::new(), whole: OnceCell::new() }
    }

    /// For packed rows, whose padding needs no hiding.
    pub fn packed(relative: Option<&Tensor>, queries: &Packing, keys: &Packing) -> Self {
        let rows = Some([queries, keys].map(Packing::starts));
        let relative = relative.map(Tensor::shallow_clone);
        Self { relative, padding: None, rows, sum: OnceCell::new(), whole: OnceCell::new() }
    }

    /// The same with another tensor of relative positions, which may be a leaf of another graph.
    pub(super) fn over(&self, relative: Option<&Tensor>) -> Self {
        let [relative, padding] = [relative, self.padding.as_ref()].map(|part| part.map(Tensor::shallow_clone));
        Self { relative, padding, rows: self.rows.clone(), sum: OnceCell::new(), whole: OnceCell::new() }
    }

    /// A tensor that broadcasts to `[B, H, Q, S]`.
    fn sum(&self) -> &Tensor {
        self.sum.get_or_init(|| match (&self.relative, &self.padding) {
            (Some(relative), Some(padding)) => relative + padding,
            (Some(one), None) | (None, Some(one)) => one.shallow_clone(),
            (None, None) => unreachable!("a stack has positions or padding"),
        })
    }

    /// The same in element type `kind` for one block: its gradient is summed over the batch before those of blocks are added up. A bias of
    /// all scores has as many numbers as all of them, and at long inputs adding up a dozen such gradients takes longer than
    /// the attention itself.
    fn of_block(&self, kind: Kind) -> Tensor {
        let whole = self.whole.get_or_init(|| {
            let sum = || {
                let padding = self.padding.as_ref();
                self.relative.as_ref().map_or_else(
                    || padding.expect("a stack has positions or padding").shallow_clone(),
                    |relative| padding.map_or_else(|| relative.detach(), |padding| relative + padding),
                )
            };
            tch::no_grad(|| sum().to_kind(kind))
        });
        match &self.relative {
            Some(relative) if relative.requires_grad() => accumulate::shared(relative, whole),
            _ => whole.shallow_clone(),
        }
    }
}

impl Attention {
    /// Creates `q, k, v, o` under `path`, which is `SelfAttention` or `EncDecAttention` of a block's layer.
    pub fn new(path: &nn::Path, config: &Config) -> Self {
        let (config, lora) = (&config.t5, &config.unimse.lora);
        let (d_model, inner, factor) = (config.d_model, config.inner_dim(), config.initializer_factor);
        let model = d_model as f64;
        Self {
            q: Projection::new(&(path / "q"), d_model, inner, factor * (model * config.d_kv as f64).powf(-0.5), lora),
            k: projection(&(path / "k"), d_model, inner, factor * model.powf(-0.5)),
            v: Projection::new(&(path / "v"), d_model, inner, factor * model.powf(-0.5), lora),
            o: projection(&(path / "o"), inner, d_model, factor * (inner as f64).powf(-0.5)),
            heads: config.num_heads,
            d_kv: config.d_kv,
            dropout: config.dropout_rate,
        }
    }

    /// The same attention: its weights are shared.
    pub(super) fn share(&self) -> Self {
        let Self { q, k, v, o, heads, d_kv, dropout } = self;
        let (heads, d_kv, dropout) = (*heads, *d_kv, *dropout);
        Self { q: q.share(), k: k.share(), v: v.share(), o: o.share(), heads, d_kv, dropout }
    }

    /// Whether it can work on packed rows, where the fused sublayer can be used.
    pub(super) fn packs(&self) -> bool {
        self.q.is_plain() && self.v.is_plain()
    }

    /// Computes the keys and values of `states [B, S, d_model]`.
    pub fn project(&self, states: &Tensor) -> KeyValue {
        let [key, value] = accumulate::linears(states, [&self.k.weight, self.v.weight()]);
        KeyValue { key: self.split(&key), value: self.split(&self.v.updated(value, states)) }
    }

    /// Does a block's whole sublayer: `hidden [B, Q, d_model]` plus what `norm(hidden)` finds in the states `[B, S, d_model]`, or in
    /// itself where none are given.
    pub fn sublayer(
        &self,
        norm: &LayerNorm,
        hidden: &Tensor,
        states: Option<&Tensor>,
        bias: &Bias,
        train: bool,
    ) -> Tensor {
        if sublayer::fits(hidden) && self.packs() {
            let p = if train { self.dropout } else { 0.0 };
            let weights = [self.q.weight(), &self.k.weight, self.v.weight(), &self.o.weight];
            let fused =
                sublayer::Attention { norm: &norm.weight, weights, heads: self.heads, epsilon: norm.epsilon, p };
            return match &bias.rows {
                Some([queries, keys]) => {
                    fused.packed(hidden, states, bias.relative.as_ref(), sublayer::Rows { queries, keys })
                }
                None => fused.forward(hidden, states, bias.relative.as_ref(), bias.padding.as_ref()),
            };
        }
        assert!(bias.rows.is_none(), "packed rows are for the fused sublayer only");
        let normed = norm.forward(hidden);
        let memory = self.project(states.unwrap_or(&normed));
        let attended = if normed.device().is_cuda() {
            let kind = if autocast::enabled(true) { Kind::BFloat16 } else { normed.kind() };
            self.forward(&normed, &memory, &bias.of_block(kind), train)
        } else {
            self.forward(&normed, &memory, bias.sum(), train)
        };
        fused::dropout_add(&attended, hidden, self.dropout, train)
    }

    /// Attends from `hidden [B, Q, d_model]`; `bias` is added to the scores and broadcasts to `[B, H, Q, S]`.
    pub fn forward(&self, hidden: &Tensor, memory: &KeyValue, bias: &Tensor, train: bool) -> Tensor {
        let query = self.split(&self.q.forward(hidden));
        let attended = if query.device().is_cuda() {
            // The memory-efficient kernel is the only fused one that gives the bias a gradient.
            let dropout = if train { self.dropout } else { 0.0 };
            let bias = bias.to_kind(query.kind());
            let KeyValue { key, value } = memory;
            Tensor::scaled_dot_product_attention(&query, key, value, Some(&bias), dropout, false, 1.0, false)
        } else {
            // libtorch's fused CPU kernel gives the bias no gradient, and at our lengths it is not faster.
            let mut scores = query.matmul(&memory.key.transpose(-1, -2));
            scores += bias;
            let wide = if scores.kind() == Kind::Double { Kind::Double } else { Kind::Float };
            let weights = scores.softmax(-1, wide).to_kind(memory.value.kind());
            fused::dropout(&weights, self.dropout, train).matmul(&memory.value)
        };
        let (batch, length) = (hidden.size()[0], hidden.size()[1]);
        self.o.forward(&attended.transpose(1, 2).reshape([batch, length, self.heads * self.d_kv]))
    }

    /// Splits `[B, L, H * d_kv]` into heads `[B, H, L, d_kv]`, a view.
    fn split(&self, projected: &Tensor) -> Tensor {
        let size = projected.size();
        projected.view([size[0], size[1], self.heads, self.d_kv]).transpose(1, 2)
    }
}
