//! The acoustic and the visual encoder: one LSTM over the true length of each sample.
//!
//! libtorch's packed sequences are slow on CPU and need the lengths on the host, so the whole padded sequence runs and
//! the state at `length - 1` is taken: for right-padded input that is the same number. The backward direction gets
//! each sample reversed within its length, so it never reads padding before the sample.
//!
//! Datasets differ in feature dimension. The LSTM reads the largest of the configured ones; each other dimension has a
//! linear layer up to it (`acoustic.input.<dim>.*`), so no feature is squeezed and all datasets train one LSTM.

use tch::nn::Module;
use tch::{Kind, Tensor, nn};
use unimse_torch_ext::autocast;

use crate::Error;
use crate::config::ModalityConfig;

/// Holds one modality of a batch as parts of equal feature dimension; samples that are in no part lack the modality.
#[derive(Debug, Default)]
pub struct Modality {
    /// The parts; a batch from datasets with the same features has one.
    pub parts: Vec<ModalityPart>,
}

/// Holds the feature sequences of some samples of a batch.
#[derive(Debug)]
pub struct ModalityPart {
    /// `[b]`, the samples' places in the batch, each at most once over all parts (`Int64`).
    pub rows: Tensor,
    /// `[b, T, D]`, padded on the right with finite numbers.
    pub features: Tensor,
    /// `[b]`, true lengths up to `T`; 0 means that the sample lacks the modality (`Int64`).
    pub lengths: Tensor,
}

/// Holds what an encoder says about each sample of a batch; zero vectors where the modality is missing.
#[derive(Debug)]
pub struct EncodedModality {
    /// `[B, out]`: the projected last state, for the fusion layers.
    pub utterance: Tensor,
    /// `[B, hidden]` (twice that if bidirectional): the mean output over true frames, for the contrastive loss.
    pub mean: Tensor,
    /// `[B]`, 1 where the sample has the modality and 0 elsewhere.
    pub present: Tensor,
    /// `[B]`, the number of true frames.
    pub frames: Tensor,
}

/// Encodes a feature sequence as one utterance vector.
#[derive(Debug)]
pub struct ModalityEncoder {
    name: &'static str,
    inputs: Vec<Input>,
    forward: Lstm,
    backward: Option<Lstm>,
    proj: nn::Linear,
    dropout: f64,
}

/// The way of features of one dimension into the LSTM.
#[derive(Debug)]
struct Input {
    dim: i64,
    standard: Option<Standard>,
    /// Up to the LSTM's width, where the dimension is less.
    linear: Option<nn::Linear>,
}

/// Shift and scale of features, both `[D]`; loaded with the weights and not trained.
#[derive(Debug)]
struct Standard {
    mean: Tensor,
    scale: Tensor,
}

/// One direction's weights, named as PyTorch's `nn.LSTM` does.
#[derive(Debug)]
struct Lstm {
    weights: [Tensor; 4],
    hidden: i64,
}

impl Modality {
    /// Holds a batch in which every sample has features of the same dimension, or a length of 0.
    pub fn uniform(features: Tensor, lengths: Tensor) -> Self {
        let rows = Tensor::arange(features.size()[0], (Kind::Int64, features.device()));
        Self { parts: vec![ModalityPart { rows, features, lengths }] }
    }

    /// Makes another tensor of each.
    #[must_use]
    pub fn map(&self, other: &dyn Fn(&Tensor) -> Tensor) -> Self {
        let part = |part: &ModalityPart| ModalityPart {
            rows: other(&part.rows),
            features: other(&part.features),
            lengths: other(&part.lengths),
        };
        Self { parts: self.parts.iter().map(part).collect() }
    }
}

impl ModalityEncoder {
    /// Creates the encoder under `path`, `acoustic` or `visual`; `None` if no dataset has the modality.
    pub fn new(path: &nn::Path, name: &'static str, config: &ModalityConfig) -> Option<Self> {
        let widest = *config.dims.iter().max()?;
        let inputs = config
            .dims
            .iter()
            .map(|&dim| Input {
                dim,
                standard: config.standardise.then(|| Standard::new(&(path / "standard" / dim), dim)),
                linear: (dim != widest).then(|| uniform_linear(&(path / "input" / dim), dim, widest)),
            })
            .collect();
        let lstm = path / "lstm";
        Some(Self {
            name,
            inputs,
            forward: Lstm::new(&lstm, "l0", widest, config.hidden),
            backward: config.bidirectional.then(|| Lstm::new(&lstm, "l0_reverse", widest, config.hidden)),
            proj: uniform_linear(&(path / "proj"), config.output_width(), config.out),
            dropout: config.dropout,
        })
    }

