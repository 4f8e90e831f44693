//! The CSV files of the official MELD release (declare-lab/MELD): one a split, columns found by name.
//!
//! The context of an utterance is made of the turns around it, in the order of `Utterance_ID`, whose numbers have gaps.
//! Ids are the names of the official clips: `dia0_utt3`. Features may come beside the tables ([`tracks`](super::tracks)),
//! the official ones or UniMSE's, matched by id; an utterance without is stored without.
//!
//! UniMSE's `new_*_sent_emo-v4.csv` have the same columns and universal labels, `score_label` and `iemocap_label`. Its
//! `*-contexts*.csv` have the context in the utterance, out of which the utterance is taken again: the context is made
//! here. Their last row, of ids -1, only marks the end.

use std::collections::BTreeMap;

use crate::error::{Error, Problem};
use crate::import::{Findings, ImportOptions};
use crate::read::context::{Dialogues, Turn, utterance_of};
use crate::read::sentences::note_outside;
use crate::read::splits::one_a_split;
use crate::read::table::{Record, Table};
use crate::read::tracks::{Side, Tracks};
use crate::read::{BadFeatures, Content, Dataset, Opened, Reader, Row, labels};
use crate::schema::{ContextWindow, Labels, Sample, Split, Task, Turns, Vocabulary};

const HINT: &str = "give the files *_sent_emo.csv of the official release";
/// UniMSE's universal labels for MELD.
const UNIVERSAL: [&str; 2] = ["score_label", "iemocap_label"];
const COLUMNS: [&str; 6] = ["Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID"];

/// Reads one or more files, each of one split.
pub(crate) struct MeldReader {
    tables: Vec<(Split, Table)>,
    tracks: Tracks,
    window: ContextWindow,
    vocabularies: [Vocabulary; 2],
    universal: bool,
    bad_features: BadFeatures,
    findings: Findings,
}

impl MeldReader {
    pub(crate) fn open(opened: Vec<Opened>, options: &ImportOptions) -> Result<Self, Error> {
        let (mut tables, mut pickles, mut findings) = (Vec::new(), Vec::new(), Findings::default());
        for file in opened {
            match file.content {
                Content::Table(table) => tables.push(table),
                Content::Pickle(document) => pickles.push((file.source, document)),
                _ => return Err(not_meld(file.path(), "it is neither a CSV file nor a pickle")),
            }
        }
        if let (true, Some((source, _))) = (tables.is_empty(), pickles.first()) {
            return Err(not_meld(
                source.path.display().to_string(),
                "it has features, and no CSV file with the words is given",
            ));
        }
        let tables = one_a_split(tables, |table| &table.source)?;
        Ok(Self {
            universal: tables.iter().any(|(_, table)| table.has(&UNIVERSAL)),
            tables,
            tracks: Tracks::of(pickles, &mut findings)?,
            window: options.window(Turns::All, true),
            vocabularies: [Vocabulary::meld(), Vocabulary::iemocap()],
            bad_features: options.bad_features,
            findings,
        })
    }

    fn read_split(
        &self,
        split: Split,
        table: &Table,
        findings: &mut Findings,
        visit: &mut dyn FnMut(Row) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (lines, marks) = lines(table)?;
        if marks > 0 {
            findings.note(format!(
                "{}: {marks} rows of ids -1, which mark the end, are no utterances",
                table.source.name()
            ));
        }
        let dialogues = Dialogues::of(lines.iter().map(Line::place).collect());
        let mut indexes = [self.tracks.index(Side::Acoustic, split)?, self.tracks.index(Side::Visual, split)?];
        let mut missing = [Vec::new(), Vec::new()];
        let mut outside = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            let place = format!("line {}, {}", line.number, line.name());
            let mut bad_values = 0;
            let sample = line.numbers().and_then(|(dialogue, utterance)| {
                let id = format!("dia{dialogue}_utt{utterance}");
                let number = dialogue.to_string();
                let turn = dialogues.ordinal(index).map(|ordinal| (number.as_str(), ordinal));
                let mut features = |side: Side| {
                    let track = &mut indexes[side as usize];
                    let found = track.features(&id, turn, side, self.bad_features, &mut bad_values)?;
                    if found.is_none() {
                        missing[side as usize].push(id.clone());
                    }
                    Ok::<_, Problem>(found)
                };
                let (acoustic, visual) = (features(Side::Acoustic)?, features(Side::Visual)?);
                Ok(Sample {
                    split,
                    text: line.turn.text.clone(),
                    context: Some(dialogues.context(index, self.window, |index| &lines[index].turn)),
                    speaker: line.turn.speaker.clone(),
                    turn: Some(utterance),
                    labels: line.labels(&self.vocabularies, &mut outside)?,
                    dialogue: Some(number),
                    acoustic,
                    visual,
                    id,
                })
            });
            visit(Row { file: table.source.name(), place, split, sample, bad_values })?;
        }
        for (side, missing) in Side::ALL.into_iter().zip(missing) {
            indexes[side as usize].report(side, split, missing, findings);
        }
        note_outside(findings, outside);
        Ok(())
    }
}

