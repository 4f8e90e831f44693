//! UniMSE's IEMOCAP: `new-iemocap-label-v4*.csv` with `iemocap_data_0610.pkl`.
//!
//! Columns `vid_cid, label, VAD, text, vid, por, score_label, meld_label`; ids such as `Ses01F_impro01_F000` tell dialogue,
//! speaker and number. The split of an utterance is that of the dict of the pickle that has its id; without a pickle,
//! session 5 is test and all else train. Polarity is made of the gold label, as the published scripts do it.
//!
//! `new-iemocap-label-v4-contexts.csv`, which those scripts read, has a bug: score and emotion of each document's first row
//! are copied to all its rows. It is told by documents that never change their universal labels; such labels are not
//! taken. Give the file without contexts, alone or beside it, and its labels are.

use std::collections::{BTreeMap, HashMap};

use crate::error::{Error, Problem};
use crate::import::{Findings, ImportOptions};
use crate::read::context::{Dialogues, Turn};
use crate::read::sentences::note_outside;
use crate::read::tracks::{Index, Side, Tracks};
use crate::read::{BadFeatures, Content, Dataset, Opened, Reader, Row, labels};
use crate::schema::{ContextWindow, Labels, Sample, Split, Task, Turns, Vocabulary};

mod lines;

use lines::Lines;

/// The columns that tell the table from others.
pub(crate) const COLUMNS: [&str; 4] = ["vid_cid", "label", "text", "score_label"];

/// Reads the table, or both tables, and perhaps the pickle.
pub(crate) struct IemocapReader {
    lines: Lines,
    tracks: Tracks,
    window: ContextWindow,
    bad_features: BadFeatures,
    findings: Findings,
}

impl IemocapReader {
    pub(crate) fn open(opened: Vec<Opened>, options: &ImportOptions) -> Result<Self, Error> {
        let (mut tables, mut pickles, mut findings) = (Vec::new(), Vec::new(), Findings::default());
        for file in opened {
            match file.content {
                Content::Table(table) => tables.push(table),
                Content::Pickle(document) => pickles.push((file.source, document)),
                _ => {
                    return Err(Error::Format {
                        path: file.path(),
                        problem: "it is neither a CSV file nor a pickle".to_owned(),
                        hint: "give new-iemocap-label-v4.csv and iemocap_data_0610.pkl".to_owned(),
                    });
                }
            }
        }
        let window = options.window(Turns::Same, false);
        if window.turns == Turns::All && window.past + window.future > 0 {
            findings.note("the table is sorted by speaker: turns of all speakers are not in the order of speaking");
        }
        Ok(Self {
            lines: Lines::of(&tables, &mut findings)?,
            tracks: Tracks::of(pickles, &mut findings)?,
            window,
            bad_features: options.bad_features,
            findings,
        })
    }
}

impl Reader for IemocapReader {
    fn dataset(&self) -> Dataset {
        Dataset {
            task: Task::Emotion,
            vocabularies: vec![Vocabulary::iemocap(), Vocabulary::meld()],
            context: Some(self.window),
            splits: if self.tracks.is_empty() { vec![Split::Train, Split::Test] } else { Split::ALL.to_vec() },
        }
    }

    fn for_each(&mut self, visit: &mut dyn FnMut(Row) -> Result<(), Error>) -> Result<(), Error> {
        let mut findings = std::mem::take(&mut self.findings);
        let index = |split| {
            Ok::<_, Error>([self.tracks.index(Side::Acoustic, split)?, self.tracks.index(Side::Visual, split)?])
        };
        let mut indexes = [index(Split::Train)?, index(Split::Valid)?, index(Split::Test)?];
        let splits: HashMap<String, Split> =
            splits_of(&indexes).into_iter().map(|(id, split)| (id.to_owned(), split)).collect();
        if self.tracks.is_empty() {
            findings.note("without the pickle there is no valid split: session 5 is test, all else train");
        }
        let lines = &self.lines.all;
        let dialogues = Dialogues::of(lines.iter().map(|line| line.place(self.window.turns)).collect());
        let turns: Vec<Turn> = lines.iter().map(lines::Line::turn).collect();
        let mut missing: [[Vec<String>; 2]; 3] = Default::default();
        let (mut outside, mut homeless) = (Vec::new(), Vec::new());
        for (at, line) in lines.iter().enumerate() {
            let split = if self.tracks.is_empty() {
                if line.id.starts_with("Ses05") { Split::Test } else { Split::Train }
            } else if let Some(split) = splits.get(&line.id) {
                *split
            } else {
                homeless.push(line.id.clone());
                continue;
            };
            let mut bad_values = 0;
            let mut features = |side: Side| {
                let track = &mut indexes[split as usize][side as usize];
                let found = track.features(&line.id, None, side, self.bad_features, &mut bad_values)?;
                if found.is_none() {
                    missing[split as usize][side as usize].push(line.id.clone());
                }
                Ok::<_, Problem>(found)
            };
            let sample = features(Side::Acoustic).and_then(|acoustic| {
                let visual = features(Side::Visual)?;
                let (dialogue, speaker, turn) = line.parts();
                Ok(Sample {
                    id: line.id.clone(),
                    split,
                    text: line.text.clone(),
                    context: Some(dialogues.context(at, self.window, |index| &turns[index])),
                    speaker,
                    dialogue,
                    turn,
                    labels: labels_of(line, &mut outside)?,
                    acoustic,
                    visual,
                })
            });
            let place = format!("line {}, id `{}`", line.number, line.id);
            visit(Row { file: self.lines.file.clone(), place, split, sample, bad_values })?;
        }
        findings.unmatched(
            format!("rows of {} whose id is in no split of the pickle, left out", self.lines.file),
            homeless,
        );
        for (split, missing) in Split::ALL.into_iter().zip(missing) {
            for (side, missing) in Side::ALL.into_iter().zip(missing) {
                indexes[split as usize][side as usize].report(side, split, missing, &mut findings);
            }
        }
        note_outside(&mut findings, outside);
        self.findings = findings;
        Ok(())
    }

    fn findings(&mut self) -> Findings {
        std::mem::take(&mut self.findings)
    }
}

/// The split of each id, by the pickle or by its session.
fn splits_of<'i>(indexes: &'i [[Index<'_>; 2]; 3]) -> HashMap<&'i str, Split> {
    let mut splits = HashMap::new();
    for (split, pair) in Split::ALL.into_iter().zip(indexes) {
        for key in pair.iter().flat_map(Index::keys) {
            splits.entry(key.as_str()).or_insert(split);
        }
    }
    splits
}

fn labels_of(line: &lines::Line, outside: &mut Vec<String>) -> Result<Labels, Problem> {
    let (iemocap, meld) = (Vocabulary::iemocap(), Vocabulary::meld());
    let class = labels::class("label", &line.label, &iemocap)?;
    let polarity = labels::iemocap_polarity(&class);
    let mut emotions = BTreeMap::from([(iemocap.name, class)]);
    let mut score = None;
    if let Some((text, word)) = &line.universal {
        score = Some(labels::parse_score("score_label", text)?);
        match labels::class("meld_label", word, &meld) {
            Ok(class) => drop(emotions.insert(meld.name, class)),
            Err(_) => outside.push(format!("{} `{word}`", line.id)),
        }
    }
    Ok(Labels { polarity: Some(polarity), score, emotions, ..Labels::default() })
}
