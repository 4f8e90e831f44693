//! Universal labels: a field that a dataset lacks is copied from the most similar sample of a dataset that has it.
//!
//! As in the paper's code (`unimse.md` section 2): samples are compared within one polarity, the nearest by the cosine of sentence
//! vectors gives its label, without a threshold; neutral samples get score 0 and `neutral`. Unlike there, donors come from training
//! splits only unless asked otherwise, because a label copied from a test sample tells a model about that sample, and only
//! training samples get labels: evaluation asks for what a dataset itself says.
//!
//! What is similar is the caller's to say ([`Similarity`]): this module sees text, never vectors.

mod report;

pub use report::{FieldReport, LabelReport, Match};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::schema::{Donor, Labelling, Labels, Metadata, Polarity, Split, Task, Vocabulary};
use crate::store::{NewStore, Store, StoreWriter};

/// The field of the sentiment score in [`Labels::filled`]; every other field is a vocabulary's name.
pub const SCORE: &str = "score";

/// The class that a neutral sample has in a vocabulary that knows it.
const NEUTRAL: &str = "neutral";

/// Says which sentences are similar.
pub trait Similarity {
    /// What it is, for the store's record.
    fn name(&self) -> String;

    /// For each query the place of the most similar donor, the first of equals, and the cosine. There is at least one donor.
    fn nearest(&mut self, queries: &[&str], donors: &[&str]) -> Result<Vec<(usize, f32)>, String>;
}

/// How to label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LabelOptions {
    /// Donors come from all splits, as in the official code, instead of from training splits.
    pub all_splits: bool,
    /// Existing stores may be replaced.
    pub force: bool,
    /// Seeds the choice of the matches that the report shows.
    pub seed: u64,
    /// Matches that the report shows.
    pub shown: usize,
}

/// A field that samples may lack.
#[derive(Clone, Debug)]
enum Field {
    Score,
    Emotion(Vocabulary),
}

impl Field {
    fn name(&self) -> &str {
        match self {
            Self::Score => SCORE,
            Self::Emotion(vocabulary) => &vocabulary.name,
        }
    }

    /// Whether a dataset itself says it, and so may give it.
    fn is_own(&self, metadata: &Metadata) -> bool {
        match self {
            Self::Score => metadata.task == Task::Sentiment,
            Self::Emotion(vocabulary) => metadata.emotion_vocabulary().is_some_and(|own| own.name == vocabulary.name),
        }
    }

    fn is_in(&self, labels: &Labels) -> bool {
        match self {
            Self::Score => labels.score.is_some(),
            Self::Emotion(vocabulary) => labels.emotions.contains_key(&vocabulary.name),
        }
    }

    /// Copies the field from one sample's labels to another's.
    fn copy(&self, from: &Labels, to: &mut Labels) {
        match self {
            Self::Score => to.score = from.score,
            Self::Emotion(vocabulary) => {
                let class = from.emotions.get(&vocabulary.name).cloned();
                to.emotions.extend(class.map(|class| (vocabulary.name.clone(), class)));
            }
        }
    }

    /// Writes what a neutral sample has; false where the vocabulary has no word for it.
    fn neutral(&self, to: &mut Labels) -> bool {
        match self {
            Self::Score => to.score = Some(0.0),
            Self::Emotion(vocabulary) if vocabulary.index_of(NEUTRAL).is_some() => {
                to.emotions.insert(vocabulary.name.clone(), NEUTRAL.to_owned());
            }
            Self::Emotion(_) => return false,
        }
        true
    }
}

/// Labels the training samples of stores with the fields of the others and writes labelled copies into `folder`, under the
/// names of the originals.
pub fn label(
    paths: &[PathBuf],
    folder: &Path,
    similarity: &mut dyn Similarity,
    options: &LabelOptions,
) -> Result<LabelReport, Error> {
    let stores: Vec<Arc<Store>> = paths.iter().map(|path| Store::open(path).map(Arc::new)).collect::<Result<_, _>>()?;
    check_inputs(&stores)?;
    let targets: Vec<PathBuf> = stores.iter().map(|store| folder.join(file_name(store))).collect();
    if let Some(there) = targets.iter().find(|target| !options.force && target.exists()) {
        return Err(Error::Exists { path: there.display().to_string() });
    }
    let fields = fields_of(&stores);
    let mut labels: Vec<Vec<Labels>> =
        stores.iter().map(|store| (0..store.len()).map(|row| store.labels(row)).collect()).collect();
    let mut report = LabelReport::default();
    for field in &fields {
        fill(&stores, field, &mut labels, similarity, options, &mut report)?;
    }
    report.choose(options.seed, options.shown);
    std::fs::create_dir_all(folder).map_err(|cause| Error::io("create", folder, cause))?;
    let labelling = Labelling {
        encoder: similarity.name(),
        donors: stores
            .iter()
            .map(|store| (store.metadata().name.clone(), store.metadata().content_hash.clone()))
            .collect(),
        all_splits: options.all_splits,
    };
    for ((store, target), labels) in stores.iter().zip(&targets).zip(labels) {
        write(store, target, labels, &fields, &labelling, options.force)?;
        report.stores.push(target.clone());
    }
    Ok(report)
}

