//! The decoder stack: all positions at once for training, one at a time with a cache for generation.

use tch::{Tensor, nn};
use unimse_torch_ext::{fused, recompute};

use super::{Attention, Bias, FeedForward, KeyValue, LayerNorm, Packed, Packing, RelativeBias};
use crate::config::Config;
use crate::fusion::Fusion;

/// Predicts each token from the ones before it and from the encoder's states.
#[derive(Debug)]
pub struct Decoder {
    blocks: Vec<Block>,
    relative: RelativeBias,
    final_norm: LayerNorm,
    dropout: f64,
    /// Blocks keep nothing for the backward pass but what they read.
    recomputes: bool,
}

/// Holds what the rest of the model needs of a pass over all positions.
#[derive(Debug)]
pub struct DecoderOutput {
    /// The states `[B, T, d_model]` after the final norm, or `[rows, d_model]` if they are packed.
    pub states: Tensor,
    /// The stream, of the same size, that the last block read.
    pub last_input: Tensor,
}

/// Carries everything that generation needs from one token to the next: the keys and values of earlier tokens and of
/// the encoder, the position biases, and the utterance vectors for the fusion layers.
#[derive(Debug)]
pub struct Cache {
    blocks: Vec<BlockCache>,
    /// The causal bias `[1, H, max, max]` of all positions that can come.
    self_bias: Tensor,
    cross_bias: Tensor,
    modalities: Option<Tensor>,
    position: i64,
    capacity: i64,
}

#[derive(Debug)]
struct BlockCache {
    own: Option<KeyValue>,
    memory: KeyValue,
}

#[derive(Debug)]
struct Block {
    self_norm: LayerNorm,
    self_attention: Attention,
    cross_norm: LayerNorm,
    cross_attention: Attention,
    feed_forward: FeedForward,
    fusion: Option<Fusion>,
}

/// What all blocks share at one position.
struct Shared<'a> {
    self_bias: &'a Tensor,
    cross_bias: &'a Tensor,
    modalities: Option<&'a Tensor>,
}

