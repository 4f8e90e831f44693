//! What an import did, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::findings::Findings;
use super::table::Table;
use crate::error::{BadRow, Error};
use crate::schema::{Metadata, Polarity, Sample, Split};

/// As many rejected rows as are listed one by one.
const MAX_LISTED: usize = 100;

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The dataset's name.
    pub name: String,
    /// The release format it was read from.
    pub format: String,
    /// The store.
    pub store: PathBuf,
    /// The store's length in bytes.
    pub bytes: u64,
    /// The store's content hash.
    pub content_hash: String,
    /// The length of the acoustic vectors, if there are any.
    pub acoustic_dim: Option<usize>,
    /// The length of the visual vectors, if there are any.
    pub visual_dim: Option<usize>,
    /// What was found, by split.
    pub splits: BTreeMap<Split, SplitReport>,
    /// The first rows that were left out.
    pub rejected: Vec<BadRow>,
    /// All rows that were left out.
    pub rejected_count: u64,
    /// What was noticed that belongs to no single row.
    #[serde(default)]
    pub findings: Findings,
}

/// What was found in one split.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitReport {
    /// Samples stored.
    pub samples: u64,
    /// Samples without sound.
    pub missing_acoustic: u64,
    /// Samples without sight.
    pub missing_visual: u64,
    /// NaN and infinite feature values that were met.
    pub bad_values: u64,
    /// Samples that had such values.
    pub samples_with_bad_values: u64,
    /// Rows that were left out.
    pub rejected: u64,
    /// Samples by polarity; those without are not counted.
    pub polarity: BTreeMap<Polarity, u64>,
    /// Samples by score, rounded half to even as the seven-class accuracy does, from -3 to 3.
    pub scores: BTreeMap<i8, u64>,
    /// Samples by vocabulary and class.
    pub emotions: BTreeMap<String, BTreeMap<String, u64>>,
}

impl SplitReport {
    pub(super) fn count_labels(&mut self, labels: &crate::schema::Labels) {
        if let Some(polarity) = labels.polarity {
            *self.polarity.entry(polarity).or_default() += 1;
        }
        if let Some(score) = labels.score {
            *self.scores.entry(score.round_ties_even() as i8).or_default() += 1;
        }
        for (vocabulary, class) in &labels.emotions {
            *self.emotions.entry(vocabulary.clone()).or_default().entry(class.clone()).or_default() += 1;
        }
    }
}

impl Report {
    pub(crate) fn new(format: &str) -> Self {
        Self {
            name: String::new(),
            format: format.to_owned(),
            store: PathBuf::new(),
            bytes: 0,
            content_hash: String::new(),
            acoustic_dim: None,
            visual_dim: None,
            splits: BTreeMap::new(),
            rejected: Vec::new(),
            rejected_count: 0,
            findings: Findings::default(),
        }
    }

    /// The samples of all splits.
    pub fn samples(&self) -> u64 {
        self.splits.values().map(|split| split.samples).sum()
    }

    pub(crate) fn count(&mut self, sample: &Sample, bad_values: u64) {
        let split = self.splits.entry(sample.split).or_default();
        split.samples += 1;
        split.missing_acoustic += u64::from(sample.acoustic.is_none());
        split.missing_visual += u64::from(sample.visual.is_none());
        split.bad_values += bad_values;
        split.samples_with_bad_values += u64::from(bad_values > 0);
        split.count_labels(&sample.labels);
    }

    pub(super) fn reject(&mut self, split: Split, row: BadRow) {
        self.splits.entry(split).or_default().rejected += 1;
        self.rejected_count += 1;
        if self.rejected.len() < MAX_LISTED {
            self.rejected.push(row);
        }
    }

    /// Adds what the reader noticed, and which of the splits of its source have no samples.
    pub(super) fn take_findings(&mut self, findings: Findings, splits: &[Split]) {
        self.findings = findings;
        for split in splits {
            if self.splits.get(split).is_none_or(|report| report.samples == 0) {
                self.findings.note(format!("split `{split}` has no samples"));
            }
        }
    }

