//! The rows of UniMSE's IEMOCAP tables, with the labels of the right one.

use std::collections::HashMap;

use super::COLUMNS;
use crate::error::Error;
use crate::import::Findings;
use crate::read::context::{MARK, Turn, utterance_of};
use crate::read::ids::iemocap_parts;
use crate::read::table::{Record, Table};
use crate::schema::Turns;

const HINT: &str = "give new-iemocap-label-v4.csv of UniMSE";
/// So many documents of several rows without any change tell the bug; fewer may be chance.
const ENOUGH: usize = 3;

/// The rows of the table.
pub(super) struct Lines {
    pub(super) file: String,
    pub(super) all: Vec<Line>,
}

/// One utterance.
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) id: String,
    pub(super) label: String,
    pub(super) text: String,
    /// Score and MELD emotion from other datasets.
    pub(super) universal: Option<(String, String)>,
}

impl Line {
    fn of(record: &Record, columns: [usize; 4], meld: Option<usize>) -> Self {
        let [id, label, text, score] = columns.map(|column| record.get(column));
        let universal = Some(score).filter(|score| !score.is_empty()).zip(record.find(meld));
        Self {
            number: record.line,
            id: id.to_owned(),
            label: label.to_owned(),
            text: utterance_of(text, None).to_owned(),
            universal: universal.map(|(score, word)| (score.to_owned(), word.to_owned())),
        }
    }

    pub(super) fn parts(&self) -> (Option<String>, Option<String>, Option<i32>) {
        match iemocap_parts(&self.id) {
            Some((dialogue, speaker, number)) => (Some(dialogue.to_owned()), Some(speaker.to_owned()), Some(number)),
            None => (None, None, None),
        }
    }

    pub(super) fn turn(&self) -> Turn {
        Turn { speaker: self.parts().1, text: self.text.clone() }
    }

    /// Numbers count a speaker's turns; only the order of rows is common to all speakers.
    pub(super) fn place(&self, turns: Turns) -> Option<(String, i64)> {
        let (dialogue, speaker, number) = iemocap_parts(&self.id)?;
        match turns {
            Turns::Same => Some((format!("{dialogue}_{speaker}"), i64::from(number))),
            Turns::All => Some((dialogue.to_owned(), self.number as i64)),
        }
    }
}

impl Lines {
    pub(super) fn of(tables: &[Table], findings: &mut Findings) -> Result<Self, Error> {
        let with_context =
            |table: &&Table| table.rows.iter().any(|row| row.get(table.find("text").unwrap_or(0)).contains(MARK));
        let (contexts, plain): (Vec<&Table>, Vec<&Table>) = tables.iter().partition(with_context);
        let Some(main) = plain.first().or_else(|| contexts.first()) else {
            return Err(Error::Format {
                path: "the files".to_owned(),
                problem: "none of them is a table".to_owned(),
                hint: HINT.to_owned(),
            });
        };
        let mut lines = read(main, findings)?;
        if let (Some(_), Some(contexts)) = (plain.first(), contexts.first()) {
            let copied = different(&lines, &read(contexts, &mut Findings::default())?);
            if copied > 0 {
                findings.note(format!(
                    "{}: {copied} rows have labels copied from other rows of their document; those of {} are taken",
                    contexts.source.name(),
                    main.source.name()
                ));
            }
        } else if never_changes(&lines) {
            for line in &mut lines {
                line.universal = None;
            }
            findings.note(format!(
                "{}: score_label and meld_label never change within a document, so they were copied from its first row; \
                 they are not taken. Give new-iemocap-label-v4.csv beside it",
                main.source.name()
            ));
        }
        Ok(Self { file: main.source.name(), all: lines })
    }
}

fn read(table: &Table, findings: &mut Findings) -> Result<Vec<Line>, Error> {
    let mut columns = [0; COLUMNS.len()];
    for (column, name) in columns.iter_mut().zip(COLUMNS) {
        *column = table.column(name, HINT)?;
    }
    let meld = table.find("meld_label");
    let mut lines: Vec<Line> = table.rows.iter().map(|record| Line::of(record, columns, meld)).collect();
    let rows = lines.len();
    lines.retain(|line| !line.id.starts_with("-1"));
    if lines.len() < rows {
        let marks = rows - lines.len();
        findings
            .note(format!("{}: {marks} rows of ids -1, which mark the end, are no utterances", table.source.name()));
    }
    Ok(lines)
}

/// The rows whose universal labels are not the same in both tables.
fn different(lines: &[Line], others: &[Line]) -> usize {
    let others: HashMap<&str, &Line> = others.iter().map(|line| (line.id.as_str(), line)).collect();
    let differs = |line: &&Line| others.get(line.id.as_str()).is_some_and(|other| other.universal != line.universal);
    lines.iter().filter(differs).count()
}

/// Whether no document of several rows has more than one pair of universal labels.
fn never_changes(lines: &[Line]) -> bool {
    let mut documents: HashMap<String, Vec<&Option<(String, String)>>> = HashMap::new();
    for line in lines {
        if let Some((dialogue, speaker, _)) = iemocap_parts(&line.id) {
            documents.entry(format!("{dialogue}_{speaker}")).or_default().push(&line.universal);
        }
    }
    let several: Vec<_> = documents.values().filter(|rows| rows.len() > 1).collect();
    several.len() >= ENOUGH && several.iter().all(|rows| rows.iter().all(|row| *row == rows[0]))
}
