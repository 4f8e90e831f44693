//! What is in a store, without reading its features.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::report::{SplitReport, describe_dims, split_table};
use crate::error::Error;
use crate::schema::{Metadata, Split};
use crate::store::Store;

/// What is in a store.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// What the store says about itself.
    pub metadata: Metadata,
    /// Its length in bytes.
    pub bytes: u64,
    /// What is in each split that has samples.
    pub splits: BTreeMap<Split, SplitReport>,
    /// The lengths of the acoustic sequences in frames.
    pub acoustic_frames: Option<Lengths>,
    /// The lengths of the visual sequences in frames.
    pub visual_frames: Option<Lengths>,
    /// The first utterance, as the model reads it.
    pub example: Option<String>,
}

/// The spread of sequence lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// The shortest.
    pub min: usize,
    /// The one in the middle.
    pub median: usize,
    /// The longest.
    pub max: usize,
}

impl Lengths {
    fn of(mut lengths: Vec<usize>) -> Option<Self> {
        lengths.sort_unstable();
        let median = *lengths.get(lengths.len() / 2)?;
        Some(Self { min: *lengths.first()?, median, max: *lengths.last()? })
    }
}

impl Inspection {
    pub(super) fn of(store: &Store) -> Result<Self, Error> {
        let mut splits: BTreeMap<Split, SplitReport> = BTreeMap::new();
        let (mut acoustic, mut visual) = (Vec::new(), Vec::new());
        for split in Split::ALL {
            for &row in store.rows(split) {
                let counts = splits.entry(split).or_default();
                let frames = store.frames(row);
                counts.samples += 1;
                counts.missing_acoustic += u64::from(frames.0.is_none());
                counts.missing_visual += u64::from(frames.1.is_none());
                counts.count_labels(&store.labels(row));
                acoustic.extend(frames.0);
                visual.extend(frames.1);
            }
        }
        let bytes = std::fs::metadata(store.path()).map_err(|cause| Error::io("read", store.path(), cause))?.len();
        Ok(Self {
            metadata: store.metadata().clone(),
            bytes,
            splits,
            acoustic_frames: Lengths::of(acoustic),
            visual_frames: Lengths::of(visual),
            example: (!store.is_empty()).then(|| store.source_text(0).to_owned()),
        })
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metadata = &self.metadata;
        let dims = describe_dims(metadata.acoustic_dim, metadata.visual_dim);
        writeln!(f, "{}: {}, {} bytes, {dims}", metadata.name, metadata.task, self.bytes)?;
        for vocabulary in &metadata.vocabularies {
            writeln!(f, "vocabulary {}: {}", vocabulary.name, vocabulary.classes.join(", "))?;
        }
        for file in &metadata.source.files {
            let hash = file.blake3.get(..16).unwrap_or(&file.blake3);
            writeln!(f, "source {} ({}), {} bytes, {hash}", file.name, metadata.source.format, file.bytes)?;
        }
        if let Some(context) = metadata.source.context {
            writeln!(f, "context {} turns before, {} after", context.past, context.future)?;
        }
        for (name, lengths) in [("acoustic", self.acoustic_frames), ("visual", self.visual_frames)] {
            if let Some(Lengths { min, median, max }) = lengths {
                writeln!(f, "{name} frames {min} to {max}, median {median}")?;
            }
        }
        write!(f, "{}", split_table(&self.splits))?;
        if let Some(example) = &self.example {
            writeln!(f, "example {example}")?;
        }
        writeln!(f, "content {}", metadata.content_hash)
    }
}