    pub(crate) fn complete(&mut self, metadata: &Metadata, out: &Path) -> Result<(), Error> {
        self.name.clone_from(&metadata.name);
        self.content_hash.clone_from(&metadata.content_hash);
        (self.acoustic_dim, self.visual_dim) = (metadata.acoustic_dim, metadata.visual_dim);
        out.clone_into(&mut self.store);
        self.bytes = std::fs::metadata(out).map_err(|cause| Error::io("read", out, cause))?.len();
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims = describe_dims(self.acoustic_dim, self.visual_dim);
        writeln!(f, "{} ({}) -> {}, {} bytes, {dims}", self.name, self.format, self.store.display(), self.bytes)?;
        write!(f, "{}", split_table(&self.splits))?;
        if self.rejected_count > 0 {
            writeln!(f, "left out, {} rows:", self.rejected_count)?;
            for row in &self.rejected {
                writeln!(f, "  {}: {}: {}", row.file, row.place, row.problem)?;
            }
            if self.rejected_count > self.rejected.len() as u64 {
                writeln!(f, "  and {} more", self.rejected_count - self.rejected.len() as u64)?;
            }
        }
        write!(f, "{}", self.findings)
    }
}

/// The width of the features in words.
pub(super) fn describe_dims(acoustic: Option<usize>, visual: Option<usize>) -> String {
    let part = |name: &str, dim: Option<usize>| dim.map_or_else(|| format!("no {name}"), |dim| format!("{name} {dim}"));
    format!("{}, {}", part("acoustic", acoustic), part("visual", visual))
}

/// The table of counts that reports and inspections share; lines of nothing but zeros are left out.
pub(super) fn split_table(splits: &BTreeMap<Split, SplitReport>) -> Table {
    let mut table = Table::new(splits.keys().map(ToString::to_string));
    let numbers = |of: &dyn Fn(&SplitReport) -> u64| splits.values().map(of).collect::<Vec<u64>>();
    let cells = |numbers: Vec<u64>| numbers.into_iter().map(|number| number.to_string()).collect::<Vec<_>>();
    table.row("samples", cells(numbers(&|split| split.samples)));
    table.row("no acoustic", cells(numbers(&|split| split.missing_acoustic)));
    table.row("no visual", cells(numbers(&|split| split.missing_visual)));
    let rare = [
        ("NaN or infinite values", numbers(&|split| split.bad_values)),
        ("  in samples", numbers(&|split| split.samples_with_bad_values)),
        ("left out", numbers(&|split| split.rejected)),
    ];
    for (label, counts) in rare {
        if counts.iter().any(|count| *count > 0) {
            table.row(label, cells(counts));
        }
    }
    if splits.values().any(|split| !split.polarity.is_empty()) {
        table.heading("polarity");
        for polarity in Polarity::ALL {
            let count = numbers(&|split| split.polarity.get(&polarity).copied().unwrap_or(0));
            table.row(format!("  {polarity}"), cells(count));
        }
    }
    if splits.values().any(|split| !split.scores.is_empty()) {
        table.heading("score, rounded");
        for score in -3..=3_i8 {
            let count = numbers(&|split| split.scores.get(&score).copied().unwrap_or(0));
            table.row(format!("  {score}"), cells(count));
        }
    }
    let names: std::collections::BTreeSet<&String> = splits.values().flat_map(|split| split.emotions.keys()).collect();
    for name in names {
        table.heading(&format!("emotion, {name}"));
        let found = splits.values().filter_map(|split| split.emotions.get(name));
        let classes: std::collections::BTreeSet<&String> = found.flat_map(BTreeMap::keys).collect();
        for class in classes {
            let count = |split: &SplitReport| split.emotions.get(name)?.get(class).copied();
            table.row(format!("  {class}"), cells(numbers(&|split| count(split).unwrap_or(0))));
        }
    }
    table
}