    /// Encodes a batch of `batch` samples.
    ///
    /// Fails if features have a dimension that the configuration does not list.
    pub fn encode(&self, modality: &Modality, batch: i64, train: bool) -> Result<EncodedModality, Error> {
        let weight = &self.proj.ws;
        let zeros = |width: i64| Tensor::zeros([batch, width], (weight.kind(), weight.device()));
        let mut encoded = EncodedModality {
            utterance: zeros(weight.size()[0]),
            mean: zeros(weight.size()[1]),
            present: Tensor::zeros([batch], (weight.kind(), weight.device())),
            frames: Tensor::zeros([batch], (Kind::Int64, weight.device())),
        };
        for part in modality.parts.iter().filter(|part| part.features.size()[1] > 0) {
            let part_encoded = self.encode_part(part, train)?;
            let put = |whole: &Tensor, rows: &Tensor| whole.index_copy(0, &part.rows, &rows.to_kind(whole.kind()));
            encoded.utterance = put(&encoded.utterance, &part_encoded.utterance);
            encoded.mean = put(&encoded.mean, &part_encoded.mean);
            encoded.present = put(&encoded.present, &part_encoded.present);
            encoded.frames = put(&encoded.frames, &part_encoded.frames);
        }
        Ok(encoded)
    }

    fn encode_part(&self, part: &ModalityPart, train: bool) -> Result<EncodedModality, Error> {
        let features = part.features.to_kind(self.proj.ws.kind());
        let (frames, dim) = (features.size()[1], features.size()[2]);
        let input = self.inputs.iter().find(|input| input.dim == dim).ok_or_else(|| self.unknown(dim))?;
        let features = input.standard.as_ref().map_or_else(|| features.shallow_clone(), |own| own.forward(&features));
        let features = input.linear.as_ref().map_or_else(|| features.shallow_clone(), |own| own.forward(&features));

        let lengths = part.lengths.unsqueeze(1);
        let frame = Tensor::arange(frames, (Kind::Int64, features.device())).unsqueeze(0);
        let inside = frame.lt_tensor(&lengths);
        let last = (&lengths - 1).clamp_min(0).unsqueeze(2);

        let mut outputs = self.forward.run(&features, train);
        if let Some(backward) = &self.backward {
            // The mean does not care for the order of frames, so the reversed outputs need not be turned back.
            let turned = (&lengths - 1 - &frame).where_self(&inside, &frame).unsqueeze(2);
            let reversed = features.gather(1, &turned.expand_as(&features), false);
            outputs = Tensor::cat(&[outputs, backward.run(&reversed, train)], 2);
        }
        let width = outputs.size()[2];
        let state = outputs.gather(1, &last.expand([-1, 1, width], false), false).squeeze_dim(1);

        let kind = outputs.kind();
        let present = part.lengths.gt(0).to_kind(kind);
        let shown = present.unsqueeze(1);
        let total = (outputs * inside.unsqueeze(2).to_kind(kind)).sum_dim_intlist(1, false, kind);
        Ok(EncodedModality {
            utterance: self.proj.forward(&state.dropout(self.dropout, train)) * shown,
            mean: total / lengths.clamp_min(1).to_kind(kind),
            present,
            frames: part.lengths.shallow_clone(),
        })
    }

    fn unknown(&self, found: i64) -> Error {
        let expected = self.inputs.iter().map(|input| input.dim).collect();
        Error::FeatureDimension { modality: self.name, found, expected }
    }
}

impl Standard {
    fn new(path: &nn::Path, dim: i64) -> Self {
        Self { mean: path.zeros_no_train("mean", &[dim]), scale: path.ones_no_train("scale", &[dim]) }
    }

    fn forward(&self, features: &Tensor) -> Tensor {
        let cut = ModalityConfig::CUT;
        ((features - &self.mean) * &self.scale).clamp(-cut, cut)
    }
}

impl Lstm {
    fn new(path: &nn::Path, suffix: &str, inputs: i64, hidden: i64) -> Self {
        let bound = (hidden as f64).powf(-0.5);
        let weight = |name: &str, size: &[i64]| {
            path.var(&format!("{name}_{suffix}"), size, nn::Init::Uniform { lo: -bound, up: bound })
        };
        let gates = 4 * hidden;
        let weights = [
            weight("weight_ih", &[gates, inputs]),
            weight("weight_hh", &[gates, hidden]),
            weight("bias_ih", &[gates]),
            weight("bias_hh", &[gates]),
        ];
        Self { weights, hidden }
    }

    /// Runs over `[b, T, D]` from a zero state; returns the output at every frame, `[b, T, hidden]`.
    fn run(&self, features: &Tensor, train: bool) -> Tensor {
        let run = |features: &Tensor| {
            let zero = features.new_zeros([1, features.size()[0], self.hidden], (features.kind(), features.device()));
            let weights: Vec<&Tensor> = self.weights.iter().collect();
            features.lstm(&[&zero, &zero], &weights, true, 1, 0.0, train, false, true).0
        };
        if !features.device().is_cuda() {
            return run(features);
        }
        // libtorch's autocast makes fp16 of an LSTM on a GPU, whatever was asked for, and small gradients would vanish. It is little work.
        let features = features.to_kind(self.weights[0].kind());
        autocast::off(true, || run(&features)).expect("autocast is on for this device already")
    }
}

/// Creates a linear layer with PyTorch's default initial weights.
fn uniform_linear(path: &nn::Path, inputs: i64, outputs: i64) -> nn::Linear {
    let bound = (inputs as f64).powf(-0.5);
    let uniform = nn::Init::Uniform { lo: -bound, up: bound };
    nn::linear(path, inputs, outputs, nn::LinearConfig { ws_init: uniform, bs_init: Some(uniform), bias: true })
}

#[cfg(test)]
mod tests;
