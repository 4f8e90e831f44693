//! The whole model: T5 with fusion layers, the modality encoders and the contrastive losses.

mod batch;

pub use batch::{Batch, Inputs, Output};

use tch::{Kind, Tensor, nn};
use unimse_torch_ext::{accumulate, fused, sublayer};

use crate::Error;
use crate::config::Config;
use crate::contrastive::{Contrastive, Legacy, Views, masked_mean};
use crate::encoders::{EncodedModality, ModalityEncoder};
use crate::heads::Heads;
use crate::t5::{Cache, Decoder, DecoderOutput, Encoder, Linear, Packed, Packing, padding_bias, projection};

/// Marks target positions that are padding; they have no loss.
pub const IGNORED_TARGET: i64 = -100;

/// Generates universal labels from text, sound and picture.
#[derive(Debug)]
pub struct UniMse {
    config: Config,
    /// `[vocab, d_model]`, the embedding of both stacks and, if tied, the output layer.
    shared: Tensor,
    acoustic: Option<ModalityEncoder>,
    visual: Option<ModalityEncoder>,
    encoder: Encoder,
    decoder: Decoder,
    contrastive: Option<Contrastive>,
    legacy: Option<Legacy>,
    heads: Option<Heads>,
    lm_head: Option<Linear>,
}

/// Holds everything that the decoder and the losses need of the input side.
#[derive(Debug)]
pub struct Encoded {
    /// The encoder's states `[B, L, d_model]`.
    pub states: Tensor,
    /// `[B, 1, 1, L]`, hides the padding of `states`.
    pub cross_bias: Tensor,
    /// The utterance vectors `[B, da + dv]` for the fusion layers; `None` for a text-only model.
    pub modalities: Option<Tensor>,
    /// The text streams after the last encoder blocks, for the contrastive losses: `[B, L, d_model]`, or `[rows, d_model]` if packed.
    pub blocks: Vec<Tensor>,
    /// The states without padding, where they were made so.
    pub packed: Option<Packed>,
    /// The acoustic side, if the model has one.
    pub acoustic: Option<EncodedModality>,
    /// The visual side, if the model has one.
    pub visual: Option<EncodedModality>,
}

impl Encoded {
    /// Keeps `length` samples from `start` on, as views.
    pub(crate) fn narrow(&self, start: i64, length: i64) -> Self {
        let cut = |tensor: &Tensor| tensor.narrow(0, start, length);
        Self {
            states: cut(&self.states),
            cross_bias: cut(&self.cross_bias),
            modalities: self.modalities.as_ref().map(cut),
            blocks: Vec::new(),
            packed: None,
            acoustic: None,
            visual: None,
        }
    }

    /// Averages each sample's states `[B, d_model]` over its text, which `mask [B, L]` shows.
    pub(crate) fn mean_state(&self, mask: &Tensor) -> Tensor {
        match &self.packed {
            Some(packed) => packed.packing.mean(&packed.states),
            None => masked_mean(&self.states, mask),
        }
    }

    /// The same for the streams of the last blocks.
    fn mean_blocks(&self, mask: &Tensor) -> Vec<Tensor> {
        let mean = |block: &Tensor| match &self.packed {
            Some(packed) => packed.packing.mean(block),
            None => masked_mean(block, mask),
        };
        self.blocks.iter().map(mean).collect()
    }
}

impl UniMse {
    /// Creates the model with initial weights under `path`, which is the root of a variable store.
    ///
    /// Weights come from libtorch's generator: seed it for a repeatable start. Fails if `config` is not valid.
    pub fn new(path: &nn::Path, config: &Config) -> Result<Self, Error> {
        config.validate()?;
        let t5 = &config.t5;
        let lm_head_stdev = t5.initializer_factor;
        Ok(Self {
            shared: (path / "shared").randn("weight", &[t5.vocab_size, t5.d_model], 0.0, t5.initializer_factor),
            acoustic: ModalityEncoder::new(&(path / "acoustic"), "acoustic", &config.unimse.acoustic),
            visual: ModalityEncoder::new(&(path / "visual"), "visual", &config.unimse.visual),
            encoder: Encoder::new(&(path / "encoder"), config),
            contrastive: Contrastive::new(&(path / "contrastive"), config),
            legacy: Legacy::new(&(path / "contrastive"), config),
            heads: Heads::new(&(path / "heads"), config),
            decoder: Decoder::new(&(path / "decoder"), config),
            lm_head: (!t5.tie_word_embeddings)
                .then(|| projection(&(path / "lm_head"), t5.d_model, t5.vocab_size, lm_head_stdev)),
            config: config.clone(),
        })
    }

    /// Returns the configuration that the model was made from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Switches activation checkpointing on or off: blocks keep for the backward pass only what they read, and compute the rest again.
    /// Gradients are the same; steps take a third more arithmetic.
    pub fn set_activation_checkpointing(&mut self, on: bool) {
        self.encoder.set_recomputes(on);
        self.decoder.set_recomputes(on);
    }

