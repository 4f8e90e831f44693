//! Asking a model about sentences.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use unimse_data::schema::{Features, Labels as Known, Sample, Split};
use unimse_model::{LabelDecoder, Prediction, Task};

use super::feed::arrays;
use super::folder::ModelFolder;
use super::tensors;

/// Something to be judged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    #[serde(default)]
    pub id: Option<String>,
    pub text: String,
    /// Frames of sound, each a vector of the width that the model was trained with; empty when there is none.
    #[serde(default)]
    pub acoustic: Vec<Vec<f32>>,
    /// Frames of picture.
    #[serde(default)]
    pub visual: Vec<Vec<f32>>,
}

/// What the model says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Guess {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub text: String,
    pub polarity: String,
    /// From -3 to 3.
    pub score: f64,
    /// In the first vocabulary that the model knows.
    pub emotion: Option<String>,
    /// By vocabulary.
    pub emotions: BTreeMap<String, String>,
}

impl ModelFolder {
    /// Judges sentences, in batches of `batch`.
    pub fn predict(&self, questions: &[Question], batch: usize) -> Result<Vec<Guess>, String> {
        let mut guesses = Vec::with_capacity(questions.len());
        for questions in questions.chunks(batch.max(1)) {
            guesses.extend(self.predict_batch(questions)?);
        }
        Ok(guesses)
    }

    fn predict_batch(&self, questions: &[Question]) -> Result<Vec<Guess>, String> {
        let samples: Vec<Sample> = questions.iter().map(sample).collect::<Result<_, _>>()?;
        let arrays = arrays(&self.words, &self.options, &samples).map_err(|error| error.to_string())?;
        let inputs = tensors::inputs(&arrays, self.device);
        let schema = self.words.schema();
        let decode = |task| -> Result<Vec<Prediction>, String> {
            let decoder = LabelDecoder::new(&self.model, &self.words.grammar, Some(task), self.device);
            decoder.answer(&self.model, &inputs, self.way()).map_err(|error| error.to_string())
        };
        let sentiments = decode(Task::Sentiment)?;
        let mut emotions = vec![BTreeMap::new(); questions.len()];
        for (place, vocabulary) in schema.emotions().iter().enumerate() {
            for (emotions, told) in emotions.iter_mut().zip(decode(Task::Emotion(place))?) {
                let class = told.labels.emotions.get(place).copied().flatten();
                let word = class.and_then(|class| vocabulary.classes.get(class));
                emotions.extend(word.map(|word| (vocabulary.name.clone(), word.clone())));
            }
        }
        let first = schema.emotions().first().map(|vocabulary| vocabulary.name.as_str());
        let all = questions.iter().zip(sentiments).zip(emotions);
        Ok(all
            .map(|((question, Prediction { labels, .. }), emotions)| Guess {
                id: question.id.clone(),
                text: question.text.clone(),
                polarity: labels.polarity.map_or("unknown", unimse_model::Polarity::word).to_owned(),
                score: labels.score.unwrap_or(0.0),
                emotion: first.and_then(|name| emotions.get(name)).cloned(),
                emotions,
            })
            .collect())
    }
}

fn sample(question: &Question) -> Result<Sample, String> {
    let features = |name: &str, frames: &[Vec<f32>]| -> Result<Option<Features>, String> {
        let Some(first) = frames.first() else { return Ok(None) };
        let width = first.len();
        if let Some(place) = frames.iter().position(|frame| frame.len() != width) {
            return Err(format!("{name} frame {place} has {} values, the first has {width}", frames[place].len()));
        }
        if frames.iter().flatten().any(|value| !value.is_finite()) {
            return Err(format!("{name} has a value that is no finite number"));
        }
        let built = Features::try_new(frames.len(), width, frames.concat());
        built.map(Some).ok_or_else(|| format!("{name} frames have no values"))
    };
    Ok(Sample {
        id: question.id.clone().unwrap_or_default(),
        split: Split::Test,
        text: question.text.clone(),
        context: None,
        speaker: None,
        dialogue: None,
        turn: None,
        labels: Known::default(),
        acoustic: features("acoustic", &question.acoustic)?,
        visual: features("visual", &question.visual)?,
    })
}
