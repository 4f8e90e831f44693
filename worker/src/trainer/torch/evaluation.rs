//! Measuring a model: constrained greedy decoding, all ranks together.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use tch::Device;
use unimse_collectives::Collective;
use unimse_data::corpus::Corpus;
use unimse_data::schema::Sample;
use unimse_model::{LabelDecoder, Labels, Prediction, Task, UniMse, metrics};

use super::super::{Halt, failed, invalid};
use super::feed::arrays;
use super::material::{Material, Words};
use super::tensors;

/// What was predicted for one sample.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    /// Its number in the validation data.
    sample: usize,
    score: Option<f64>,
    classes: Vec<Option<usize>>,
}

/// The metrics over the validation sets: `<dataset>/<metric>`, `<metric>` as the mean over datasets of a task, and `score`.
///
/// Each rank decodes its share and hears what the others decoded, so that all compute the same.
pub(super) fn validate(
    model: &UniMse,
    material: &Material,
    device: Device,
    batch: usize,
    group: &mut dyn Collective,
) -> Result<BTreeMap<String, f64>, Halt> {
    let corpus = &material.valid;
    let words = &material.vocabulary;
    let (rank, world) = (group.rank() as usize, group.world_size() as usize);
    let decoders = decoders(model, words, corpus, device);
    let mut own = Vec::new();
    for (place, (dataset, samples)) in batches(corpus, batch).into_iter().enumerate() {
        if place % world != rank {
            continue;
        }
        // A peer that is lost during a long evaluation must not go unnoticed until its end.
        group.probe()?;
        let Some(decoder) = &decoders[dataset] else { continue };
        let read: Vec<Sample> = read(corpus, samples.clone())?;
        let inputs = tensors::inputs(&arrays(words, &material.options, &read).map_err(invalid)?, device);
        let predictions = decoder.answer(model, &inputs, model.config().unimse.answers).map_err(invalid)?;
        own.extend(samples.zip(predictions).map(|(sample, Prediction { labels, .. })| Answer {
            sample,
            score: labels.score,
            classes: labels.emotions,
        }));
    }
    let all = group.all_gather_bytes(&serde_json::to_vec(&own).map_err(failed)?)?;
    let mut predictions: Vec<Option<Labels>> = vec![None; corpus.len()];
    for bytes in all {
        let answers: Vec<Answer> = serde_json::from_slice(&bytes).map_err(failed)?;
        for Answer { sample, score, classes } in answers {
            if let Some(place) = predictions.get_mut(sample) {
                *place = Some(Labels { polarity: None, score, emotions: classes });
            }
        }
    }
    Ok(summarise(words, corpus, &predictions))
}

/// A decoder for each dataset's task; none for a dataset whose vocabulary the model does not know.
pub(super) fn decoders<'w>(
    model: &UniMse,
    words: &'w Words,
    corpus: &Corpus,
    device: Device,
) -> Vec<Option<LabelDecoder<'w>>> {
    let tasks = corpus.stores().iter().map(|store| words.task_of(store.metadata()));
    tasks.map(|task| task.map(|task| LabelDecoder::new(model, &words.grammar, Some(task), device))).collect()
}

/// The metrics of predictions, one for each sample of the corpus that was asked about.
pub(super) fn summarise(words: &Words, corpus: &Corpus, predictions: &[Option<Labels>]) -> BTreeMap<String, f64> {
    let mut named = BTreeMap::new();
    let mut by_task: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut primary = Vec::new();
    for (dataset, store) in corpus.stores().iter().enumerate() {
        let metadata = store.metadata();
        let Some(task) = words.task_of(metadata) else { continue };
        let (truths, answers) = asked(words, corpus, dataset, predictions);
        let measured = metrics::task_metrics(task, &truths, &answers);
        primary.extend(measured.get(primary_metric(task)).copied().filter(|value| value.is_finite()));
        for (metric, value) in measured {
            named.insert(format!("{}/{metric}", metadata.name), value);
            by_task.entry(metric).or_default().push(value);
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    named.extend(by_task.iter().map(|(metric, values)| (metric.clone(), mean(values))));
    if !primary.is_empty() {
        named.insert("score".to_owned(), mean(&primary));
    }
    named
}

/// What a person wants to know of an evaluation beyond its metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Details {
    /// The 95 % interval of each metric, from resampling.
    pub intervals: BTreeMap<String, [f64; 2]>,
    /// Of each dataset with an emotion vocabulary.
    pub confusion: BTreeMap<String, Confusion>,
}

/// Which classes were taken for which.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Confusion {
    pub classes: Vec<String>,
    /// `[truth][prediction]`, with one more column for words outside the vocabulary.
    pub counts: Vec<Vec<u64>>,
}

/// Intervals and confusions of predictions.
pub(super) fn details(
    words: &Words,
    corpus: &Corpus,
    predictions: &[Option<Labels>],
    resamples: usize,
    seed: u64,
) -> Details {
    let mut details = Details::default();
    for (dataset, store) in corpus.stores().iter().enumerate() {
        let name = &store.metadata().name;
        let Some(task) = words.task_of(store.metadata()) else { continue };
        let (truths, answers) = asked(words, corpus, dataset, predictions);
        let intervals = metrics::bootstrap::intervals(task, &truths, &answers, resamples, seed);
        details
            .intervals
            .extend(intervals.into_iter().map(|(metric, interval)| (format!("{name}/{metric}"), interval)));
        if let Task::Emotion(vocabulary) = task {
            let class = |labels: &Labels| labels.emotions.get(vocabulary).copied().flatten();
            let (truths, answers): (Vec<usize>, Vec<Option<usize>>) =
                truths.iter().zip(&answers).filter_map(|(truth, answer)| Some((class(truth)?, class(answer)))).unzip();
            let classes = words.schema().emotions()[vocabulary].classes.clone();
            let counts = metrics::classification::confusion_matrix(&truths, &answers, classes.len());
            details.confusion.insert(name.clone(), Confusion { classes, counts });
        }
    }
    details
}

/// Truth and answer of those samples of a dataset that were asked about.
fn asked(words: &Words, corpus: &Corpus, dataset: usize, predictions: &[Option<Labels>]) -> (Vec<Labels>, Vec<Labels>) {
    let answered = corpus.range_of(dataset).filter_map(|sample| Some((sample, predictions[sample].clone()?)));
    answered.map(|(sample, answer)| (words.labels(&corpus.labels(sample)), answer)).unzip()
}

/// The metric that stands for a task in `score`.
fn primary_metric(task: Task) -> &'static str {
    match task {
        Task::Sentiment => "acc2_non0",
        Task::Emotion(_) => "wf1",
    }
}

/// Batches of samples, each from one dataset.
pub(super) fn batches(corpus: &Corpus, size: usize) -> Vec<(usize, Range<usize>)> {
    let datasets = 0..corpus.stores().len();
    datasets
        .flat_map(|dataset| {
            let range = corpus.range_of(dataset);
            let end = range.end;
            range.step_by(size.max(1)).map(move |start| (dataset, start..(start + size).min(end)))
        })
        .collect()
}

pub(super) fn read(corpus: &Corpus, samples: Range<usize>) -> Result<Vec<Sample>, Halt> {
    Ok(samples.map(|sample| corpus.sample(sample)).collect::<Result<_, _>>().map_err(invalid)?)
}
