//! The terms in which every dataset is told, whatever its release format was.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod metadata;

pub use metadata::{ContextWindow, Counts, Labelling, Metadata, Provenance, SourceFile, Statistics, Turns};

/// The scale of every sentiment score: from strongly negative to strongly positive.
pub const SCORE_RANGE: std::ops::RangeInclusive<f32> = -3.0..=3.0;

/// The part of a dataset that a sample belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Samples to learn from.
    Train,
    /// Samples to choose a model by.
    Valid,
    /// Samples to report on.
    Test,
}

impl Split {
    /// All splits in the order of a store's rows.
    pub const ALL: [Self; 3] = [Self::Train, Self::Valid, Self::Test];

    /// The word that stands for the split in stores and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Split {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "train" | "training" => Ok(Self::Train),
            "valid" | "validation" | "val" | "dev" => Ok(Self::Valid),
            "test" => Ok(Self::Test),
            _ => Err(format!("unknown split `{text}`, expected train, valid or test")),
        }
    }
}

/// What a dataset's own labels say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// How positive an utterance is, on [`SCORE_RANGE`].
    Sentiment,
    /// Which emotion of a closed vocabulary an utterance carries.
    Emotion,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Sentiment => "sentiment",
            Self::Emotion => "emotion",
        })
    }
}

/// The sign of a sentiment, the field by which missing labels are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Polarity {
    /// Below zero.
    Negative,
    /// Exactly zero.
    Neutral,
    /// Above zero.
    Positive,
}

impl Polarity {
    /// All polarities from negative to positive.
    pub const ALL: [Self; 3] = [Self::Negative, Self::Neutral, Self::Positive];

    /// The word that stands for the polarity in stores and target strings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Negative => "negative",
            Self::Neutral => "neutral",
            Self::Positive => "positive",
        }
    }

    /// The sign of a score.
    pub fn from_score(score: f32) -> Self {
        if score > 0.0 {
            Self::Positive
        } else if score < 0.0 {
            Self::Negative
        } else {
            Self::Neutral
        }
    }
}

impl fmt::Display for Polarity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Polarity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim().to_ascii_lowercase().as_str() {
            "negative" => Ok(Self::Negative),
            "neutral" => Ok(Self::Neutral),
            "positive" => Ok(Self::Positive),
            _ => Err(format!("unknown polarity `{text}`, expected negative, neutral or positive")),
        }
    }
}

/// A named, ordered, closed set of emotions; the position of a class is its number in metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// The name by which labels refer to it, the dataset that brought it as a rule.
    pub name: String,
    /// The classes, in the order of their numbers.
    pub classes: Vec<String>,
}

impl Vocabulary {
    /// The seven emotions of MELD in the order of the official class indexes.
    pub fn meld() -> Self {
        let classes = ["neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"];
        Self { name: "meld".to_owned(), classes: classes.map(str::to_owned).to_vec() }
    }

    /// The six emotions of IEMOCAP in the order of the class indexes of `DialogueRNN`.
    pub fn iemocap() -> Self {
        let classes = ["joy", "sadness", "neutral", "anger", "excited", "frustrated"];
        Self { name: "iemocap".to_owned(), classes: classes.map(str::to_owned).to_vec() }
    }

    /// The four emotions of IEMOCAP in the order of `MulT`'s columns; results on them do not compare with those on six.
    pub fn iemocap4() -> Self {
        let classes = ["neutral", "joy", "sadness", "anger"];
        Self { name: "iemocap4".to_owned(), classes: classes.map(str::to_owned).to_vec() }
    }

    /// The number of a class.
    pub fn index_of(&self, class: &str) -> Option<usize> {
        self.classes.iter().position(|known| known == class)
    }
}

/// What is known about a sample's meaning; what is not known is absent and can be filled in later.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Labels {
    /// The sign of the sentiment.
    pub polarity: Option<Polarity>,
    /// The sentiment on [`SCORE_RANGE`].
    pub score: Option<f32>,
    /// One class a vocabulary, by the vocabulary's name.
    pub emotions: BTreeMap<String, String>,
    /// Which of these were copied from another dataset's sample: by `score` or the vocabulary's name.
    #[serde(default)]
    pub filled: BTreeMap<String, Donor>,
}

/// The sample that a label was copied from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Donor {
    /// Its dataset and id, `meld/dia0_utt3`; empty where a rule filled the field, as for neutral samples.
    pub from: String,
    /// The cosine of both sentences' vectors.
    pub similarity: f32,
}

/// A sequence of feature vectors of its true length: no padding, no NaN, no infinity.
#[derive(Clone, PartialEq)]
pub struct Features {
    frames: usize,
    dim: usize,
    data: Vec<f32>,
}

impl Features {
    /// Takes `frames * dim` values, row-major; `None` if the sizes do not agree or one of them is zero.
    pub fn try_new(frames: usize, dim: usize, data: Vec<f32>) -> Option<Self> {
        let fits = frames > 0 && dim > 0 && frames.checked_mul(dim) == Some(data.len());
        fits.then_some(Self { frames, dim, data })
    }

    /// The number of vectors.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// The length of each vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The values, shape `[frames, dim]`, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Features[{} x {}]", self.frames, self.dim)
    }
}

/// One utterance: its words, its labels, and its sound and sight where they exist.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The id as in the source file; unique within its split.
    pub id: String,
    /// The part of the dataset it belongs to.
    pub split: Split,
    /// The utterance alone.
    pub text: String,
    /// The utterance among the turns around it, marked by `</s>` on both sides; `None` where there is no context.
    pub context: Option<String>,
    /// Who says it.
    pub speaker: Option<String>,
    /// The dialogue or video that it is a turn of.
    pub dialogue: Option<String>,
    /// Its position in the dialogue.
    pub turn: Option<i32>,
    /// What is known about its meaning.
    pub labels: Labels,
    /// The sound; `None` where it is missing, which the model masks.
    pub acoustic: Option<Features>,
    /// The sight; `None` where it is missing, which the model masks.
    pub visual: Option<Features>,
}

impl Sample {
    /// The words that the model reads: with context where there is one.
    pub fn source_text(&self) -> &str {
        self.context.as_deref().unwrap_or(&self.text)
    }
}
