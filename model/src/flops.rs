//! How much arithmetic a model needs, to compare with what a device can do.

use crate::config::{Config, FeedForwardProjection};

/// Floating-point operations of the matrix products of one forward pass over samples, given by the tokens of input and target of each.
///
/// Padding is not counted, nor are the modalities' encoders and fusion layers, which are small beside T5. A multiplication and its
/// addition are two, as everywhere.
pub fn forward(config: &Config, samples: impl IntoIterator<Item = (usize, usize)>) -> f64 {
    let t5 = &config.t5;
    let (model, inner, wide, vocab) = (t5.d_model as f64, t5.inner_dim() as f64, t5.d_ff as f64, t5.vocab_size as f64);
    let (encoder, decoder) = (t5.num_layers as f64, t5.decoder_layers() as f64);
    let gates = if t5.feed_forward_proj == FeedForwardProjection::Relu { 2.0 } else { 3.0 };
    let (projections, widening) = (4.0 * model * inner, gates * model * wide);
    let scores = |queries: f64, keys: f64| 2.0 * queries * keys * inner;
    let one = |(input, target): (usize, usize)| {
        let (input, target) = (input as f64, target as f64);
        let encoding = encoder * (input * (projections + widening) + scores(input, input));
        let own = target * (projections + widening) + scores(target, target);
        let cross = 2.0 * model * inner * (target + input) + scores(target, input);
        encoding + decoder * (own + cross) + target * model * vocab
    };
    2.0 * samples.into_iter().map(one).sum::<f64>()
}

/// The same for a training step: each product has two more in the backward pass, one of them only where the weight learns. What is
/// computed again to save memory does not count (Chowdhery et al. 2022, arXiv 2204.02311, appendix B).
pub fn training(forward: f64, learning: f64) -> f64 {
    forward * (2.0 + learning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Preset;

    #[test]
    fn it_is_about_two_operations_a_parameter_and_token() {
        let config = Preset::Base.config();
        let found = forward(&config, [(64, 12), (64, 12)]);
        // T5-base: 85 million in the encoder, 113 in the decoder, whose keys and values of the encoder see the input, and the output
        // layer of 25 million; the scores are a few per cent.
        let (encoder, decoder, memory, output) = (84.9e6, 99.1e6, 14.2e6, 24.7e6);
        let expected = 2.0 * 2.0 * (64.0 * (encoder + memory) + 12.0 * (decoder + output));
        assert!((found / expected - 1.0).abs() < 0.03, "{found:e} {expected:e}");
        assert!((training(found, 1.0) / found - 3.0).abs() < 1e-12);
        assert!(forward(&config, []).abs() < 1e-12);
    }
}