fn not_meld(path: String, problem: &str) -> Error {
    Error::Format { path, problem: problem.to_owned(), hint: HINT.to_owned() }
}

impl Reader for MeldReader {
    fn dataset(&self) -> Dataset {
        Dataset {
            task: Task::Emotion,
            vocabularies: self.vocabularies[..if self.universal { 2 } else { 1 }].to_vec(),
            context: Some(self.window),
            splits: self.tables.iter().map(|(split, _)| *split).collect(),
        }
    }

    fn for_each(&mut self, visit: &mut dyn FnMut(Row) -> Result<(), Error>) -> Result<(), Error> {
        let mut findings = std::mem::take(&mut self.findings);
        for (split, table) in &self.tables {
            self.read_split(*split, table, &mut findings, visit)?;
        }
        self.findings = findings;
        Ok(())
    }

    fn findings(&mut self) -> Findings {
        std::mem::take(&mut self.findings)
    }
}

/// One utterance as it is in the file.
struct Line {
    number: u64,
    turn: Turn,
    emotion: String,
    sentiment: String,
    dialogue: String,
    utterance: String,
    /// UniMSE's labels from other datasets.
    score: Option<String>,
    iemocap: Option<String>,
}

/// The utterances of a table, and how many rows only mark its end.
fn lines(table: &Table) -> Result<(Vec<Line>, usize), Error> {
    let mut columns = [0; COLUMNS.len()];
    for (column, name) in columns.iter_mut().zip(COLUMNS) {
        *column = table.column(name, HINT)?;
    }
    let [score, iemocap] = UNIVERSAL.map(|name| table.find(name));
    let line = |record: &Record| {
        let field = |column: usize| record.get(columns[column]).to_owned();
        let speaker = Some(field(1)).filter(|name| !name.is_empty());
        let text = utterance_of(record.get(columns[0]), speaker.as_deref()).to_owned();
        Line {
            number: record.line,
            turn: Turn { speaker, text },
            emotion: field(2),
            sentiment: field(3),
            dialogue: field(4),
            utterance: field(5),
            score: record.find(score).map(str::to_owned),
            iemocap: record.find(iemocap).map(str::to_owned),
        }
    };
    let is_mark = |record: &&Record| record.get(columns[4]) == "-1";
    let marks = table.rows.iter().filter(is_mark).count();
    Ok((table.rows.iter().filter(|record| !is_mark(record)).map(line).collect(), marks))
}

impl Line {
    fn name(&self) -> String {
        format!("dialogue {} utterance {}", self.dialogue, self.utterance)
    }

    fn labels(&self, [meld, iemocap]: &[Vocabulary; 2], outside: &mut Vec<String>) -> Result<Labels, Problem> {
        let class = labels::class("Emotion", &self.emotion, meld)?;
        let polarity = labels::polarity("Sentiment", &self.sentiment)?;
        let mut emotions = BTreeMap::from([(meld.name.clone(), class)]);
        if let Some(word) = &self.iemocap {
            match labels::class("iemocap_label", word, iemocap) {
                Ok(class) => drop(emotions.insert(iemocap.name.clone(), class)),
                Err(_) => outside.push(format!("{} `{word}`", self.name())),
            }
        }
        let score = self.score.as_deref().map(|score| labels::parse_score("score_label", score)).transpose()?;
        Ok(Labels { polarity: Some(polarity), score, emotions, ..Labels::default() })
    }

    fn numbers(&self) -> Result<(u32, i32), Problem> {
        let dialogue: Option<u32> = self.dialogue.parse().ok();
        let utterance: Option<i32> = self.utterance.parse().ok().filter(|number| *number >= 0);
        dialogue.zip(utterance).ok_or_else(|| {
            Problem::new(format!("Dialogue_ID `{}`, Utterance_ID `{}`: not numbers", self.dialogue, self.utterance))
        })
    }

    fn place(&self) -> Option<(String, i64)> {
        let (dialogue, utterance) = self.numbers().ok()?;
        Some((dialogue.to_string(), i64::from(utterance)))
    }
}