fn check_inputs(stores: &[Arc<Store>]) -> Result<(), Error> {
    let refuse = |problem: String, hint: &str| Err(Error::Corpus { problem, hint: hint.to_owned() });
    if stores.len() < 2 {
        return refuse(
            "labels are copied between datasets, and one is too few".to_owned(),
            "give a sentiment store and an emotion store, or more",
        );
    }
    for (place, store) in stores.iter().enumerate() {
        let name = &store.metadata().name;
        if stores[..place].iter().any(|other| other.metadata().name == *name || file_name(other) == file_name(store)) {
            return refuse(format!("two of the stores are called `{name}`"), "give each dataset once");
        }
    }
    Ok(())
}

/// The fields that at least one of the stores itself says.
fn fields_of(stores: &[Arc<Store>]) -> Vec<Field> {
    let score = stores.iter().any(|store| store.metadata().task == Task::Sentiment).then_some(Field::Score);
    let mut fields: Vec<Field> = score.into_iter().collect();
    for vocabulary in stores.iter().filter_map(|store| store.metadata().emotion_vocabulary()) {
        if !fields.iter().any(|field| field.name() == vocabulary.name) {
            fields.push(Field::Emotion(vocabulary.clone()));
        }
    }
    fields
}

fn fill(
    stores: &[Arc<Store>],
    field: &Field,
    labels: &mut [Vec<Labels>],
    similarity: &mut dyn Similarity,
    options: &LabelOptions,
    report: &mut LabelReport,
) -> Result<(), Error> {
    for target in 0..stores.len() {
        if field.is_own(stores[target].metadata()) {
            continue;
        }
        let mut by_polarity: BTreeMap<Option<Polarity>, Vec<usize>> = BTreeMap::new();
        for &row in stores[target].rows(Split::Train) {
            if !field.is_in(&labels[target][row]) {
                by_polarity.entry(polarity_of(&labels[target][row])).or_default().push(row);
            }
        }
        for (polarity, rows) in by_polarity {
            if polarity == Some(Polarity::Neutral) && field.neutral(&mut Labels::default()) {
                for row in rows {
                    let own = &mut labels[target][row];
                    field.neutral(own);
                    own.filled.insert(field.name().to_owned(), Donor { from: String::new(), similarity: 1.0 });
                    report.count(&stores[target].metadata().name, field.name(), own, None);
                }
                continue;
            }
            let donors = donors(stores, field, labels, polarity, options.all_splits);
            if donors.is_empty() {
                report.lack(&stores[target].metadata().name, field.name(), rows.len());
                continue;
            }
            let queries: Vec<&str> = rows.iter().map(|&row| stores[target].text(row)).collect();
            let texts: Vec<&str> = donors.iter().map(|&(store, row)| stores[store].text(row)).collect();
            let nearest = similarity
                .nearest(&queries, &texts)
                .map_err(|problem| Error::Corpus { problem, hint: "check the sentence encoder's folder".to_owned() })?;
            for (row, (place, cosine)) in rows.into_iter().zip(nearest) {
                let (store, donor) = donors[place];
                let from = labels[store][donor].clone();
                let own = &mut labels[target][row];
                field.copy(&from, own);
                let name = format!("{}/{}", stores[store].metadata().name, stores[store].id(donor));
                own.filled.insert(field.name().to_owned(), Donor { from: name, similarity: cosine });
                let shown = (stores[target].text(row), stores[store].text(donor));
                report.count(&stores[target].metadata().name, field.name(), own, Some(shown));
            }
        }
    }
    Ok(())
}

/// The samples that may give a field: of datasets that say it themselves, in the same polarity if it is known.
fn donors(
    stores: &[Arc<Store>],
    field: &Field,
    labels: &[Vec<Labels>],
    polarity: Option<Polarity>,
    all_splits: bool,
) -> Vec<(usize, usize)> {
    let splits: &[Split] = if all_splits { &Split::ALL } else { &[Split::Train] };
    let mut donors = Vec::new();
    for (place, store) in stores.iter().enumerate().filter(|(_, store)| field.is_own(store.metadata())) {
        for &row in splits.iter().flat_map(|&split| store.rows(split)) {
            let labels = &labels[place][row];
            if field.is_in(labels) && (polarity.is_none() || polarity_of(labels) == polarity) {
                donors.push((place, row));
            }
        }
    }
    donors
}

/// What a sample's own labels say; a copied score says nothing.
fn polarity_of(labels: &Labels) -> Option<Polarity> {
    let own_score = labels.score.filter(|_| !labels.filled.contains_key(SCORE));
    labels.polarity.or_else(|| own_score.map(Polarity::from_score))
}

fn write(
    store: &Store,
    target: &Path,
    labels: Vec<Labels>,
    fields: &[Field],
    labelling: &Labelling,
    force: bool,
) -> Result<(), Error> {
    let metadata = store.metadata();
    let mut vocabularies = metadata.vocabularies.clone();
    for field in fields {
        if let Field::Emotion(vocabulary) = field
            && metadata.vocabulary(&vocabulary.name).is_none()
        {
            vocabularies.push(vocabulary.clone());
        }
    }
    let mut source = metadata.source.clone();
    source.labelling = Some(labelling.clone());
    let new = NewStore { name: metadata.name.clone(), task: metadata.task, vocabularies, source };
    let mut writer = StoreWriter::create(target, new, force)?;
    for (row, labels) in labels.into_iter().enumerate() {
        let mut sample = store.sample(row)?;
        sample.labels = labels;
        writer.push(&sample)?;
    }
    writer.finish()?;
    Ok(())
}

fn file_name(store: &Store) -> String {
    store.path().file_name().map_or_else(|| "dataset.arrow".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
