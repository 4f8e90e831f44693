//! The pickles of the MMSA platform (thuiar/MMSA): `aligned_50.pkl`, `unaligned_50.pkl` and files of the same layout.
//!
//! `{'train', 'valid', 'test'}` -> `raw_text`, `id`, `regression_labels` (N), and optionally `annotations` (N), `audio`
//! and `vision` as `(N, T, D)`, `(N, D)` or one array a sample, `audio_lengths` and `vision_lengths` (N). All sizes are
//! read from the file. Other keys, the BERT features among them, are never touched.

use crate::error::{Error, Problem};
use crate::import::ImportOptions;
use crate::read::features::Padding;
use crate::read::layout::find_split;
use crate::read::modality::{Modality, named, optional};
use crate::read::opened::Opened;
use crate::read::pickle::{Column, Document, Value};
use crate::read::{Dataset, Reader, Row, labels, one_pickle};
use crate::schema::{Labels, Polarity, Sample, Split, Task};

/// Reads one pickle, split after split.
pub(crate) struct MmsaReader {
    document: Document,
    file: String,
    path: String,
    options: ImportOptions,
    splits: Vec<Split>,
}

impl MmsaReader {
    pub(crate) fn open(opened: Vec<Opened>, options: &ImportOptions) -> Result<Self, Error> {
        let (source, document) = one_pickle(opened)?;
        Self::of(document, source.name(), source.path.display().to_string(), options)
    }

    fn of(document: Document, file: String, path: String, options: &ImportOptions) -> Result<Self, Error> {
        let splits: Vec<Split> =
            Split::ALL.into_iter().filter(|split| find_split(document.root(), *split).is_some()).collect();
        if splits.is_empty() {
            let root = document.root();
            let problem = match root.entries() {
                Some(_) => format!("it has none of the keys train, valid and test; it has {}", list(&root.keys())),
                None => format!("it holds {}, not a dict of splits", root.kind()),
            };
            let hint = "no known release has this layout; see `unimse data import --help` for the formats".to_owned();
            return Err(Error::Format { path, problem, hint });
        }
        Ok(Self { document, file, path, options: options.clone(), splits })
    }

    fn columns(&self, split: Split) -> Result<Columns<'_>, Error> {
        let table = find_split(self.document.root(), split);
        let columns = table.ok_or_else(|| Problem::new("it is missing")).and_then(Columns::of);
        columns.map_err(|problem| Error::Format {
            path: self.path.clone(),
            problem: format!("split `{split}`: {}", problem.text),
            hint: problem.hint.unwrap_or_else(|| "the file does not have the layout of MMSA".to_owned()),
        })
    }
}

impl Reader for MmsaReader {
    fn dataset(&self) -> Dataset {
        Dataset { task: Task::Sentiment, vocabularies: Vec::new(), context: None, splits: self.splits.clone() }
    }

    fn for_each(&mut self, visit: &mut dyn FnMut(Row) -> Result<(), Error>) -> Result<(), Error> {
        for &split in &self.splits {
            let columns = self.columns(split)?;
            for row in 0..columns.rows {
                let id = columns.id.text(row);
                let place = match &id {
                    Ok(id) => format!("{split}[{row}], id `{id}`"),
                    Err(_) => format!("{split}[{row}]"),
                };
                let mut bad_values = 0;
                let sample = id.and_then(|id| columns.sample(split, row, id, &self.options, &mut bad_values));
                visit(Row { file: self.file.clone(), place, split, sample, bad_values })?;
            }
        }
        Ok(())
    }
}

fn list(keys: &[String]) -> String {
    if keys.is_empty() { "no keys".to_owned() } else { format!("`{}`", keys.join("`, `")) }
}

/// The columns of a split, all of the same length.
struct Columns<'d> {
    rows: usize,
    id: Column<'d>,
    text: Column<'d>,
    scores: Column<'d>,
    annotations: Option<Column<'d>>,
    audio: Modality<'d>,
    vision: Modality<'d>,
}

impl<'d> Columns<'d> {
    fn of(table: Value<'d>) -> Result<Self, Problem> {
        if table.entries().is_none() {
            return Err(Problem::new(format!("expected a dict of columns, found {}", table.kind())));
        }
        let required = |key: &str| {
            let column = optional(table, key)?;
            column.ok_or_else(|| Problem::new(format!("the key `{key}` is missing; it has {}", list(&table.keys()))))
        };
        let columns = Self {
            id: required("id")?,
            // Features of words are named `text` as a rule; where there are no raw words, it may be those.
            text: match optional(table, "raw_text")? {
                Some(text) => text,
                None => {
                    optional(table, "text").ok().flatten().filter(is_words).map_or_else(|| required("raw_text"), Ok)?
                }
            },
            scores: required("regression_labels")?,
            annotations: optional(table, "annotations")?,
            audio: Modality::of(table, "audio", Padding::Ends)?.with_lengths(table, "audio_lengths")?,
            vision: Modality::of(table, "vision", Padding::Ends)?.with_lengths(table, "vision_lengths")?,
            rows: 0,
        };
        let rows = columns.id.len();
        let lengths = [
            ("raw_text", Some(columns.text.len())),
            ("regression_labels", Some(columns.scores.len())),
            ("annotations", columns.annotations.as_ref().map(Column::len)),
            ("audio", columns.audio.rows()),
            ("vision", columns.vision.rows()),
            ("audio_lengths", columns.audio.length_rows()),
            ("vision_lengths", columns.vision.length_rows()),
        ];
        for (key, length) in lengths {
            if let Some(length) = length
                && length != rows
            {
                return Err(Problem::new(format!("`{key}` has {length} rows, `id` has {rows}")));
            }
        }
        Ok(Self { rows, ..columns })
    }

    fn sample(
        &self,
        split: Split,
        row: usize,
        id: String,
        options: &ImportOptions,
        bad_values: &mut u64,
    ) -> Result<Sample, Problem> {
        let acoustic = self.audio.features(row, options.bad_features, bad_values)?;
        let visual = self.vision.features(row, options.bad_features, bad_values)?;
        let (dialogue, turn) = match id.split_once("$_$") {
            Some((video, clip)) => (Some(video.to_owned()), clip.parse().ok()),
            None => (None, None),
        };
        Ok(Sample {
            labels: self.labels(row)?,
            text: self.text.text(row).map_err(|problem| named("raw_text", problem))?.trim().to_owned(),
            id,
            split,
            context: None,
            speaker: None,
            dialogue,
            turn,
            acoustic,
            visual,
        })
    }

    fn labels(&self, row: usize) -> Result<Labels, Problem> {
        let score = self.scores.number(row).map_err(|problem| named("regression_labels", problem))?;
        let score = labels::score("regression_labels", score)?;
        let polarity = match &self.annotations {
            Some(annotations) => {
                let word = annotations.text(row).map_err(|problem| named("annotations", problem))?;
                word.parse().map_err(|problem| named("annotations", Problem::new(problem)))?
            }
            None => Polarity::from_score(score),
        };
        Ok(Labels { polarity: Some(polarity), score: Some(score), ..Labels::default() })
    }
}

fn is_words(column: &Column<'_>) -> bool {
    column.is_empty() || column.text(0).is_ok()
}

#[cfg(test)]
mod tests;
