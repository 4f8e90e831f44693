//! Tables of sentences that belong to pickles without words: `video_id, clip_id, text, ...`, as MMSA's `label.csv` and
//! UniMSE's `new_*-label-v4.csv` are, the latter with universal labels.

use std::collections::HashMap;

use super::table::Table;
use super::{ids, labels};
use crate::error::{Error, Problem};
use crate::import::Findings;
use crate::schema::{Labels, Polarity, Vocabulary};

/// The columns that tell such a table from others.
pub(crate) const COLUMNS: [&str; 3] = ["video_id", "clip_id", "text"];
/// The columns of UniMSE's universal labels.
pub(crate) const UNIVERSAL: [&str; 3] = ["score_label", "meld_label", "iemocap_label"];

/// A table of sentences.
#[derive(Debug)]
pub(crate) struct Sentences {
    pub(crate) file: String,
    pub(crate) rows: Vec<Sentence>,
    by_id: HashMap<(String, String), usize>,
    universal: bool,
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Sentence {
    pub(crate) video: String,
    pub(crate) clip: String,
    pub(crate) text: String,
    score: Option<String>,
    annotation: Option<String>,
    emotions: [Option<String>; 2],
}

impl Sentence {
    pub(crate) fn id(&self) -> String {
        format!("{}_{}", self.video, self.clip)
    }
}

impl Sentences {
    pub(crate) fn of(table: &Table) -> Result<Self, Error> {
        let [video, clip, text] = COLUMNS.map(|name| table.column(name, "give the CSV with the sentences"));
        let (video, clip, text) = (video?, clip?, text?);
        let score = ["score_label", "label"].into_iter().find_map(|name| table.find(name));
        let annotation = table.find("annotation");
        let emotions = [table.find("meld_label"), table.find("iemocap_label")];
        let mut by_id = HashMap::new();
        let mut rows = Vec::with_capacity(table.rows.len());
        for record in &table.rows {
            let sentence = Sentence {
                video: record.get(video).to_owned(),
                clip: record.get(clip).to_owned(),
                text: record.get(text).to_owned(),
                score: record.find(score).map(str::to_owned),
                annotation: record.find(annotation).map(str::to_owned),
                emotions: emotions.map(|column| record.find(column).map(str::to_owned)),
            };
            let id = (sentence.video.clone(), sentence.clip.clone());
            if by_id.insert(id, rows.len()).is_some() {
                let place = format!("line {}, id `{}`", record.line, sentence.id());
                let problem = Problem::with_hint("the id appears twice", "keep one of the two rows");
                return Err(problem.at(&table.source.name(), place).into());
            }
            rows.push(sentence);
        }
        let universal = table.has(&UNIVERSAL);
        Ok(Self { file: table.source.name(), rows, by_id, universal })
    }

    /// The row of an id in any of its spellings.
    pub(crate) fn find(&self, id: &str) -> Option<usize> {
        let (video, clip) = ids::video_and_clip(id)?;
        self.by_id.get(&(video.to_owned(), clip.to_owned())).copied()
    }

    /// The vocabularies of the universal labels, if the table has them.
    pub(crate) fn vocabularies(&self) -> Vec<Vocabulary> {
        if self.universal { vec![Vocabulary::meld(), Vocabulary::iemocap()] } else { Vec::new() }
    }

    /// The labels of a row; an emotion outside of its vocabulary stays unknown and is counted in `outside`.
    pub(crate) fn labels(&self, row: usize, outside: &mut Vec<String>) -> Result<Labels, Problem> {
        let sentence = &self.rows[row];
        let score = sentence.score.as_deref().map(|score| labels::parse_score("score", score)).transpose()?;
        let polarity = match &sentence.annotation {
            Some(word) => Some(labels::polarity("annotation", word)?),
            None => score.map(Polarity::from_score),
        };
        let mut known = Labels { polarity, score, ..Labels::default() };
        for (vocabulary, word) in self.vocabularies().iter().zip(&sentence.emotions) {
            let Some(word) = word else { continue };
            match labels::class("emotion", word, vocabulary) {
                Ok(class) => drop(known.emotions.insert(vocabulary.name.clone(), class)),
                Err(_) => outside.push(format!("{} `{word}`", sentence.id())),
            }
        }
        Ok(known)
    }
}

/// Notes the emotions that a reader could not place.
pub(crate) fn note_outside(findings: &mut Findings, outside: Vec<String>) {
    findings.unmatched("emotions outside of their vocabulary, left unknown", outside);
}
