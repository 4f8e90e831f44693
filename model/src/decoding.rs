//! Greedy decoding under the label grammar, and the expected score.
//!
//! At every step a table `state x token` says what may follow, so whatever the weights are, the output is a label
//! string. Scores are computed for the grammar's few dozen tokens only, not for the whole vocabulary. Other ways to an
//! answer are the expected score, and the heads: see [`LabelDecoder::answer`].

mod answering;
mod expectation;

use tch::{Device, Kind, Tensor};

use crate::Error;
use crate::grammar::{Grammar, START};
use crate::labels::{Labels, Task};
use crate::unimse::{Encoded, Inputs, UniMse};

use expectation::ScoreTree;

/// Generates labels for one task, or for all fields with `none` permitted.
#[derive(Debug)]
pub struct LabelDecoder<'a> {
    grammar: &'a Grammar,
    /// `[A + 1]`: the grammar's tokens, then the padding token that follows the end.
    tokens: Tensor,
    /// `[S, A + 1]`: true where a token may not follow a state.
    forbidden: Tensor,
    /// `[S, A + 1]`: the state after a token.
    next: Tensor,
    start_token: i64,
    scores: ScoreTree,
    task: Option<Task>,
}

/// Holds what the model says about one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The labels; the fields of the decoder's task are never `None`.
    pub labels: Labels,
    /// The tokens that were generated, the end token included.
    pub ids: Vec<i64>,
    /// Natural logarithm of the probability of these tokens among all label strings that were permitted.
    pub log_probability: f64,
}

impl<'a> LabelDecoder<'a> {
    /// Prepares decoding for `task` on the model's device; `None` decodes all fields and permits `none` in each.
    pub fn new(model: &UniMse, grammar: &'a Grammar, task: Option<Task>, device: Device) -> Self {
        let t5 = &model.config().t5;
        let (states, places) = (grammar.states(), grammar.alphabet().len() + 1);
        let padding = places - 1;
        let mut forbidden = vec![true; states * places];
        let mut next = vec![grammar.end() as i64; states * places];
        for (state, place, target) in grammar.permitted(task) {
            forbidden[state * places + place] = false;
            next[state * places + place] = target as i64;
        }
        forbidden[grammar.end() * places + padding] = false;

        let mut tokens = grammar.alphabet().to_vec();
        tokens.push(t5.pad_token_id);
        let table = |tensor: Tensor| tensor.view([states as i64, places as i64]).to_device(device);
        Self {
            grammar,
            tokens: Tensor::from_slice(&tokens).to_device(device),
            forbidden: table(Tensor::from_slice(&forbidden)),
            next: table(Tensor::from_slice(&next)),
            start_token: t5.decoder_start_token_id,
            scores: ScoreTree::new(grammar, t5.decoder_start_token_id, device),
            task,
        }
    }

    /// Generates one label string a sample, taking the best permitted token at each step. Dropout is off and no
    /// gradients are kept.
    ///
    /// Fails if features have a dimension that the model was not built for.
    pub fn decode(&self, model: &UniMse, inputs: &Inputs) -> Result<Vec<Prediction>, Error> {
        tch::no_grad(|| Ok(self.decode_encoded(model, &model.encode(inputs, false)?)))
    }

    /// Generates from an encoder pass that was made without dropout; call it under `no_grad`.
    pub fn decode_encoded(&self, model: &UniMse, encoded: &Encoded) -> Vec<Prediction> {
        let (batch, device) = (encoded.states.size()[0], encoded.states.device());
        let steps = self.grammar.max_tokens() as i64;
        let mut cache = model.start(encoded, steps);
        let mut state = Tensor::full([batch], START as i64, (Kind::Int64, device));
        let mut token = Tensor::full([batch], self.start_token, (Kind::Int64, device));
        let mut total = Tensor::zeros([batch], (Kind::Float, device));
        let mut choices = Vec::new();
        for _ in 0..steps {
            let hidden = model.step(&token, &mut cache);
            let scores = finite(&model.logits_of(&hidden, &self.tokens).squeeze_dim(1));
            let scores = scores.masked_fill(&self.forbidden.index_select(0, &state), f64::NEG_INFINITY);
            let choice = scores.argmax(1, true);
            total += scores.log_softmax(1, Kind::Float).gather(1, &choice, false).squeeze_dim(1);
            state = self.next.index_select(0, &state).gather(1, &choice, false).squeeze_dim(1);
            token = self.tokens.index_select(0, &choice.squeeze_dim(1));
            choices.push(choice);
            if state.eq(self.grammar.end() as i64).all().int64_value(&[]) != 0 {
                break;
            }
        }
        self.read(&Tensor::cat(&choices, 1), &total)
    }

    /// Returns each sample's expected score: the mean of all scores, weighted with the probability that the model gives
    /// them under the grammar (whatever the polarity before them).
    ///
    /// Fails if features have a dimension that the model was not built for.
    pub fn expected_scores(&self, model: &UniMse, inputs: &Inputs) -> Result<Vec<f64>, Error> {
        tch::no_grad(|| Ok(self.scores.expectations(model, &model.encode(inputs, false)?)))
    }

    /// As [`LabelDecoder::expected_scores`], from an encoder pass made without dropout; call it under `no_grad`.
    pub fn expected_scores_encoded(&self, model: &UniMse, encoded: &Encoded) -> Vec<f64> {
        self.scores.expectations(model, encoded)
    }

    /// Walks the chosen places `[B, steps]` through the grammar.
    fn read(&self, choices: &Tensor, log_probabilities: &Tensor) -> Vec<Prediction> {
        let (batch, steps) = (choices.size()[0] as usize, choices.size()[1] as usize);
        let mut places = vec![0_i64; batch * steps];
        choices.to_device(Device::Cpu).contiguous().copy_data(&mut places, batch * steps);
        let mut totals = vec![0_f32; batch];
        log_probabilities.to_device(Device::Cpu).copy_data(&mut totals, batch);
        let read_one = |(row, &total): (&[i64], &f32)| {
            let mut state = START;
            let (mut ids, mut words) = (Vec::new(), Vec::new());
            for &place in row {
                // Past the end the only choice is padding, which no edge names.
                let Some((target, word)) = self.grammar.follow(state, place as usize) else { break };
                ids.push(self.grammar.alphabet()[place as usize]);
                words.extend(word);
                state = target;
            }
            Prediction { labels: self.grammar.schema().labels(&words), ids, log_probability: f64::from(total) }
        };
        places.chunks(steps).zip(&totals).map(read_one).collect()
    }
}

/// Makes scores finite, so that a model that diverged still takes a permitted token, and the table alone has infinities.
fn finite(scores: &Tensor) -> Tensor {
    let limit = f64::from(f32::MAX) / 4.0;
    scores.to_kind(Kind::Float).nan_to_num(0.0, limit, -limit)
}

#[cfg(test)]
mod tests;
