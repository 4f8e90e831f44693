//! Optional heads beside the generator: a score and a class for each emotion vocabulary, read off the encoder.
//!
//! A generator writes a score digit by digit, and its errors are those of words: it cannot say 0.4 when it wavers between 0.2 and
//! 0.6. A regression head can. Both read the masked mean of the encoder's states with the utterance vectors.

use tch::nn::Module;
use tch::{Kind, Reduction, Tensor, nn};

use crate::config::Config;
use crate::labels::Labels;
use crate::unimse::Encoded;

/// Marks samples whose class is not known; they have no loss.
pub const UNKNOWN_CLASS: i64 = -100;

/// Answers without generating.
#[derive(Debug)]
pub struct Heads {
    score: Option<nn::Linear>,
    emotions: Vec<nn::Linear>,
    weights: [f64; 2],
    dropout: f64,
}

/// Holds the truth for the heads.
#[derive(Debug)]
pub struct Answers {
    /// `[B]`, the score, NaN where it is not known (`Float`).
    pub scores: Tensor,
    /// For each vocabulary `[B]`, the class or [`UNKNOWN_CLASS`] (`Int64`).
    pub classes: Vec<Tensor>,
}

/// Holds what the heads say.
#[derive(Debug)]
pub struct Said {
    /// `[B]`, the score, if there is a head for it.
    pub scores: Option<Tensor>,
    /// For each vocabulary `[B, classes]`, unnormalised; empty if there are no heads for them.
    pub emotions: Vec<Tensor>,
}

impl Answers {
    /// Makes tensors of what is known of samples; vocabularies are those of the schema.
    pub fn of(labels: &[Labels]) -> Self {
        let scores: Vec<f32> =
            labels.iter().map(|labels| labels.score.map_or(f32::NAN, |score| score as f32)).collect();
        let vocabularies = labels.first().map_or(0, |labels| labels.emotions.len());
        let class = |labels: &Labels, vocabulary: usize| {
            labels.emotions.get(vocabulary).copied().flatten().map_or(UNKNOWN_CLASS, |class| class as i64)
        };
        let classes = (0..vocabularies).map(|vocabulary| {
            let classes: Vec<i64> = labels.iter().map(|labels| class(labels, vocabulary)).collect();
            Tensor::from_slice(&classes)
        });
        Self { scores: Tensor::from_slice(&scores), classes: classes.collect() }
    }

    /// Makes another tensor of each.
    #[must_use]
    pub fn map(&self, other: &dyn Fn(&Tensor) -> Tensor) -> Self {
        Self { scores: other(&self.scores), classes: self.classes.iter().map(other).collect() }
    }
}

impl Heads {
    /// Creates `score` and `emotion.N` under `path`, `heads`; `None` if the configuration asks for neither.
    pub fn new(path: &nn::Path, config: &Config) -> Option<Self> {
        let heads = &config.unimse.heads;
        let inputs = config.t5.d_model + config.unimse.fused_width();
        let linear = |path: nn::Path, outputs: i64| {
            // Small, so that an untrained head does not shake a pretrained encoder.
            let ws_init = nn::Init::Randn { mean: 0.0, stdev: 0.02 };
            nn::linear(
                path,
                inputs,
                outputs,
                nn::LinearConfig { ws_init, bs_init: Some(nn::Init::Const(0.0)), bias: true },
            )
        };
        let score = (heads.score > 0.0).then(|| linear(path / "score", 1));
        let classes = if heads.emotion > 0.0 { heads.classes.as_slice() } else { &[] };
        let emotions: Vec<nn::Linear> =
            (0_i64..).zip(classes).map(|(place, &classes)| linear(path / "emotion" / place, classes)).collect();
        if score.is_none() && emotions.is_empty() {
            return None;
        }
        Some(Self { score, emotions, weights: [heads.score, heads.emotion], dropout: config.t5.dropout_rate })
    }

