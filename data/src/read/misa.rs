//! The pickles of MISA (declare-lab/MISA): `train.pkl`, `dev.pkl`, `test.pkl`, each a list of
//! `((word ids, visual, acoustic, words), label, segment)`.
//!
//! Everything is aligned to words: `visual` and `acoustic` have one row a word, so a row of zeros is no padding. Pauses
//! (`sp`) are gone already. `label` is `(1, 1)` with a score or `(1, 7)` with the score first; `segment` is `video[3]`.

use crate::error::{Error, Problem};
use crate::import::ImportOptions;
use crate::read::features::Padding;
use crate::read::modality::{features_of, frames_of};
use crate::read::pickle::{Document, Value};
use crate::read::splits::one_a_split;
use crate::read::{Content, Dataset, Opened, Reader, Row, Source, ids, labels};
use crate::schema::{Labels, Polarity, Sample, Split, Task};

/// Reads one or more pickles, each of one split.
pub(crate) struct MisaReader {
    files: Vec<(Split, (Source, Document))>,
    options: ImportOptions,
}

impl MisaReader {
    pub(crate) fn open(opened: Vec<Opened>, options: &ImportOptions) -> Result<Self, Error> {
        let mut files = Vec::new();
        for file in opened {
            match file.content {
                Content::Pickle(document) => files.push((file.source, document)),
                _ => {
                    return Err(Error::Format {
                        path: file.path(),
                        problem: "it is not a pickle".to_owned(),
                        hint: "give train.pkl, dev.pkl and test.pkl of MISA".to_owned(),
                    });
                }
            }
        }
        Ok(Self { files: one_a_split(files, |(source, _)| source)?, options: options.clone() })
    }

    fn sample(&self, split: Split, item: Value<'_>, bad: &mut u64) -> Result<Sample, Problem> {
        let segment = item.item(2).ok_or_else(wrong)?.label()?;
        let content = item.item(0).ok_or_else(wrong)?;
        let part = |index: usize| content.item(index).ok_or_else(wrong);
        let policy = self.options.bad_features;
        let (dialogue, turn) = match ids::video_and_clip(&segment) {
            Some((video, clip)) => (Some(video.to_owned()), clip.parse().ok()),
            None => (None, None),
        };
        Ok(Sample {
            text: words(part(3)?)?,
            labels: label(item.item(1).ok_or_else(wrong)?)?,
            visual: features_of("visual", Some(part(1)?), Padding::None, policy, bad)?,
            acoustic: features_of("acoustic", Some(part(2)?), Padding::None, policy, bad)?,
            id: segment,
            split,
            context: None,
            speaker: None,
            dialogue,
            turn,
        })
    }
}

impl Reader for MisaReader {
    fn dataset(&self) -> Dataset {
        let splits = self.files.iter().map(|(split, _)| *split).collect();
        Dataset { task: Task::Sentiment, vocabularies: Vec::new(), context: None, splits }
    }

    fn for_each(&mut self, visit: &mut dyn FnMut(Row) -> Result<(), Error>) -> Result<(), Error> {
        for (split, (source, document)) in &self.files {
            let items = document.root().items().ok_or_else(|| Error::Format {
                path: source.path.display().to_string(),
                problem: format!("it holds {}, not a list of samples", document.root().kind()),
                hint: "the file does not have the layout of MISA".to_owned(),
            })?;
            for (row, item) in items.enumerate() {
                let place = match item.item(2).map(Value::label) {
                    Some(Ok(id)) => format!("[{row}], id `{id}`"),
                    _ => format!("[{row}]"),
                };
                let mut bad_values = 0;
                let sample = self.sample(*split, item, &mut bad_values);
                visit(Row { file: source.name(), place, split: *split, sample, bad_values })?;
            }
        }
        Ok(())
    }
}

fn wrong() -> Problem {
    Problem::new("expected ((word ids, visual, acoustic, words), label, segment)")
}

fn words(value: Value<'_>) -> Result<String, Problem> {
    match value.items() {
        Some(items) => {
            let words = items.map(Value::text).collect::<Result<Vec<_>, _>>()?;
            Ok(words.into_iter().filter(|word| word != "sp").collect::<Vec<_>>().join(" "))
        }
        None => value.text(),
    }
}

fn label(value: Value<'_>) -> Result<Labels, Problem> {
    let score = match value.numbers()? {
        Some(_) => {
            let (_, values) = frames_of("label", value)?.unwrap_or_default();
            f64::from(*values.first().ok_or_else(|| Problem::new("the label is empty"))?)
        }
        None => value.number()?,
    };
    let score = labels::score("label", score)?;
    Ok(Labels { polarity: Some(Polarity::from_score(score)), score: Some(score), ..Labels::default() })
}
