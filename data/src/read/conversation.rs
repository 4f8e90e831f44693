//! The tuples of DialogueRNN (declare-lab/conv-emotion) and COGMEN (Exploration-Lab/COGMEN) for IEMOCAP, MELD and MOSEI.
//!
//! `(ids, speakers, labels, text vectors, audio, [visual,] sentences, train, [dev,] test[, other labels])`: dicts from a
//! dialogue to one entry an utterance, then the dialogues of each split. Where there is no dev list, the first tenth of
//! train is valid, as COGMEN has it. Labels are class numbers: of IEMOCAP happy 0, sad 1, neutral 2, angry 3, excited 4,
//! frustrated 5, of MELD those of its official release; scores for MOSEI. Speakers are `M` and `F`, or one-hot for MELD,
//! so that only the number of a speaker is known. Audio and visual are one vector an utterance as a rule.

use std::collections::{BTreeMap, HashMap};

use crate::error::{Error, Problem};
use crate::import::{Findings, ImportOptions};
use crate::read::context::{Dialogues, Turn};
use crate::read::features::{BadFeatures, Padding};
use crate::read::modality::{features_of, named};
use crate::read::pickle::{Document, Value};
use crate::read::{Dataset, Opened, Reader, Row, Source, labels, one_pickle};
use crate::schema::{ContextWindow, Features, Labels, Polarity, Sample, Split, Task, Turns, Vocabulary};

mod parts;

pub(crate) use parts::is_tuple;
use parts::{Kind, Parts};

/// Reads one pickle, dialogue after dialogue.
pub(crate) struct ConversationReader {
    document: Document,
    source: Source,
    kind: Kind,
    window: ContextWindow,
    bad_features: BadFeatures,
    findings: Findings,
}

impl ConversationReader {
    pub(crate) fn open(opened: Vec<Opened>, options: &ImportOptions) -> Result<Self, Error> {
        let (source, document) = one_pickle(opened)?;
        let kind = parts(&document, &source)?.kind;
        let window = match kind {
            Kind::Iemocap => options.window(Turns::Same, false),
            // Names would be numbers here.
            Kind::Meld | Kind::Scores => options.window(Turns::All, false),
        };
        let findings = Findings::default();
        Ok(Self { document, source, kind, window, bad_features: options.bad_features, findings })
    }

    fn vocabulary(&self) -> Option<Vocabulary> {
        match self.kind {
            Kind::Iemocap => Some(Vocabulary::iemocap()),
            Kind::Meld => Some(Vocabulary::meld()),
            Kind::Scores => None,
        }
    }

    fn labels(&self, number: f64) -> Result<Labels, Problem> {
        let Some(vocabulary) = self.vocabulary() else {
            let score = labels::score("label", number)?;
            return Ok(Labels { polarity: Some(Polarity::from_score(score)), score: Some(score), ..Labels::default() });
        };
        let is_index = number >= 0.0 && number.fract() == 0.0;
        let class = vocabulary.classes.get(number as usize).filter(|_| is_index).cloned();
        let class = class.ok_or_else(|| {
            Problem::new(format!("the label is {number}, not one of the {} classes", vocabulary.classes.len()))
        })?;
        let polarity = (self.kind == Kind::Iemocap).then(|| labels::iemocap_polarity(&class));
        Ok(Labels { polarity, emotions: BTreeMap::from([(vocabulary.name, class)]), ..Labels::default() })
    }
}

fn parts<'d>(document: &'d Document, source: &Source) -> Result<Parts<'d>, Error> {
    Parts::of(document.root()).map_err(|problem| Error::Format {
        path: source.path.display().to_string(),
        problem: problem.text,
        hint: "the file does not have the layout of DialogueRNN".to_owned(),
    })
}

/// The columns of one dialogue.
struct Dialogue<'d> {
    name: &'d str,
    ids: Vec<String>,
    turns: Vec<Turn>,
    /// The class number or the score of each turn.
    labels: Vec<Result<f64, Problem>>,
    audio: Option<Value<'d>>,
    visual: Option<Value<'d>>,
}