    /// Answers for a batch of which `mask [B, L]` says which positions are text.
    pub fn forward(&self, encoded: &Encoded, mask: &Tensor, train: bool) -> Said {
        let mean = encoded.mean_state(mask);
        let input = match &encoded.modalities {
            Some(modalities) => Tensor::cat(&[&mean, modalities], 1),
            None => mean,
        };
        let input = input.dropout(self.dropout, train);
        let wide = |linear: &nn::Linear| linear.forward(&input).to_kind(Kind::Float);
        Said {
            scores: self.score.as_ref().map(|linear| wide(linear).squeeze_dim(1)),
            emotions: self.emotions.iter().map(wide).collect(),
        }
    }

    /// Returns each sample's weighted loss `[B]`: the absolute error of the score, and the cross-entropy of every vocabulary whose
    /// class is known.
    pub fn losses(&self, said: &Said, truth: &Answers) -> Tensor {
        let [score, emotion] = self.weights;
        let mut losses = truth.scores.zeros_like();
        if let Some(scores) = &said.scores {
            let unknown = truth.scores.isnan();
            let error = (scores - truth.scores.nan_to_num(0.0, 0.0, 0.0)).abs();
            losses += error.masked_fill(&unknown, 0.0) * score;
        }
        for (logits, classes) in said.emotions.iter().zip(&truth.classes) {
            let none: Option<Tensor> = None;
            losses += logits.cross_entropy_loss(classes, none, Reduction::None, UNKNOWN_CLASS, 0.0) * emotion;
        }
        losses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unimse::fixtures::{config, generator, inputs, model};

    fn answers(scores: &[f32], classes: &[i64]) -> Answers {
        Answers { scores: Tensor::from_slice(scores), classes: vec![Tensor::from_slice(classes)] }
    }

    #[test]
    fn losses_are_the_absolute_error_and_the_cross_entropy_of_what_is_known() {
        let _generator = generator(130);
        let mut config = config();
        config.unimse.heads = crate::config::HeadsConfig { score: 2.0, emotion: 0.5, classes: vec![3] };
        let (store, _model) = model(&config, 50);
        let heads = Heads::new(&(store.root() / "again"), &config).unwrap();
        let logits = Tensor::from_slice(&[1.0_f32, 0.0, -1.0, 0.0, 0.0, 0.0]).view([2, 3]);
        let said = Said { scores: Some(Tensor::from_slice(&[0.5_f32, 1.0])), emotions: vec![logits] };
        let losses = heads.losses(&said, &answers(&[f32::NAN, -1.0], &[0, UNKNOWN_CLASS]));
        let cross_entropy = -(1.0_f64 - (1_f64.exp() + 1.0 + (-1_f64).exp()).ln());
        assert!((losses.double_value(&[0]) - 0.5 * cross_entropy).abs() < 1e-6, "{losses}");
        assert!((losses.double_value(&[1]) - 4.0).abs() < 1e-6, "{losses}");
    }

    #[test]
    fn unknown_answers_give_no_gradient_that_is_not_a_number() {
        let _generator = generator(131);
        let mut config = config();
        config.unimse.heads = crate::config::HeadsConfig { score: 1.0, emotion: 1.0, classes: vec![3] };
        let (store, model) = model(&config, 51);
        let encoded = model.encode(&inputs(2, 6), false).unwrap();
        let heads = model.heads().unwrap();
        let said = heads.forward(&encoded, &inputs(2, 6).attention_mask, false);
        heads.losses(&said, &answers(&[f32::NAN; 2], &[UNKNOWN_CLASS; 2])).sum(Kind::Float).backward();
        let weight = &store.variables()["heads.score.weight"];
        assert_eq!(weight.grad().abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn a_configuration_without_weights_has_no_heads() {
        let _generator = generator(132);
        let (store, model) = model(&config(), 52);
        assert!(model.heads().is_none());
        assert!(store.variables().keys().all(|name| !name.starts_with("heads.")));
    }
}
