//! The pickles of the MMSA platform (thuiar/MMSA): `aligned_50.pkl`, `unaligned_50.pkl` and files of the same layout.
//!
//! `{'train', 'valid', 'test'}` -> `raw_text`, `id`, `regression_labels` (N), and optionally `annotations` (N), `audio`
//! and `vision` as `(N, T, D)`, `(N, D)` or one array a sample, `audio_lengths` and `vision_lengths` (N). All sizes are
//! read from the file. Other keys, the BERT features among them, are never touched.

use crate::error::{Error, Problem};
use crate::import::ImportOptions;
use crate::read::features::{Raw, clean};
use crate::read::pickle::{Column, Document, Limits, Numbers, Value};
use crate::read::{Dataset, Reader, Row, Source};
use crate::schema::{Features, Labels, Polarity, SCORE_RANGE, Sample, Split, Task};

/// Reads one pickle, split after split.
pub(crate) struct MmsaReader {
    document: Document,
    file: String,
    path: String,
    options: ImportOptions,
    splits: Vec<Split>,
}

impl MmsaReader {
    pub(crate) fn open(sources: &[Source], options: &ImportOptions) -> Result<Self, Error> {
        let [source] = sources else {
            return Err(Error::Format {
                path: sources.iter().map(Source::name).collect::<Vec<_>>().join(", "),
                problem: format!("{} files are given, a dataset of this format is one file", sources.len()),
                hint: "import each file into a store of its own".to_owned(),
            });
        };
        let path = source.path.display().to_string();
        let file = source.open()?;
        let document = Document::read(Box::new(file), Limits::default())
            .map_err(|cause| Error::Pickle { path: path.clone(), cause })?;
        Self::of(document, source.name(), path, options)
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
            let hint = "this is not the layout of MMSA; see `unimse data import --help` for the formats".to_owned();
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
        Dataset { task: Task::Sentiment, vocabularies: Vec::new(), context: None }
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

fn find_split(root: Value<'_>, split: Split) -> Option<Value<'_>> {
    let names: &[&str] = match split {
        Split::Train => &["train"],
        Split::Valid => &["valid", "dev", "val"],
        Split::Test => &["test"],
    };
    names.iter().find_map(|name| root.get(name))
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
            text: required("raw_text")?,
            scores: required("regression_labels")?,
            annotations: optional(table, "annotations")?,
            audio: Modality::of(table, "audio", "audio_lengths")?,
            vision: Modality::of(table, "vision", "vision_lengths")?,
            rows: 0,
        };
        let rows = columns.id.len();
        let lengths = [
            ("raw_text", Some(columns.text.len())),
            ("regression_labels", Some(columns.scores.len())),
            ("annotations", columns.annotations.as_ref().map(Column::len)),
            ("audio", columns.audio.rows()),
            ("vision", columns.vision.rows()),
            ("audio_lengths", columns.audio.lengths.as_ref().map(Column::len)),
            ("vision_lengths", columns.vision.lengths.as_ref().map(Column::len)),
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
        let mut features = |modality: &Modality<'_>| -> Result<Option<Features>, Problem> {
            let Some(raw) = modality.raw(row)? else { return Ok(None) };
            let (features, bad) = clean(modality.name, raw, options.bad_features)?;
            *bad_values += bad;
            Ok(features)
        };
        let (acoustic, visual) = (features(&self.audio)?, features(&self.vision)?);
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
        let score = self.scores.number(row).map_err(|problem| named("regression_labels", problem))? as f32;
        if !SCORE_RANGE.contains(&score) {
            let (low, high) = (SCORE_RANGE.start(), SCORE_RANGE.end());
            return Err(Problem::new(format!("regression_labels is {score}, outside {low} to {high}")));
        }
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

fn named(key: &str, problem: Problem) -> Problem {
    Problem { text: format!("{key}: {}", problem.text), hint: problem.hint }
}

fn optional<'d>(table: Value<'d>, key: &str) -> Result<Option<Column<'d>>, Problem> {
    match table.get(key) {
        Some(value) if !value.is_none() => value.column().map(Some).map_err(|problem| named(key, problem)),
        _ => Ok(None),
    }
}

/// The features of one modality of a split.
struct Modality<'d> {
    name: &'static str,
    frames: Frames<'d>,
    lengths: Option<Column<'d>>,
}

enum Frames<'d> {
    /// The file does not have this modality.
    Absent,
    /// One array for all rows, padded to the same number of frames.
    Padded { numbers: Numbers<'d>, dim: usize },
    /// One array a row, of its own number of frames.
    Ragged(Column<'d>),
}

impl<'d> Modality<'d> {
    fn of(table: Value<'d>, name: &'static str, lengths: &'static str) -> Result<Self, Problem> {
        let frames = match table.get(name) {
            None => Frames::Absent,
            Some(value) if value.is_none() => Frames::Absent,
            Some(value) => match value.numbers().map_err(|problem| named(name, problem))? {
                Some(numbers) => {
                    let dim = match numbers.shape() {
                        [_, dim] | [_, _, dim] => *dim as usize,
                        shape => {
                            let problem = format!("{name} has shape {shape:?}, expected (N, T, D) or (N, D)");
                            return Err(Problem::new(problem));
                        }
                    };
                    Frames::Padded { numbers, dim }
                }
                None => Frames::Ragged(value.column().map_err(|problem| named(name, problem))?),
            },
        };
        Ok(Self { name, frames, lengths: optional(table, lengths)? })
    }

    fn rows(&self) -> Option<usize> {
        match &self.frames {
            Frames::Absent => None,
            Frames::Padded { numbers, .. } => Some(numbers.shape()[0] as usize),
            Frames::Ragged(column) => Some(column.len()),
        }
    }

    fn raw(&self, row: usize) -> Result<Option<Raw>, Problem> {
        let (dim, data) = match &self.frames {
            Frames::Absent => return Ok(None),
            Frames::Padded { numbers, dim } => (*dim, numbers.row(row)?),
            Frames::Ragged(column) => match column.value(row) {
                Some(value) if !value.is_none() => self.ragged(value)?,
                _ => return Ok(None),
            },
        };
        Ok(Some(Raw { dim, data, length: self.length(row)? }))
    }

    /// Reads an array of one row: `(T, D)`, or `(D)` for one frame.
    fn ragged(&self, value: Value<'d>) -> Result<(usize, Vec<f32>), Problem> {
        let numbers = value.numbers()?;
        let numbers = numbers.ok_or_else(|| {
            Problem::new(format!("{}: expected an array of numbers a row, found {}", self.name, value.kind()))
        })?;
        match *numbers.shape() {
            [dim] | [_, dim] => Ok((dim as usize, numbers.all()?)),
            ref shape => Err(Problem::new(format!("{} has shape {shape:?}, expected (T, D) or (D)", self.name))),
        }
    }

    fn length(&self, row: usize) -> Result<Option<usize>, Problem> {
        let Some(lengths) = &self.lengths else { return Ok(None) };
        let length = lengths.number(row)?;
        if length >= 0.0 && length.fract() == 0.0 && length <= f64::from(u32::MAX) {
            return Ok(Some(length as usize));
        }
        Err(Problem::new(format!("{}_lengths is {length}", self.name)))
    }
}

#[cfg(test)]
mod tests;
