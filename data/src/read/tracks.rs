//! Features that come beside the text: dicts from an id to an array, one dict a split.
//!
//! The official release of MELD has one pickle a modality, a list `[train, valid, test]` of dicts from `<dia>_<utt>` to a
//! vector, or from a dialogue to one row an utterance. UniMSE's `meld_data_0610.pkl` and `iemocap_data_0610.pkl` are
//! `{'audio': [train, valid, test], 'video': [...]}` of dicts from an id to `(T, D)`.

use std::collections::{BTreeMap, HashSet};

use crate::error::{Error, Problem};
use crate::import::Findings;
use crate::read::features::{BadFeatures, Padding, Raw, clean};
use crate::read::modality::features_of;
use crate::read::pickle::{Document, Value};
use crate::read::splits::split_of;
use crate::read::{Source, ids};
use crate::schema::{Features, Split};

/// A modality that is not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Acoustic,
    Visual,
}

impl Side {
    pub(crate) const ALL: [Self; 2] = [Self::Acoustic, Self::Visual];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Acoustic => "acoustic",
            Self::Visual => "visual",
        }
    }

    /// What a name tells: of a file, of a folder, of a sequence.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
        if has(&["audio", "acoustic", "covarep", "opensmile", "wav2vec", "mfcc"]) {
            return Some(Self::Acoustic);
        }
        has(&["visual", "video", "vision", "facet", "openface", "resnet"]).then_some(Self::Visual)
    }
}

/// The feature pickles of a release.
#[derive(Debug, Default)]
pub(crate) struct Tracks {
    files: Vec<(Source, Document)>,
}

impl Tracks {
    /// Takes the pickles, those of text vectors excepted, of which it makes a note.
    pub(crate) fn of(files: Vec<(Source, Document)>, findings: &mut Findings) -> Result<Self, Error> {
        let mut kept = Vec::new();
        let mut known: BTreeMap<Side, String> = BTreeMap::new();
        for (source, document) in files {
            let name = source.name();
            let sides = match both(document.root()) {
                Some(_) => Side::ALL.to_vec(),
                None => match Side::of_name(&name) {
                    Some(side) => vec![side],
                    None if name.to_ascii_lowercase().contains("text") => {
                        findings.note(format!("{name} has vectors of text, which are not used: the words are"));
                        continue;
                    }
                    None => {
                        let hint = "put `audio` or `visual` into the file's name";
                        return Err(format(&source, "its name does not tell which modality it has", hint));
                    }
                },
            };
            for side in sides {
                if let Some(earlier) = known.insert(side, name.clone()) {
                    let problem = format!("{} features are in {earlier} already", side.as_str());
                    return Err(format(&source, &problem, "give one file a modality"));
                }
            }
            kept.push((source, document));
        }
        Ok(Self { files: kept })
    }

    /// The features of a side in a split.
    pub(crate) fn index(&self, side: Side, split: Split) -> Result<Index<'_>, Error> {
        for (source, document) in &self.files {
            let root = document.root();
            let lists = match both(root) {
                Some(lists) => Some(lists[side as usize]),
                None => Some(root).filter(|_| Side::of_name(&source.name()) == Some(side)),
            };
            let Some(list) = lists else { continue };
            let dict = match list.items() {
                Some(mut items) => items.nth(split as usize),
                // One dict alone is one split's.
                None => Some(list).filter(|_| split_of(source).is_ok_and(|its| its == split)),
            };
            let Some(dict) = dict else { continue };
            return Index::of(source.name(), dict).ok_or_else(|| {
                format(source, &format!("split `{split}` is {}, not a dict", dict.kind()), "the layout is not known")
            });
        }
        Ok(Index::default())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

fn format(source: &Source, problem: &str, hint: &str) -> Error {
    Error::Format { path: source.path.display().to_string(), problem: problem.to_owned(), hint: hint.to_owned() }
}

/// The two lists of UniMSE's layout.
pub(crate) fn both(root: Value<'_>) -> Option<[Value<'_>; 2]> {
    let audio = root.get("audio")?;
    let video = root.get("video").or_else(|| root.get("vision"))?;
    let is_list_of_dicts = |value: Value<'_>| value.item(0).is_some_and(|item| item.entries().is_some());
    (is_list_of_dicts(audio) && is_list_of_dicts(video)).then_some([audio, video])
}

/// Whether a pickle is of MELD's layout: dicts by utterance or dialogue, one a split.
pub(crate) fn is_track(root: Value<'_>) -> bool {
    let is_dict = |value: Value<'_>| {
        let first = value.entries().and_then(|mut entries| entries.next());
        first.is_some_and(|(key, value)| {
            key.label().is_ok_and(|key| is_key(&key)) && value.numbers().is_ok_and(|n| n.is_some())
        })
    };
    match root.items() {
        Some(mut items) => items.len() == 3 && items.any(is_dict),
        None => is_dict(root),
    }
}

fn is_key(key: &str) -> bool {
    ids::meld_numbers(key).is_some() || key.parse::<u32>().is_ok()
}

/// The features of one modality in one split, by id.
#[derive(Debug, Default)]
pub(crate) struct Index<'d> {
    file: Option<String>,
    entries: BTreeMap<String, Value<'d>>,
    used: HashSet<String>,
}

impl<'d> Index<'d> {
    fn of(file: String, dict: Value<'d>) -> Option<Self> {
        let entries = dict.entries()?.filter_map(|(key, value)| Some((spell(key.label().ok()?), value))).collect();
        Some(Self { file: Some(file), entries, used: HashSet::new() })
    }

    /// The features of an utterance; `turn` is its dialogue and its place there, for files with one entry a dialogue.
    pub(crate) fn features(
        &mut self,
        id: &str,
        turn: Option<(&str, usize)>,
        side: Side,
        policy: BadFeatures,
        bad: &mut u64,
    ) -> Result<Option<Features>, Problem> {
        let key = spell(id.to_owned());
        if let Some(value) = self.entries.get(&key) {
            let value = *value;
            self.used.insert(key);
            return features_of(side.as_str(), Some(value), Padding::None, policy, bad);
        }
        let Some((dialogue, ordinal)) = turn else { return Ok(None) };
        let Some(value) = self.entries.get(dialogue) else { return Ok(None) };
        let Some(numbers) = value.numbers()?.filter(|numbers| numbers.shape().len() == 2) else { return Ok(None) };
        if ordinal as u64 >= numbers.shape()[0] {
            return Ok(None);
        }
        self.used.insert(dialogue.to_owned());
        let raw =
            Raw { dim: numbers.shape()[1] as usize, data: numbers.row(ordinal)?, length: None, padding: Padding::None };
        let (features, count) = clean(side.as_str(), raw, policy)?;
        *bad += count;
        Ok(features)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &String> {
        self.entries.keys()
    }

    /// Lists the ids that no row asked for, and those of rows that found nothing.
    pub(crate) fn report(&self, side: Side, split: Split, missing: Vec<String>, findings: &mut Findings) {
        let Some(file) = &self.file else { return };
        let side = side.as_str();
        findings.unmatched(format!("{split} rows without {side} features in {file}, stored without"), missing);
        let unused = self.entries.keys().filter(|key| !self.used.contains(*key)).cloned();
        findings.unmatched(format!("{side} features of {split} in {file} without a row, left out"), unused);
    }
}

/// One spelling for the ids of MELD; all others stay as they are.
fn spell(id: String) -> String {
    ids::meld_numbers(&id).map_or(id, |(dialogue, utterance)| format!("{dialogue}_{utterance}"))
}