    /// Encodes text and modalities. `train` switches dropout on.
    ///
    /// Fails if features have a dimension that the configuration does not list.
    pub fn encode(&self, inputs: &Inputs, train: bool) -> Result<Encoded, Error> {
        let batch = inputs.input_ids.size()[0];
        let encode = |encoder: Option<&ModalityEncoder>, modality| {
            encoder.map(|encoder| encoder.encode(modality, batch, train)).transpose()
        };
        let acoustic = encode(self.acoustic.as_ref(), &inputs.acoustic)?;
        let visual = encode(self.visual.as_ref(), &inputs.visual)?;
        let kind = self.shared.kind();
        let vectors: Vec<Tensor> =
            [&acoustic, &visual].into_iter().flatten().map(|side| side.utterance.to_kind(kind)).collect();
        let modalities = (!vectors.is_empty()).then(|| Tensor::cat(&vectors, 1));
        let keep = match (&self.contrastive, &self.legacy) {
            (Some(_), _) => self.config.unimse.contrastive.layers as usize,
            (None, Some(_)) => Legacy::BLOCKS,
            (None, None) => 0,
        };
        let mask = &inputs.attention_mask;
        let packing = if self.packs() { Packing::of(mask).filter(Packing::saves) } else { None };
        let (states, blocks, packed) = if let Some(packing) = packing {
            let embedded = self.embed(&packing.pack(&inputs.input_ids));
            let output = self.encoder.forward_packed(&embedded, &packing, modalities.as_ref(), keep, train);
            let packed = Packed { states: output.states, packing };
            (packed.packing.unpack(&packed.states), output.blocks, Some(packed))
        } else {
            let output = self.encoder.forward(&self.embed(&inputs.input_ids), mask, modalities.as_ref(), keep, train);
            (output.states, output.blocks, None)
        };
        Ok(Encoded {
            cross_bias: padding_bias(mask, states.kind()),
            states,
            modalities,
            blocks,
            packed,
            acoustic,
            visual,
        })
    }

    /// Runs the model on a batch with targets (teacher forcing). `train` switches dropout on; gradients follow the
    /// caller's `no_grad`.
    ///
    /// Fails if features have a dimension that the configuration does not list.
    pub fn forward(&self, batch: &Batch, train: bool) -> Result<Output, Error> {
        let encoded = self.encode(&batch.inputs, train)?;
        let decoder_ids = self.shift_right(&batch.targets);
        let filled = batch.targets.ne(IGNORED_TARGET);
        let both = encoded.packed.as_ref().zip(encoded.packed.as_ref().and_then(|_| Packing::of(&filled)));
        let (decoded, targets) = if let Some((memory, packing)) = &both {
            let embedded = self.embed(&packing.pack(&decoder_ids));
            let modalities = encoded.modalities.as_ref();
            let decoded = self.decoder.forward_packed(&embedded, packing, memory, modalities, train);
            (decoded, packing.pack(&batch.targets))
        } else {
            let self_bias = self.decoder.relative().causal(decoder_ids.size()[1]);
            let decoded = self.decode_with_bias(&encoded, &decoder_ids, &self_bias, train);
            (decoded, batch.targets.reshape([-1]))
        };
        let scores = self.logits(&decoded.states);

        let size = batch.targets.size();
        let flat = scores.view([-1, self.config.t5.vocab_size]).to_kind(Kind::Float);
        let losses = fused::cross_entropy(&flat, &targets, IGNORED_TARGET);
        let packing = both.map(|(_, packing)| packing);
        let nll = match &packing {
            Some(packing) => packing.sum(&losses),
            None => losses.view([size[0], size[1]]).sum_dim_intlist(1, false, Kind::Float),
        };
        let views = self.views(&encoded, &batch.inputs);
        let zero = || nll.new_zeros([], (Kind::Float, nll.device()));
        let temperature = self.config.unimse.contrastive.temperature;
        let contrastive = match (&views, &self.legacy) {
            (Some(views), _) => Some(views.losses(temperature)),
            (None, Some(legacy)) => Some(legacy.losses(&encoded, &decoded.last_input, temperature)),
            (None, None) => None,
        };
        let sums = contrastive.map(|(acoustic, visual)| (acoustic.sum(Kind::Float), visual.sum(Kind::Float)));
        let (contrastive_acoustic_sum, contrastive_visual_sum) = sums.unwrap_or_else(|| (zero(), zero()));
        let heads = match (&self.heads, &batch.answers) {
            (Some(heads), Some(truth)) => {
                heads.losses(&heads.forward(&encoded, &batch.inputs.attention_mask, train), truth)
            }
            _ => nll.zeros_like(),
        };
        Ok(Output {
            ce_sum: nll.sum(Kind::Float),
            tokens: filled.sum(Kind::Int64),
            nll,
            heads,
            views,
            contrastive_acoustic_sum,
            contrastive_visual_sum,
            scores,
            packing,
        })
    }

