//! The encoder stack.

use tch::{Tensor, nn};
use unimse_torch_ext::{fused, recompute};

use super::{Attention, Bias, FeedForward, LayerNorm, Packing, RelativeBias, padding_bias};
use crate::config::Config;
use crate::fusion::Fusion;

/// Reads the whole input at once, every position seeing every other.
#[derive(Debug)]
pub struct Encoder {
    blocks: Vec<Block>,
    relative: RelativeBias,
    final_norm: LayerNorm,
    dropout: f64,
    /// Blocks keep nothing for the backward pass but what they read.
    recomputes: bool,
}

/// Holds what the rest of the model needs of an encoder pass.
#[derive(Debug)]
pub struct EncoderOutput {
    /// The states `[B, L, d_model]` after the final norm, or `[rows, d_model]` if they are packed.
    pub states: Tensor,
    /// The stream, of the same size, after each of the last blocks that were asked for, fusion included, first to last.
    pub blocks: Vec<Tensor>,
}

#[derive(Debug)]
struct Block {
    norm: LayerNorm,
    attention: Attention,
    feed_forward: FeedForward,
    fusion: Option<Fusion>,
}

impl Encoder {
    /// Creates the stack under `path`, which is the checkpoint's `encoder`.
    pub fn new(path: &nn::Path, config: &Config) -> Self {
        let t5 = &config.t5;
        let first_fused = t5.num_layers - config.unimse.fusion.layers;
        let block_path = |index: i64| path / "block" / index;
        let relative = block_path(0) / "layer" / 0 / "SelfAttention" / "relative_attention_bias";
        Self {
            relative: RelativeBias::new(&relative, t5, true),
            blocks: (0..t5.num_layers)
                .map(|index| Block::new(&block_path(index), config, index >= first_fused))
                .collect(),
            final_norm: LayerNorm::new(&(path / "final_layer_norm"), t5.d_model, t5.layer_norm_epsilon),
            dropout: t5.dropout_rate,
            recomputes: false,
        }
    }

    /// Switches activation checkpointing on or off.
    pub(crate) fn set_recomputes(&mut self, on: bool) {
        self.recomputes = on;
    }

    /// Whether it can work on packed rows.
    pub(crate) fn packs(&self) -> bool {
        self.blocks.iter().all(|block| block.attention.packs())
    }

    /// Encodes `embedded [B, L, d_model]`. Positions where `mask [B, L]` is 0 are seen by none, `modalities [B, M]`
    /// are the utterance vectors for the fusion layers, and the streams of the last `keep` blocks are returned too.
    pub fn forward(
        &self,
        embedded: &Tensor,
        mask: &Tensor,
        modalities: Option<&Tensor>,
        keep: usize,
        train: bool,
    ) -> EncoderOutput {
        let (relative, padding) = (self.relative.forward(embedded.size()[1]), padding_bias(mask, embedded.kind()));
        self.run(embedded, &relative, &Bias::new(Some(&relative), Some(&padding)), modalities, keep, train)
    }

    /// The same without padding: `embedded [rows, d_model]`.
    pub fn forward_packed(
        &self,
        embedded: &Tensor,
        packing: &Packing,
        modalities: Option<&Tensor>,
        keep: usize,
        train: bool,
    ) -> EncoderOutput {
        let relative = self.relative.forward(packing.longest());
        let modalities = modalities.map(|modalities| packing.of_samples(modalities));
        let bias = Bias::packed(Some(&relative), packing, packing);
        self.run(embedded, &relative, &bias, modalities.as_ref(), keep, train)
    }

    fn run(
        &self,
        embedded: &Tensor,
        relative: &Tensor,
        bias: &Bias,
        modalities: Option<&Tensor>,
        keep: usize,
        train: bool,
    ) -> EncoderOutput {
        let mut hidden = fused::dropout(embedded, self.dropout, train);
        let first_kept = self.blocks.len().saturating_sub(keep);
        let mut blocks = Vec::with_capacity(keep);
        for (index, block) in self.blocks.iter().enumerate() {
            hidden = if self.recomputes && hidden.requires_grad() {
                block.recomputed(&hidden, relative, bias, modalities, train)
            } else {
                block.forward(&hidden, bias, modalities, train)
            };
            if index >= first_kept {
                blocks.push(hidden.shallow_clone());
            }
        }
        let states = fused::dropout(&self.final_norm.forward(&hidden), self.dropout, train);
        EncoderOutput { states, blocks }
    }
}

impl Block {
    fn new(path: &nn::Path, config: &Config, fused: bool) -> Self {
        let t5 = &config.t5;
        let layer = path / "layer";
        Self {
            attention: Attention::new(&(&layer / 0 / "SelfAttention"), config),
            norm: LayerNorm::new(&(&layer / 0 / "layer_norm"), t5.d_model, t5.layer_norm_epsilon),
            feed_forward: FeedForward::new(&(&layer / 1), t5),
            fusion: fused.then(|| Fusion::new(&(path / "fusion"), config)),
        }
    }

    /// As [`Block::forward`], but what is in between is computed again in the backward pass.
    fn recomputed(
        &self,
        hidden: &Tensor,
        relative: &Tensor,
        bias: &Bias,
        modalities: Option<&Tensor>,
        train: bool,
    ) -> Tensor {
        let (block, bias) = (self.share(), bias.over(None));
        let inputs: Vec<&Tensor> = [hidden, relative].into_iter().chain(modalities).collect();
        recompute::of(&inputs, move |inputs| {
            block.forward(&inputs[0], &bias.over(Some(&inputs[1])), inputs.get(2), train)
        })
    }

    fn share(&self) -> Self {
        let Self { norm, attention, feed_forward, fusion } = self;
        let fusion = fusion.as_ref().map(Fusion::share);
        Self { norm: norm.share(), attention: attention.share(), feed_forward: feed_forward.share(), fusion }
    }

    fn forward(&self, hidden: &Tensor, bias: &Bias, modalities: Option<&Tensor>, train: bool) -> Tensor {
        let hidden = self.attention.sublayer(&self.norm, hidden, None, bias, train);
        let hidden = self.feed_forward.forward(&hidden, train);
        match &self.fusion {
            Some(fusion) => fusion.forward(&hidden, modalities),
            None => hidden,
        }
    }
}
