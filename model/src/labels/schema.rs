//! Which fields a label string has and which words each may hold.

use serde::{Deserialize, Serialize};

use super::{Labels, MAX_STEP, NONE, Polarity, score_step, score_word};
use crate::Error;

/// Lists the emotion vocabularies; the fields polarity and score are in every schema.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "RawLabelSchema")]
pub struct LabelSchema {
    emotions: Vec<EmotionVocabulary>,
}

/// Names the classes of one emotion dataset, or of several that share them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmotionVocabulary {
    /// The field's name, e.g. `meld`.
    pub name: String,
    /// The words, in the order of the class numbers.
    pub classes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLabelSchema {
    emotions: Vec<EmotionVocabulary>,
}

impl TryFrom<RawLabelSchema> for LabelSchema {
    type Error = Error;

    fn try_from(raw: RawLabelSchema) -> Result<Self, Error> {
        Self::try_new(raw.emotions)
    }
}

impl EmotionVocabulary {
    /// Returns MELD's seven classes in the order of its published feature files.
    pub fn meld() -> Self {
        Self::from_words("meld", &["neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"])
    }

    /// Returns the six classes of IEMOCAP that are used, in the order of its published feature files and in the words of
    /// the paper's labels.
    pub fn iemocap() -> Self {
        Self::from_words("iemocap", &["joy", "sadness", "neutral", "anger", "excited", "frustrated"])
    }

    /// Makes a vocabulary of the given words.
    pub fn from_words(name: &str, words: &[&str]) -> Self {
        Self { name: name.to_owned(), classes: words.iter().map(|&word| word.to_owned()).collect() }
    }

    /// Returns the number of a class word.
    pub fn class(&self, word: &str) -> Option<usize> {
        self.classes.iter().position(|class| class == word)
    }
}

impl LabelSchema {
    /// Makes a schema. Fails if a vocabulary is empty, a name or a word occurs twice, or a word is empty, is `none`, or
    /// has a comma or a space at an end.
    pub fn try_new(emotions: Vec<EmotionVocabulary>) -> Result<Self, Error> {
        for (index, EmotionVocabulary { name, classes }) in emotions.iter().enumerate() {
            if emotions[..index].iter().any(|earlier| earlier.name == *name) {
                return Err(Error::Schema(format!("vocabulary `{name}` is listed twice")));
            }
            if classes.is_empty() {
                return Err(Error::Schema(format!("vocabulary `{name}` has no classes")));
            }
            for (place, word) in classes.iter().enumerate() {
                if word.is_empty() || word == NONE || word.contains(',') || word.trim() != word {
                    let rule = "use a word without comma or outer spaces, other than `none`";
                    return Err(Error::Schema(format!("class `{word}` of `{name}` cannot be written\nhint: {rule}")));
                }
                if classes[..place].contains(word) {
                    return Err(Error::Schema(format!("class `{word}` of `{name}` is listed twice")));
                }
            }
        }
        Ok(Self { emotions })
    }

    /// Returns the emotion vocabularies in the order of their fields.
    pub fn emotions(&self) -> &[EmotionVocabulary] {
        &self.emotions
    }

    /// Returns the number of fields.
    pub fn fields(&self) -> usize {
        2 + self.emotions.len()
    }

    /// Makes labels of what a dataset store says about a sample; `word_of` gives the class word of the vocabulary of a
    /// name. A known score decides the polarity, so that the two agree as they are written.
    ///
    /// Fails if a word is not in its vocabulary.
    pub fn labels_of<'w>(
        &self,
        polarity: Option<Polarity>,
        score: Option<f64>,
        word_of: impl Fn(&str) -> Option<&'w str>,
    ) -> Result<Labels, Error> {
        let class = |vocabulary: &EmotionVocabulary| match word_of(&vocabulary.name) {
            Some(word) => vocabulary.class(word).map(Some).ok_or_else(|| {
                Error::Schema(format!(
                    "`{word}` is not a class of vocabulary `{}`, which has {:?}",
                    vocabulary.name, vocabulary.classes
                ))
            }),
            None => Ok(None),
        };
        let emotions = self.emotions.iter().map(class).collect::<Result<_, _>>()?;
        Ok(Labels { polarity: score.map(Polarity::of_score).or(polarity), score, emotions })
    }

    /// Writes labels as the target string, with `none` for what is not known.
    pub fn render(&self, labels: &Labels) -> String {
        let word = |field| self.words(field).swap_remove(self.value(labels, field));
        (0..self.fields()).map(word).collect::<Vec<_>>().join(",")
    }

    /// Reads a target string back. Spaces around fields are allowed, since some tokenizers put them there.
    pub fn parse(&self, text: &str) -> Result<Labels, Error> {
        let wrong = |problem: String| Error::Labels { text: text.to_owned(), problem };
        let fields: Vec<&str> = text.split(',').map(str::trim).collect();
        if fields.len() != self.fields() {
            return Err(wrong(format!("{} fields, the schema has {}", fields.len(), self.fields())));
        }
        let mut values = Vec::with_capacity(fields.len());
        for (index, field) in fields.iter().enumerate() {
            let known = self.words(index).iter().position(|word| word == field);
            values.push(known.ok_or_else(|| wrong(format!("`{field}` is not a word of field {}", self.name(index))))?);
        }
        Ok(self.labels(&values))
    }

    /// Returns a field's name: `polarity`, `score` or a vocabulary's.
    pub fn name(&self, field: usize) -> &str {
        match field {
            0 => "polarity",
            1 => "score",
            _ => &self.emotions[field - 2].name,
        }
    }

    /// Returns all words of a field, `none` last.
    pub(crate) fn words(&self, field: usize) -> Vec<String> {
        let mut words: Vec<String> = match field {
            0 => Polarity::ALL.iter().map(|polarity| polarity.word().to_owned()).collect(),
            1 => (-MAX_STEP..=MAX_STEP).map(score_word).collect(),
            _ => self.emotions[field - 2].classes.clone(),
        };
        words.push(NONE.to_owned());
        words
    }

    /// Returns the place among [`LabelSchema::words`] of what `labels` says about a field.
    pub(crate) fn value(&self, labels: &Labels, field: usize) -> usize {
        match field {
            0 => labels.polarity.map_or(Polarity::ALL.len(), |polarity| polarity as usize),
            1 => match labels.score {
                Some(score) if !score.is_nan() => (score_step(score) + MAX_STEP) as usize,
                _ => 2 * MAX_STEP as usize + 1,
            },
            _ => {
                let classes = self.emotions[field - 2].classes.len();
                labels.emotions.get(field - 2).copied().flatten().map_or(classes, |class| class.min(classes))
            }
        }
    }

    /// Makes labels of one place among [`LabelSchema::words`] per field.
    pub(crate) fn labels(&self, values: &[usize]) -> Labels {
        let emotion =
            |(vocabulary, &value): (&EmotionVocabulary, &usize)| (value < vocabulary.classes.len()).then_some(value);
        Labels {
            polarity: Polarity::ALL.get(values[0]).copied(),
            score: (values[1] <= 2 * MAX_STEP as usize).then(|| (values[1] as i64 - MAX_STEP) as f64 / 10.0),
            emotions: self.emotions.iter().zip(&values[2..]).map(emotion).collect(),
        }
    }
}