    /// Returns what the contrastive losses compare, of an encoder pass; `None` for a model without these losses, or with legacy ones.
    pub fn views(&self, encoded: &Encoded, inputs: &Inputs) -> Option<Views> {
        let contrastive = self.contrastive.as_ref()?;
        let (acoustic, visual) = (encoded.acoustic.as_ref(), encoded.visual.as_ref());
        Some(contrastive.views(&encoded.mean_blocks(&inputs.attention_mask), acoustic, visual))
    }

    /// Whether padding may be left out: the official code's losses look at it.
    fn packs(&self) -> bool {
        self.legacy.is_none() && self.encoder.packs() && self.decoder.packs() && sublayer::fits(&self.shared)
    }

    /// Tells whether there are contrastive losses whose negatives may come from elsewhere.
    pub fn is_contrastive(&self) -> bool {
        self.contrastive.is_some()
    }

    /// Returns the heads beside the generator, if there are some.
    pub fn heads(&self) -> Option<&Heads> {
        self.heads.as_ref()
    }

    /// Returns this batch's share of a step's loss: `ce_sum / tokens + (alpha ta + beta tv + heads) / samples`.
    ///
    /// `tokens` and `samples` count the global batch, so the shares of all micro-shards of a step add up to its loss.
    pub fn loss(&self, output: &Output, tokens: f64, samples: f64) -> Tensor {
        let number = |value: f64| Tensor::from(value as f32).to_device(output.ce_sum.device());
        self.loss_over(output, &number(tokens), &number(samples))
    }

    /// The same for counts that are on the model's device.
    pub fn loss_over(&self, output: &Output, tokens: &Tensor, samples: &Tensor) -> Tensor {
        let weights = &self.config.unimse.contrastive;
        let contrastive =
            &output.contrastive_acoustic_sum * weights.acoustic + &output.contrastive_visual_sum * weights.visual;
        &output.ce_sum / tokens + (contrastive + output.heads.sum(Kind::Float)) / samples
    }

    /// Decodes given decoder inputs `[B, T]` all at once; returns states `[B, T, d_model]`.
    pub fn decode(&self, encoded: &Encoded, decoder_input_ids: &Tensor, train: bool) -> Tensor {
        let self_bias = self.decoder.relative().causal(decoder_input_ids.size()[1]);
        self.decode_with_bias(encoded, decoder_input_ids, &self_bias, train).states
    }

    /// As [`UniMse::decode`], with the caller's own `self_bias [1, H, T, T]`.
    pub(crate) fn decode_with_bias(
        &self,
        encoded: &Encoded,
        ids: &Tensor,
        self_bias: &Tensor,
        train: bool,
    ) -> DecoderOutput {
        let Encoded { states, cross_bias, modalities, .. } = encoded;
        self.decoder.forward(&self.embed(ids), self_bias, states, cross_bias, modalities.as_ref(), train)
    }

    /// Returns the decoder stack's position bias, for trees of tokens.
    pub(crate) fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Prepares the generation of up to `capacity` tokens for each sample.
    pub fn start(&self, encoded: &Encoded, capacity: i64) -> Cache {
        self.decoder.start(&encoded.states, &encoded.cross_bias, encoded.modalities.as_ref(), capacity)
    }

    /// Feeds the next token of each sample, `tokens [B]`; returns states `[B, 1, d_model]`. Call it under `no_grad`.
    pub fn step(&self, tokens: &Tensor, cache: &mut Cache) -> Tensor {
        self.decoder.step(&self.embed(&tokens.unsqueeze(1)), cache)
    }

    /// Maps decoder states `[.., d_model]` to scores of all tokens `[.., vocab]`.
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        let weight = self.lm_head.as_ref().map_or(&self.shared, |head| &head.weight);
        accumulate::linear(&self.scaled(hidden), weight)
    }

    /// Maps decoder states `[.., d_model]` to scores of the given tokens only, `[.., tokens.len()]`.
    pub fn logits_of(&self, hidden: &Tensor, tokens: &Tensor) -> Tensor {
        let weight = self.lm_head.as_ref().map_or(&self.shared, |head| &head.weight);
        self.scaled(hidden).linear::<Tensor>(&weight.index_select(0, tokens), None)
    }

    /// Makes decoder inputs of targets `[B, T]`: the start token, then all targets but the last.
    pub fn shift_right(&self, targets: &Tensor) -> Tensor {
        let t5 = &self.config.t5;
        let size = targets.size();
        let start = targets.new_full([size[0], 1], t5.decoder_start_token_id, (Kind::Int64, targets.device()));
        let earlier = targets.narrow(1, 0, size[1] - 1);
        Tensor::cat(&[start, earlier.masked_fill(&earlier.eq(IGNORED_TARGET), t5.pad_token_id)], 1)
    }

    /// A tied output layer is the embedding, which has unit deviation, so the states are scaled down for it.
    fn scaled(&self, hidden: &Tensor) -> Tensor {
        if self.config.t5.scales_outputs() {
            hidden * (self.config.t5.d_model as f64).powf(-0.5)
        } else {
            hidden.shallow_clone()
        }
    }

    fn embed(&self, ids: &Tensor) -> Tensor {
        accumulate::embedding(&self.shared, ids)
    }
}

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
