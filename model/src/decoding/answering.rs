//! The ways from a model to an answer, behind one call.

use tch::{Device, Kind, Tensor};

use super::{LabelDecoder, Prediction};
use crate::Error;
use crate::config::AnswerWay;
use crate::heads::Said;
use crate::labels::{Labels, Polarity, Task};
use crate::unimse::{Inputs, UniMse};

impl LabelDecoder<'_> {
    /// Answers for each sample in the given way, without dropout or gradients. What no head answers is decoded.
    ///
    /// Fails if features have a dimension that the model was not built for.
    pub fn answer(&self, model: &UniMse, inputs: &Inputs, way: AnswerWay) -> Result<Vec<Prediction>, Error> {
        tch::no_grad(|| {
            let encoded = model.encode(inputs, false)?;
            let heads = model.heads().filter(|_| way == AnswerWay::Heads);
            let said = heads.map(|heads| heads.forward(&encoded, &inputs.attention_mask, false));
            if let Some(said) = said.filter(|said| self.is_answered_by(said)) {
                return Ok(read_heads(&said, encoded.states.size()[0] as usize));
            }
            let mut predictions = self.decode_encoded(model, &encoded);
            let asks_score = matches!(self.task, None | Some(Task::Sentiment));
            if way == AnswerWay::Expected && asks_score {
                let scores = self.expected_scores_encoded(model, &encoded);
                predictions.iter_mut().zip(scores).for_each(|(prediction, score)| prediction.set_score(score));
            }
            Ok(predictions)
        })
    }

    fn is_answered_by(&self, said: &Said) -> bool {
        let emotions = said.emotions.len() == self.grammar.schema().emotions().len();
        match self.task {
            Some(Task::Sentiment) => said.scores.is_some(),
            Some(Task::Emotion(_)) => emotions,
            None => said.scores.is_some() && emotions,
        }
    }
}

/// What the heads say, as predictions.
fn read_heads(said: &Said, samples: usize) -> Vec<Prediction> {
    let column = |tensor: &Tensor| {
        let mut values = vec![0_f32; samples];
        tensor.to_device(Device::Cpu).to_kind(Kind::Float).copy_data(&mut values, samples);
        values
    };
    let scores = said.scores.as_ref().map(column);
    let sure = said.emotions.iter().map(|logits| logits.log_softmax(1, Kind::Float).max_dim(1, false));
    let classes: Vec<(Vec<f32>, Vec<f32>)> = sure.map(|(best, class)| (column(&best), column(&class))).collect();
    let one = |sample: usize| {
        let emotions = classes.iter().map(|(_, class)| Some(class[sample] as usize)).collect();
        let mut prediction = Prediction {
            labels: Labels { polarity: None, score: None, emotions },
            ids: Vec::new(),
            log_probability: classes.iter().map(|(best, _)| f64::from(best[sample])).sum(),
        };
        if let Some(scores) = &scores {
            prediction.set_score(f64::from(scores[sample]));
        }
        prediction
    };
    (0..samples).map(one).collect()
}

impl Prediction {
    fn set_score(&mut self, score: f64) {
        self.labels.score = Some(score);
        self.labels.polarity = Some(Polarity::of_score(score));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HeadsConfig;
    use crate::grammar::tests::grammar;
    use crate::unimse::fixtures::{config, generator, inputs, model, shake};

    #[test]
    fn each_way_answers_what_it_is_asked() {
        let _generator = generator(140);
        let grammar = grammar();
        let mut config = config();
        let sizes = grammar.schema().emotions().iter().map(|vocabulary| vocabulary.classes.len() as i64);
        config.unimse.heads = HeadsConfig { score: 1.0, emotion: 0.0, classes: sizes.collect() };
        let (store, model) = model(&config, 60);
        shake(&store);
        let inputs = inputs(3, 7);
        let decoder = |task| LabelDecoder::new(&model, &grammar, Some(task), Device::Cpu);

        let sentiment = decoder(Task::Sentiment);
        let decoded = sentiment.answer(&model, &inputs, AnswerWay::Decoded).unwrap();
        assert_eq!(decoded, sentiment.decode(&model, &inputs).unwrap());
        let expected = sentiment.answer(&model, &inputs, AnswerWay::Expected).unwrap();
        let scores = sentiment.expected_scores(&model, &inputs).unwrap();
        assert!(expected.iter().zip(scores).all(|(prediction, score)| prediction.labels.score == Some(score)));
        let read = sentiment.answer(&model, &inputs, AnswerWay::Heads).unwrap();
        let encoded = model.encode(&inputs, false).unwrap();
        let said = model.heads().unwrap().forward(&encoded, &inputs.attention_mask, false).scores.unwrap();
        for (place, prediction) in (0..).zip(&read) {
            assert_eq!(prediction.labels.score, Some(said.double_value(&[place])));
            assert!(prediction.ids.is_empty(), "nothing was generated");
        }

        let emotion = decoder(Task::Emotion(0));
        let asked = emotion.answer(&model, &inputs, AnswerWay::Heads).unwrap();
        assert_eq!(asked, emotion.decode(&model, &inputs).unwrap(), "there is no head for it");
    }
}
