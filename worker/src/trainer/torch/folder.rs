//! A pulled or exported model: config.json, model.safetensors, tokenizer.json, labels.json.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tch::{Device, nn};
use unimse_core::job::ExitCause;
use unimse_data::batch::{BatchOptions, FeatureLayout};
use unimse_data::corpus::Corpus;
use unimse_data::schema::Split;
use unimse_model::config::AnswerWay;
use unimse_model::{Labels, Prediction, UniMse, weights};

use super::super::{Halt, invalid};
use super::description::LONGEST_INPUT;
use super::evaluation::{Details, batches, decoders, details, read, summarise};
use super::feed::arrays;
use super::material::Words;
use super::tensors;

/// Resamples for confidence intervals, and their seed: the same predictions always have the same intervals.
const RESAMPLES: usize = 1000;
const RESAMPLING_SEED: u64 = 0;

/// Where an exported folder has what is not T5's own.
pub(super) const ADDED: &str = "unimse.safetensors";

/// A model ready to be asked.
#[derive(Debug)]
pub struct ModelFolder {
    pub(super) model: UniMse,
    pub(super) words: Words,
    pub(super) options: BatchOptions,
    pub(super) device: Device,
    answers: Option<AnswerWay>,
}

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluated {
    /// Samples by dataset.
    pub samples: BTreeMap<String, usize>,
    /// `<dataset>/<metric>`, `<metric>` as the mean over datasets of a task, and `score`.
    pub metrics: BTreeMap<String, f64>,
    #[serde(flatten)]
    pub details: Details,
}

/// One sample of an evaluation, for those who check it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SampleLine {
    /// As in the source file.
    pub id: String,
    pub dataset: String,
    pub input_ids: Vec<i64>,
    pub target_ids: Vec<i64>,
    pub target: String,
    pub prediction: String,
    /// Sum over the target's tokens, natural logarithm, dropout off.
    pub nll: f64,
}

impl ModelFolder {
    /// Loads a model; says which file is missing or does not fit.
    pub fn open(folder: &Path, device: Device) -> Result<Self, String> {
        Self::try_open(folder, device).map_err(|cause| cause.to_string())
    }

    fn try_open(folder: &Path, device: Device) -> Result<Self, ExitCause> {
        let config = text(folder, "config.json")?;
        let longest = serde_json::from_str::<serde_json::Value>(&config).ok();
        let longest = longest.and_then(|config| config.get(LONGEST_INPUT)?.as_u64()).unwrap_or(512);
        let config = unimse_model::Config::from_json(&config).map_err(invalid)?;
        let labels = text(folder, "labels.json")?;
        let schema = serde_json::from_str(&labels);
        let schema =
            schema.map_err(|error| invalid(format!("cannot read {}/labels.json: {error}", folder.display())))?;
        let words = Words::new(&text(folder, "tokenizer.json")?, &schema)?;
        let store = nn::VarStore::new(device);
        let model = UniMse::new(&store.root(), &config).map_err(invalid)?;
        let path = folder.join("model.safetensors");
        if let Err(error) = std::fs::metadata(&path) {
            return Err(missing(&path, &error));
        }
        let loaded = weight_files(folder).and_then(|files| files.load_into(&store)?.require_complete());
        loaded.map_err(|error| invalid(format!("{}: {error}", path.display())))?;
        let widths = |dims: &[i64]| {
            let mut widths: Vec<usize> = dims.iter().map(|&dim| dim as usize).collect();
            widths.sort_unstable();
            widths
        };
        let layout = FeatureLayout {
            acoustic: widths(&config.unimse.acoustic.dims),
            visual: widths(&config.unimse.visual.dims),
        };
        let options = BatchOptions { max_input: longest as usize, ..BatchOptions::new(layout) };
        Ok(Self { model, words, options, device, answers: None })
    }

    /// Answers in another way than the one that the model was trained with.
    pub fn set_answers(&mut self, way: AnswerWay) -> Result<(), String> {
        if way == AnswerWay::Heads && self.model.heads().is_none() {
            return Err("the model has no heads; hint: train it with `model.heads: {score: 1, emotion: 1}`".to_owned());
        }
        self.answers = Some(way);
        Ok(())
    }

    pub(super) fn way(&self) -> AnswerWay {
        self.answers.unwrap_or_else(|| self.model.config().unimse.answers)
    }

