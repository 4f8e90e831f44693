//! Reading every byte of a store and comparing it with what the store says.

use std::collections::HashSet;
use std::fmt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use arrow_array::{Array, Float32Array, ListArray};
use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::IpcWriteOptions;
use serde::Serialize;

use super::layout::{HEAD_COLUMNS, schema};
use super::open::Store;
use super::seal::{HEADER_BYTES, footer, header, to_json};
use super::writer::{check_features, check_labels};
use crate::error::Error;
use crate::schema::Split;

/// As many problems as a person reads.
const MAX_PROBLEMS: usize = 20;

/// What a full check of a store found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StoreCheck {
    /// The dataset's name.
    pub name: String,
    /// Samples read.
    pub samples: usize,
    /// Bytes hashed.
    pub bytes: u64,
    /// The content hash, which all of them agree with if there are no problems.
    pub content_hash: String,
    /// The first problems found, in words.
    pub problems: Vec<String>,
    /// All problems found.
    pub problem_count: usize,
}

impl StoreCheck {
    /// Whether the store is sound.
    pub fn is_ok(&self) -> bool {
        self.problem_count == 0
    }

    fn report(&mut self, problem: String) {
        self.problem_count += 1;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }
}

impl fmt::Display for StoreCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_ok() {
            let hash = self.content_hash.get(..16).unwrap_or(&self.content_hash);
            return write!(f, "{}: ok, {} samples, {} bytes verified, {hash}", self.name, self.samples, self.bytes);
        }
        write!(f, "{}: {} problems", self.name, self.problem_count)?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl Store {
    /// Verifies all hashes, decodes all batches as any Arrow reader would, and checks the range of every value.
    pub fn check(path: &Path) -> Result<StoreCheck, Error> {
        let store = Self::open(path)?;
        let metadata = store.metadata();
        let mut check = StoreCheck {
            name: metadata.name.clone(),
            content_hash: metadata.content_hash.clone(),
            ..StoreCheck::default()
        };
        check_frame(&store, &mut check)?;
        let mut intact = true;
        for batch in &store.batches {
            check.bytes += batch.entry.bytes;
            match store.verify(&batch.entry) {
                Err(Error::Damaged { problem, .. }) => {
                    check.report(problem);
                    intact = false;
                }
                other => other?,
            }
        }
        // Bytes that are not the ones written need no second opinion.
        if intact {
            check_samples(&store, &mut check)?;
            check_features_as_arrow(&store, &mut check);
        }
        Ok(check)
    }
}

/// Compares what is around the batches, padding included, with what the writer makes of the same metadata.
fn check_frame(store: &Store, check: &mut StoreCheck) -> Result<(), Error> {
    let options = IpcWriteOptions::default();
    let schema = schema(Some(to_json(&store.metadata)));
    let entries: Vec<_> = store.batches.iter().map(|batch| batch.entry.clone()).collect();
    let end = entries.last().map_or(HEADER_BYTES as u64, |entry| entry.offset + entry.bytes);
    let parts = [
        ("header", 0, header(&schema, &options).unwrap_or_default()),
        ("footer", end, footer(&schema, &entries, &options)),
    ];
    for (name, offset, expected) in parts {
        let mut found = vec![0; expected.len()];
        let read = store.file.read_exact_at(&mut found, offset);
        read.map_err(|cause| Error::io("read", &store.path, cause))?;
        if found != expected {
            check.report(format!("the {name} is not the one of this metadata"));
        }
        check.bytes += found.len() as u64;
    }
    Ok(())
}

fn check_samples(store: &Store, check: &mut StoreCheck) -> Result<(), Error> {
    let metadata = store.metadata();
    let mut ids: HashSet<(Split, String)> = HashSet::new();
    for row in 0..store.len() {
        let sample = store.sample(row)?;
        check.samples += 1;
        let place = format!("row {row}, id `{}`", sample.id);
        let checks = [
            check_labels(&sample, &metadata.vocabularies),
            check_features("acoustic", sample.acoustic.as_ref(), metadata.acoustic_dim),
            check_features("visual", sample.visual.as_ref(), metadata.visual_dim),
        ];
        for problem in checks.into_iter().filter_map(Result::err) {
            check.report(format!("{place}: {problem}"));
        }
        if !ids.insert((sample.split, sample.id.clone())) {
            check.report(format!("{place}: the id appears twice in split `{}`", sample.split));
        }
    }
    for batch in &store.batches {
        for row in 0..batch.entry.rows {
            if let Some(word) = batch.head.polarity_word(row)
                && word.parse::<crate::schema::Polarity>().is_err()
            {
                check.report(format!("row {}: the polarity is `{word}`", batch.first_row + row));
            }
        }
    }
    Ok(())
}

/// Compares the lists that other Arrow programs see with the samples that this one reads by position.
fn check_features_as_arrow(store: &Store, check: &mut StoreCheck) {
    let compared = (|| -> Result<Option<String>, String> {
        let file = std::fs::File::open(&store.path).map_err(|cause| cause.to_string())?;
        let reader = FileReader::try_new(file, None).map_err(|cause| cause.to_string())?;
        let mut row = 0;
        for batch in reader {
            let batch = batch.map_err(|cause| cause.to_string())?;
            let list = |index: usize| batch.column(HEAD_COLUMNS + index).as_any().downcast_ref::<ListArray>();
            let (Some(acoustic), Some(visual)) = (list(0), list(1)) else {
                return Ok(Some("the feature columns are not lists".to_owned()));
            };
            for index in 0..batch.num_rows() {
                let sample = store.sample(row).map_err(|error| error.to_string())?;
                let seen = [(acoustic, &sample.acoustic), (visual, &sample.visual)];
                if !seen.iter().all(|(list, features)| same(list, index, features.as_ref())) {
                    return Ok(Some(format!("row {row}, id `{}`: lists and frames disagree", sample.id)));
                }
                row += 1;
            }
        }
        Ok(None)
    })();
    match compared {
        Ok(None) => {}
        Ok(Some(problem)) | Err(problem) => check.report(problem),
    }
}

fn same(list: &ListArray, row: usize, features: Option<&crate::schema::Features>) -> bool {
    match features {
        None => list.is_null(row),
        Some(features) if list.is_valid(row) => {
            let values = list.value(row);
            let values = values.as_any().downcast_ref::<Float32Array>();
            values.is_some_and(|values| values.values()[..] == *features.data())
        }
        Some(_) => false,
    }
}