impl Decoder {
    /// Creates the stack under `path`, which is the checkpoint's `decoder`.
    pub fn new(path: &nn::Path, config: &Config) -> Self {
        let t5 = &config.t5;
        let first_fused = t5.decoder_layers() - config.unimse.fusion.layers;
        let block_path = |index: i64| path / "block" / index;
        let relative = block_path(0) / "layer" / 0 / "SelfAttention" / "relative_attention_bias";
        Self {
            relative: RelativeBias::new(&relative, t5, false),
            blocks: (0..t5.decoder_layers())
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

    /// Returns the position bias of this stack, for [`Decoder::forward`].
    pub fn relative(&self) -> &RelativeBias {
        &self.relative
    }

    /// Decodes all of `embedded [B, T, d_model]` at once.
    ///
    /// `self_bias [1, H, T, T]` says which position sees which (normally `relative().causal(T)`), `states [B, S,
    /// d_model]` are the encoder's, `cross_bias [B, 1, 1, S]` hides its padding.
    pub fn forward(
        &self,
        embedded: &Tensor,
        self_bias: &Tensor,
        states: &Tensor,
        cross_bias: &Tensor,
        modalities: Option<&Tensor>,
        train: bool,
    ) -> DecoderOutput {
        let biases = [Bias::new(Some(self_bias), None), Bias::new(None, Some(cross_bias))];
        self.run(embedded, self_bias, states, &biases, modalities, train)
    }

    /// Whether it can work on packed rows.
    pub(crate) fn packs(&self) -> bool {
        self.blocks.iter().all(|block| block.self_attention.packs() && block.cross_attention.packs())
    }

    /// The same without padding on either side: `embedded [rows, d_model]`.
    pub fn forward_packed(
        &self,
        embedded: &Tensor,
        packing: &Packing,
        memory: &Packed,
        modalities: Option<&Tensor>,
        train: bool,
    ) -> DecoderOutput {
        let self_bias = self.relative.causal(packing.longest());
        let modalities = modalities.map(|modalities| packing.of_samples(modalities));
        let biases = [Bias::packed(Some(&self_bias), packing, packing), Bias::packed(None, packing, &memory.packing)];
        self.run(embedded, &self_bias, &memory.states, &biases, modalities.as_ref(), train)
    }

    fn run(
        &self,
        embedded: &Tensor,
        self_bias: &Tensor,
        states: &Tensor,
        biases: &[Bias; 2],
        modalities: Option<&Tensor>,
        train: bool,
    ) -> DecoderOutput {
        let mut hidden = fused::dropout(embedded, self.dropout, train);
        let mut last_input = hidden.shallow_clone();
        for block in &self.blocks {
            last_input = hidden;
            hidden = if self.recomputes && last_input.requires_grad() {
                block.recomputed([&last_input, states, self_bias], biases, modalities, train)
            } else {
                block.forward(&last_input, states, biases, modalities, train)
            };
        }
        let states = fused::dropout(&self.final_norm.forward(&hidden), self.dropout, train);
        DecoderOutput { states, last_input }
    }

    /// Prepares the generation of up to `capacity` tokens.
    pub fn start(&self, states: &Tensor, cross_bias: &Tensor, modalities: Option<&Tensor>, capacity: i64) -> Cache {
        Cache {
            blocks: self
                .blocks
                .iter()
                .map(|block| BlockCache { own: None, memory: block.cross_attention.project(states) })
                .collect(),
            self_bias: self.relative.causal(capacity),
            cross_bias: cross_bias.shallow_clone(),
            modalities: modalities.map(Tensor::shallow_clone),
            position: 0,
            capacity,
        }
    }

    /// Decodes the next token, `embedded [B, 1, d_model]`; returns its state `[B, 1, d_model]` after the final norm.
    ///
    /// Call it without gradients: the cache is written in place.
    pub fn step(&self, embedded: &Tensor, cache: &mut Cache) -> Tensor {
        let Cache { blocks, self_bias, cross_bias, modalities, position, capacity } = cache;
        let row = self_bias.narrow(2, *position, 1).narrow(3, 0, *position + 1);
        let shared = Shared { self_bias: &row, cross_bias, modalities: modalities.as_ref() };
        let mut hidden = embedded.shallow_clone();
        for (block, block_cache) in self.blocks.iter().zip(blocks) {
            let slot = Slot { stored: &mut block_cache.own, position: *position, capacity: *capacity };
            hidden = block.step(&hidden, slot, &block_cache.memory, &shared);
        }
        *position += 1;
        self.final_norm.forward(&hidden)
    }
}

impl Block {
    fn new(path: &nn::Path, config: &Config, fused: bool) -> Self {
        let t5 = &config.t5;
        let layer = path / "layer";
        let norm = |index: i64| LayerNorm::new(&(&layer / index / "layer_norm"), t5.d_model, t5.layer_norm_epsilon);
        Self {
            self_attention: Attention::new(&(&layer / 0 / "SelfAttention"), config),
            self_norm: norm(0),
            cross_attention: Attention::new(&(&layer / 1 / "EncDecAttention"), config),
            cross_norm: norm(1),
            feed_forward: FeedForward::new(&(&layer / 2), t5),
            fusion: fused.then(|| Fusion::new(&(path / "fusion"), config)),
        }
    }

    /// As [`Block::forward`], but what is in between is computed again in the backward pass. Gradients flow to the tokens' stream,
    /// the encoder's states, the bias of the tokens and the utterance vectors.
    fn recomputed(
        &self,
        learning: [&Tensor; 3],
        [own, cross]: &[Bias; 2],
        modalities: Option<&Tensor>,
        train: bool,
    ) -> Tensor {
        let (block, own, cross) = (self.share(), own.over(None), cross.over(None));
        let inputs: Vec<&Tensor> = learning.into_iter().chain(modalities).collect();
        recompute::of(&inputs, move |inputs| {
            let biases = [own.over(Some(&inputs[2])), cross.over(None)];
            block.forward(&inputs[0], &inputs[1], &biases, inputs.get(3), train)
        })
    }

    fn share(&self) -> Self {
        Self {
            self_norm: self.self_norm.share(),
            self_attention: self.self_attention.share(),
            cross_norm: self.cross_norm.share(),
            cross_attention: self.cross_attention.share(),
            feed_forward: self.feed_forward.share(),
            fusion: self.fusion.as_ref().map(Fusion::share),
        }
    }

    /// All positions; `biases` are those of the tokens and of the encoder's states.
    fn forward(
        &self,
        hidden: &Tensor,
        states: &Tensor,
        [own, cross]: &[Bias; 2],
        modalities: Option<&Tensor>,
        train: bool,
    ) -> Tensor {
        let hidden = self.self_attention.sublayer(&self.self_norm, hidden, None, own, train);
        let hidden = self.cross_attention.sublayer(&self.cross_norm, &hidden, Some(states), cross, train);
        self.leave(&hidden, modalities, train)
    }

    /// The next position.
    fn step(&self, hidden: &Tensor, slot: Slot, memory: &KeyValue, shared: &Shared) -> Tensor {
        let &Shared { self_bias, cross_bias, modalities } = shared;
        let normed = self.self_norm.forward(hidden);
        let own = slot.append(&self.self_attention.project(&normed));
        let hidden = hidden + self.self_attention.forward(&normed, &own, self_bias, false);
        let normed = self.cross_norm.forward(&hidden);
        let hidden = &hidden + self.cross_attention.forward(&normed, memory, cross_bias, false);
        self.leave(&hidden, modalities, false)
    }

    fn leave(&self, hidden: &Tensor, modalities: Option<&Tensor>, train: bool) -> Tensor {
        let hidden = self.feed_forward.forward(hidden, train);
        match &self.fusion {
            Some(fusion) => fusion.forward(&hidden, modalities),
            None => hidden,
        }
    }
}

/// One block's place in the cache for the keys and values of the next token.
struct Slot<'a> {
    stored: &'a mut Option<KeyValue>,
    position: i64,
    capacity: i64,
}

impl Slot<'_> {
    /// Writes `fresh [B, H, 1, d_kv]` behind the earlier tokens and returns a view of all so far.
    fn append(self, fresh: &KeyValue) -> KeyValue {
        let room = |like: &Tensor| {
            let mut size = like.size();
            size[2] = self.capacity;
            like.new_empty(size, (like.kind(), like.device()))
        };
        let stored = self.stored.get_or_insert_with(|| KeyValue { key: room(&fresh.key), value: room(&fresh.value) });
        let put = |store: &Tensor, new: &Tensor| {
            store.narrow(2, self.position, 1).copy_(new);
            store.narrow(2, 0, self.position + 1)
        };
        KeyValue { key: put(&stored.key, &fresh.key), value: put(&stored.value, &fresh.value) }
    }
}
