//! People's own data: a table with a header, and a folder of `.npy` files a modality.
//!
//! ```text
//! my/train.csv            id, text, score and/or emotion; perhaps split, speaker, dialogue, turn, polarity, acoustic, visual
//! my/acoustic/<id>.npy    (T, D) or (D); `audio` is the same
//! my/visual/<id>.npy      (T, D) or (D); `video` and `vision` are the same
//! ```
//!
//! The split is in the column `split` (or `mode`), else in the file's name. `video_id` and `clip_id` together are an id
//! too, `label` is a score where it is a number, else an emotion. The columns `acoustic` and `visual` may name files,
//! relative to the table. Emotions that are all of MELD's or all of IEMOCAP's use that vocabulary, others make one of their
//! own in the order of the alphabet. With `dialogue` and `turn`, utterances have context.

use std::collections::BTreeMap;

use crate::error::{Error, Problem};
use crate::import::{Findings, ImportOptions};
use crate::read::context::{Dialogues, Turn};
use crate::read::splits::split_of;
use crate::read::table::{Record, Table};
use crate::read::tracks::Side;
use crate::read::{BadFeatures, Content, Dataset, Opened, Reader, Row, labels};
use crate::schema::{ContextWindow, Labels, Polarity, Sample, Split, Task, Turns, Vocabulary};

mod columns;
mod folder;

pub(crate) use columns::is_plain;
use columns::{Columns, vocabulary_of};
use folder::Folder;

/// Reads one or more tables and the folders beside them.
pub(crate) struct PlainReader {
    tables: Vec<(Table, Columns)>,
    vocabulary: Option<Vocabulary>,
    has_scores: bool,
    window: ContextWindow,
    bad_features: BadFeatures,
    findings: Findings,
}

impl PlainReader {
    pub(crate) fn open(opened: Vec<Opened>, options: &ImportOptions) -> Result<Self, Error> {
        let mut tables = Vec::new();
        for file in opened {
            let path = file.path();
            let Content::Table(table) = file.content else {
                return Err(Error::Format {
                    path,
                    problem: "it is not a table".to_owned(),
                    hint: "give the CSV; the folders `acoustic` and `visual` beside it are found".to_owned(),
                });
            };
            let columns = Columns::of(&table)?;
            tables.push((table, columns));
        }
        let emotions =
            tables.iter().flat_map(|(table, columns)| table.rows.iter().filter_map(move |row| columns.emotion(row)));
        Ok(Self {
            vocabulary: vocabulary_of(emotions),
            has_scores: tables.iter().any(|(_, columns)| columns.score.is_some()),
            tables,
            window: options.window(Turns::All, true),
            bad_features: options.bad_features,
            findings: Findings::default(),
        })
    }

    fn labels(&self, columns: &Columns, row: &Record) -> Result<Labels, Problem> {
        let score = row.find(columns.score).map(|score| labels::parse_score("score", score)).transpose()?;
        let polarity = match row.find(columns.polarity) {
            Some(word) => Some(labels::polarity("polarity", word)?),
            None => score.map(Polarity::from_score),
        };
        let mut emotions = BTreeMap::new();
        if let (Some(vocabulary), Some(word)) = (&self.vocabulary, columns.emotion(row)) {
            emotions.insert(vocabulary.name.clone(), labels::class("emotion", word, vocabulary)?);
        }
        if score.is_none() && polarity.is_none() && emotions.is_empty() {
            return Err(Problem::new("it has neither a score nor an emotion"));
        }
        Ok(Labels { polarity, score, emotions, ..Labels::default() })
    }
}

impl Reader for PlainReader {
    fn dataset(&self) -> Dataset {
        let has_context = self.tables.iter().any(|(_, columns)| columns.has_dialogues());
        let splits = self.tables.iter().filter(|(_, columns)| columns.split.is_none());
        Dataset {
            task: if self.has_scores || self.vocabulary.is_none() { Task::Sentiment } else { Task::Emotion },
            vocabularies: self.vocabulary.iter().cloned().collect(),
            context: has_context.then_some(self.window),
            splits: splits.filter_map(|(table, _)| split_of(&table.source).ok()).collect(),
        }
    }

    fn for_each(&mut self, visit: &mut dyn FnMut(Row) -> Result<(), Error>) -> Result<(), Error> {
        let mut findings = Findings::default();
        for (table, columns) in &self.tables {
            let file_split = match columns.split {
                Some(_) => None,
                None => Some(split_of(&table.source)?),
            };
            let mut folder = Folder::beside(&table.source)?;
            let turns: Vec<Turn> = table.rows.iter().map(|row| columns.turn(row)).collect();
            let dialogues = Dialogues::of(table.rows.iter().map(|row| columns.place(row, file_split)).collect());
            let mut missing = [Vec::new(), Vec::new()];
            for (at, row) in table.rows.iter().enumerate() {
                let id = columns.id(row);
                let place = format!("line {}, id `{id}`", row.line);
                let given = row.find(columns.split).map(|word| word.parse().map_err(Problem::new));
                let (split, known) =
                    match given.unwrap_or_else(|| file_split.ok_or_else(|| Problem::new("the split is empty"))) {
                        Ok(split) => (split, Ok(())),
                        // The row is counted somewhere.
                        Err(problem) => (Split::Train, Err(problem)),
                    };
                let mut bad_values = 0;
                let mut features = |side: Side| {
                    let path = row.find(columns.paths[side as usize]);
                    let found = folder.features(side, &id, path, self.bad_features, &mut bad_values)?;
                    if found.is_none() {
                        missing[side as usize].push(id.clone());
                    }
                    Ok::<_, Problem>(found)
                };
                let sample = known.and_then(|()| {
                    Ok(Sample {
                        split,
                        text: turns[at].text.clone(),
                        context: columns
                            .has_dialogues()
                            .then(|| dialogues.context(at, self.window, |index| &turns[index])),
                        speaker: turns[at].speaker.clone(),
                        dialogue: row.find(columns.dialogue).map(str::to_owned),
                        turn: row.find(columns.turn).and_then(|turn| turn.parse().ok()),
                        labels: self.labels(columns, row)?,
                        acoustic: features(Side::Acoustic)?,
                        visual: features(Side::Visual)?,
                        id: id.clone(),
                    })
                });
                visit(Row { file: table.source.name(), place, split, sample, bad_values })?;
            }
            for (side, missing) in Side::ALL.into_iter().zip(missing) {
                if missing.len() < table.rows.len() {
                    let what =
                        format!("rows of {} without {} features, stored without", table.source.name(), side.as_str());
                    findings.unmatched(what, missing);
                }
            }
            folder.report(&mut findings);
        }
        self.findings = findings;
        Ok(())
    }

    fn findings(&mut self) -> Findings {
        std::mem::take(&mut self.findings)
    }
}
