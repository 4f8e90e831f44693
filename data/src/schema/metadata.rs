//! What a store says about itself.

use serde::{Deserialize, Serialize};

use super::{Split, Task, Vocabulary};

/// The number of turns around an utterance that its context holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextWindow {
    /// Turns before it.
    pub past: usize,
    /// Turns after it; 0 makes a causal system.
    pub future: usize,
}

impl Default for ContextWindow {
    /// Two turns on either side, as `UniMSE` was published.
    fn default() -> Self {
        Self { past: 2, future: 2 }
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
}

/// What a store says about itself, kept as JSON in the Arrow schema's metadata under [`Metadata::KEY`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    pub const VERSION: u32 = 1;

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
