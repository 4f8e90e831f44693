//! What a store says about itself.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Split, Task, Vocabulary};

/// Which turns around an utterance are its context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextWindow {
    /// Turns before it.
    pub past: usize,
    /// Turns after it; 0 makes a causal system.
    pub future: usize,
    /// Whose turns count.
    // Left out where it is the default, so that the hash of older stores still agrees.
    #[serde(default, skip_serializing_if = "Turns::is_all")]
    pub turns: Turns,
    /// Whether each turn is preceded by its speaker's name.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub names: bool,
}

impl ContextWindow {
    /// A window over the turns of all speakers, with their names.
    pub fn new(past: usize, future: usize) -> Self {
        Self { past, future, turns: Turns::All, names: true }
    }
}

impl Default for ContextWindow {
    /// Two turns on either side, as `UniMSE` was published.
    fn default() -> Self {
        Self::new(2, 2)
    }
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
fn is_yes(value: &bool) -> bool {
    *value
}

/// Whose turns are the context of an utterance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Turns {
    /// Those of everybody in the dialogue, as `UniMSE` has it for MELD.
    #[default]
    All,
    /// Those of the one who speaks, as `UniMSE` has it for IEMOCAP.
    Same,
}

impl Turns {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
    fn is_all(&self) -> bool {
        *self == Self::All
    }
}

impl FromStr for Turns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self::All),
            "same" => Ok(Self::Same),
            _ => Err(format!("unknown choice of turns `{text}`, expected all or same")),
        }
    }
}

/// The number of samples a split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Samples to learn from.
    pub train: usize,
    /// Samples to choose a model by.
    pub valid: usize,
    /// Samples to report on.
    pub test: usize,
}

impl Counts {
    /// The samples of one split.
    pub fn of(&self, split: Split) -> usize {
        match split {
            Split::Train => self.train,
            Split::Valid => self.valid,
            Split::Test => self.test,
        }
    }

    /// The samples of all splits.
    pub fn total(&self) -> usize {
        self.train + self.valid + self.test
    }

    pub(crate) fn add(&mut self, split: Split) {
        match split {
            Split::Train => self.train += 1,
            Split::Valid => self.valid += 1,
            Split::Test => self.test += 1,
        }
    }
}

/// One file that a store was made from; its name only, so that stores made in different folders are equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// The file's name without its folder.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// The BLAKE3 hash of its bytes, in hex.
    pub blake3: String,
}

/// Where a store's samples come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The release format, or how the data was made.
    pub format: String,
    /// The files, in the order they were read.
    pub files: Vec<SourceFile>,
    /// The turns of context in the samples' text, for dialogues.
    pub context: Option<ContextWindow>,
    /// How labels of other datasets were added, if they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labelling: Option<Labelling>,
}

/// How missing labels were filled from other datasets (universal labels).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labelling {
    /// The sentence encoder: its folder's name, what it pools and the hash of its weights.
    pub encoder: String,
    /// The datasets that gave labels, each with its content hash.
    pub donors: Vec<(String, String)>,
    /// Whether samples that are not for training gave labels too.
    pub all_splits: bool,
}

/// The mean and the deviation of each value of a modality's vectors, over all frames of the training split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// The frames that were counted.
    pub frames: u64,
    /// One mean a value.
    pub mean: Vec<f32>,
    /// One deviation a value; 0 for a value that never changes.
    pub deviation: Vec<f32>,
}

/// What a store says about itself, kept as JSON in the Arrow schema's metadata under [`Metadata::KEY`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The version of the store's layout.
    pub version: u32,
    /// The dataset's name, which appears in metrics and sample ids.
    pub name: String,
    /// What its own labels say.
    pub task: Task,
    /// The emotion vocabularies its labels use; for an emotion dataset its own comes first.
    pub vocabularies: Vec<Vocabulary>,
    /// The length of the acoustic vectors, if any sample has them.
    pub acoustic_dim: Option<usize>,
    /// The length of the visual vectors, if any sample has them.
    pub visual_dim: Option<usize>,
    /// The acoustic vectors of the training samples, if there are some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acoustic_statistics: Option<Statistics>,
    /// The visual vectors of the training samples, if there are some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visual_statistics: Option<Statistics>,
    /// Samples a split.
    pub counts: Counts,
    /// Where the samples come from.
    pub source: Provenance,
    /// The version of the program that wrote the store.
    pub tool_version: String,
    /// The BLAKE3 hash, in hex, over this metadata (with this field empty) and the hashes of all batches.
    pub content_hash: String,
}

impl Metadata {
    /// The key in the Arrow schema's metadata.
    pub const KEY: &'static str = "unimse";
    /// The version of the layout that this program writes.
    pub const VERSION: u32 = 2;

    /// The dataset's own emotion vocabulary.
    pub fn emotion_vocabulary(&self) -> Option<&Vocabulary> {
        match self.task {
            Task::Emotion => self.vocabularies.first(),
            Task::Sentiment => None,
        }
    }

    /// The vocabulary of a name.
    pub fn vocabulary(&self, name: &str) -> Option<&Vocabulary> {
        self.vocabularies.iter().find(|vocabulary| vocabulary.name == name)
    }
}