impl<'d> Dialogue<'d> {
    fn of(parts: &Parts<'d>, name: &'d str) -> Result<Self, Problem> {
        let entry = |what: &str, dict: &HashMap<String, Value<'d>>| {
            dict.get(name).copied().ok_or_else(|| Problem::new(format!("{what} does not have dialogue `{name}`")))
        };
        let sentences = parts::list(entry("the dict of sentences", &parts.sentences)?, "sentences")?;
        let speakers = parts::list(entry("the dict of speakers", &parts.speakers)?, "speakers")?;
        let ids = parts::names(entry("the dict of ids", &parts.ids)?)?;
        let labels = parts::numbers(entry("the dict of labels", &parts.labels)?)?;
        for (what, count) in [("speakers", speakers.len()), ("ids", ids.len()), ("labels", labels.len())] {
            if count != sentences.len() {
                return Err(Problem::new(format!("{count} {what}, {} sentences", sentences.len())));
            }
        }
        let turns = sentences.into_iter().zip(speakers).map(|(sentence, speaker)| {
            Ok(Turn { speaker: Some(parts::speaker(speaker)?), text: parts::sentence(sentence)? })
        });
        let side = |dict: &Option<HashMap<String, Value<'d>>>| dict.as_ref().and_then(|dict| dict.get(name).copied());
        Ok(Self {
            name,
            ids,
            turns: turns.collect::<Result<_, Problem>>()?,
            labels,
            audio: side(&parts.audio),
            visual: side(&parts.visual),
        })
    }

    fn id(&self, turn: usize) -> String {
        let id = &self.ids[turn];
        let is_whole = id.len() > self.name.len() && id.starts_with(self.name);
        if is_whole { id.clone() } else { format!("{}_{id}", self.name) }
    }
}

/// The features of one utterance: a row of an array `(N, D)`, or an item of a list.
fn row_of(
    name: &str,
    value: Option<Value<'_>>,
    row: usize,
    policy: BadFeatures,
    bad: &mut u64,
) -> Result<Option<Features>, Problem> {
    let Some(value) = value else { return Ok(None) };
    let Some(numbers) = value.numbers()? else {
        return features_of(name, value.item(row), Padding::Ends, policy, bad);
    };
    let dim = numbers.shape().last().copied().unwrap_or(0) as usize;
    if row as u64 >= numbers.shape().first().copied().unwrap_or(0) {
        return Err(Problem::new(format!("{name} has {:?} rows, there is no row {row}", numbers.shape().first())));
    }
    let raw = crate::read::features::Raw { dim, data: numbers.row(row)?, length: None, padding: Padding::Ends };
    let (features, count) = crate::read::features::clean(name, raw, policy)?;
    *bad += count;
    Ok(features)
}

impl Reader for ConversationReader {
    fn dataset(&self) -> Dataset {
        Dataset {
            task: if self.kind == Kind::Scores { Task::Sentiment } else { Task::Emotion },
            vocabularies: self.vocabulary().into_iter().collect(),
            context: Some(self.window),
            splits: Split::ALL.to_vec(),
        }
    }

    fn for_each(&mut self, visit: &mut dyn FnMut(Row) -> Result<(), Error>) -> Result<(), Error> {
        let mut findings = Findings::default();
        let parts = parts(&self.document, &self.source)?;
        if parts.dev_is_cut {
            findings.note("the file has no valid split: the first tenth of the training dialogues is it, as in COGMEN");
        }
        for (split, names) in Split::ALL.into_iter().zip(&parts.splits) {
            for name in names {
                let dialogue = match Dialogue::of(&parts, name) {
                    Ok(dialogue) => dialogue,
                    Err(problem) => {
                        let place = format!("{split}, dialogue `{name}`");
                        visit(Row { file: self.source.name(), place, split, sample: Err(problem), bad_values: 0 })?;
                        continue;
                    }
                };
                let count = dialogue.turns.len();
                let dialogues = Dialogues::of((0..count).map(|turn| Some((String::new(), turn as i64))).collect());
                for turn in 0..count {
                    let mut bad_values = 0;
                    let policy = self.bad_features;
                    let mut sample = || -> Result<Sample, Problem> {
                        let label = dialogue.labels[turn].clone().and_then(|number| self.labels(number));
                        Ok(Sample {
                            id: dialogue.id(turn),
                            split,
                            text: dialogue.turns[turn].text.clone(),
                            context: Some(dialogues.context(turn, self.window, |turn| &dialogue.turns[turn])),
                            speaker: dialogue.turns[turn].speaker.clone(),
                            dialogue: Some(dialogue.name.to_owned()),
                            turn: i32::try_from(turn).ok(),
                            labels: label.map_err(|problem| named("labels", problem))?,
                            acoustic: row_of("audio", dialogue.audio, turn, policy, &mut bad_values)?,
                            visual: row_of("visual", dialogue.visual, turn, policy, &mut bad_values)?,
                        })
                    };
                    let sample = sample();
                    let place = format!("{split}, dialogue `{name}`, utterance {turn}");
                    visit(Row { file: self.source.name(), place, split, sample, bad_values })?;
                }
            }
        }
        findings.unmatched("dialogues that are in no split, left out", parts.homeless());
        self.findings = findings;
        Ok(())
    }

    fn findings(&mut self) -> Findings {
        std::mem::take(&mut self.findings)
    }
}