    /// Measures the model on one split of datasets; `tell` hears of each sample, in order.
    pub fn evaluate(
        &self,
        stores: &[PathBuf],
        split: Split,
        batch: usize,
        tell: Option<&mut dyn FnMut(SampleLine) -> Result<(), String>>,
    ) -> Result<Evaluated, String> {
        let corpus = Corpus::open(stores, split).map_err(|error| error.to_string())?;
        self.measure(&corpus, batch, tell).map_err(|halt| match halt {
            Halt::End(cause) => cause.to_string(),
            Halt::Group(error) => error.to_string(),
        })
    }

    fn measure(
        &self,
        corpus: &Corpus,
        batch: usize,
        mut tell: Option<&mut dyn FnMut(SampleLine) -> Result<(), String>>,
    ) -> Result<Evaluated, Halt> {
        let decoders = decoders(&self.model, &self.words, corpus, self.device);
        let mut predictions: Vec<Option<Labels>> = vec![None; corpus.len()];
        let mut counts = BTreeMap::new();
        for (dataset, samples) in batches(corpus, batch) {
            let name = &corpus.stores()[dataset].metadata().name;
            let Some(decoder) = &decoders[dataset] else {
                let known: Vec<&str> = self.words.schema().emotions().iter().map(|known| known.name.as_str()).collect();
                return Err(Halt::End(invalid(format!(
                    "the model does not know the vocabulary of `{name}`; it knows {known:?}"
                ))));
            };
            let read = read(corpus, samples.clone())?;
            let arrays = arrays(&self.words, &self.options, &read).map_err(invalid)?;
            let targets: Vec<Vec<i64>> = read.iter().map(|sample| self.words.target_ids(&sample.labels)).collect();
            let batch = tensors::batch(&arrays, &targets, &[], self.device);
            let (told, nll) = tch::no_grad(|| -> Result<_, Halt> {
                let told = decoder.answer(&self.model, &batch.inputs, self.way()).map_err(invalid)?;
                let nll = match &tell {
                    Some(_) => self.model.forward(&batch, false).map_err(invalid)?.nll.to_device(Device::Cpu),
                    None => tch::Tensor::zeros([0], (tch::Kind::Float, Device::Cpu)),
                };
                Ok((told, nll))
            })?;
            *counts.entry(name.clone()).or_insert(0) += samples.len();
            for (row, (sample, Prediction { labels, .. })) in samples.zip(told).enumerate() {
                if let Some(tell) = &mut tell {
                    let columns = arrays.input.columns;
                    let ids = &arrays.input.ids[row * columns..(row + 1) * columns];
                    let mask = &arrays.input.mask[row * columns..(row + 1) * columns];
                    let line = SampleLine {
                        id: read[row].id.clone(),
                        dataset: name.clone(),
                        input_ids: ids.iter().zip(mask).filter(|(_, mask)| **mask != 0).map(|(id, _)| *id).collect(),
                        target_ids: targets[row].clone(),
                        target: arrays.targets[row].clone(),
                        prediction: self.words.schema().render(&labels),
                        nll: nll.double_value(&[row as i64]),
                    };
                    tell(line).map_err(invalid)?;
                }
                predictions[sample] = Some(labels);
            }
        }
        let details = details(&self.words, corpus, &predictions, RESAMPLES, RESAMPLING_SEED);
        Ok(Evaluated { samples: counts, metrics: summarise(&self.words, corpus, &predictions), details })
    }
}

/// The weights of a folder: `model.safetensors`, and what an exported folder has beside it.
pub(super) fn weight_files(folder: &Path) -> Result<weights::WeightFiles, unimse_model::Error> {
    let added = Some(folder.join(ADDED)).filter(|path| path.exists());
    let paths: Vec<PathBuf> = std::iter::once(folder.join("model.safetensors")).chain(added).collect();
    weights::WeightFiles::open(&paths)
}

pub(super) fn text(folder: &Path, name: &str) -> Result<String, ExitCause> {
    let path = folder.join(name);
    std::fs::read_to_string(&path).map_err(|error| missing(&path, &error))
}

fn missing(path: &Path, error: &std::io::Error) -> ExitCause {
    invalid(format!(
        "cannot read {}: {error}; hint: give a folder that `unimse ckpt pull` or `unimse export` wrote",
        path.display()
    ))
}
