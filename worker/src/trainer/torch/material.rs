//! What a job learns from: its samples, its label schema, its tokenizer.

use std::path::{Path, PathBuf};

use unimse_core::job::ExitCause;
use unimse_core::spec::{JobSpec, ModelSource};
use unimse_data::batch::{BatchOptions, FeatureLayout};
use unimse_data::corpus::Corpus;
use unimse_data::schema::{self, Split, Vocabulary};
use unimse_data::tokenizer::{EOS, Tokenizer, TokenizerOptions};
use unimse_model::labels::NONE;
use unimse_model::{EmotionVocabulary, Grammar, LabelSchema, Labels, Polarity, Task};

use super::super::{Surroundings, invalid};

/// A feature that varies less says nothing.
const SMALLEST: f32 = 1e-6;

/// The data of a job, ready to be cut into batches; shared by the threads that do so.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) train: Corpus,
    /// Empty when the job names no validation sets.
    pub(super) valid: Corpus,
    pub(super) vocabulary: Words,
    pub(super) options: BatchOptions,
    /// The weight of each training set in the loss.
    pub(super) weights: Vec<f64>,
    /// Target tokens of each training sample.
    pub(super) target_tokens: Vec<u16>,
    /// Bytes of the text of each training sample, by which a batch is sorted.
    lengths: Vec<u32>,
}

/// How text and labels become tokens.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) tokenizer: Tokenizer,
    /// The text of its `tokenizer.json`.
    pub(super) json: String,
    pub(super) grammar: Grammar,
}

impl Material {
    /// Opens the stores of a job; learns a tokenizer if there is none.
    pub(super) fn open(spec: &JobSpec, surroundings: &Surroundings) -> Result<Self, ExitCause> {
        let paths = |sources: &[unimse_core::spec::DataSource]| -> Result<Vec<PathBuf>, ExitCause> {
            sources.iter().map(|source| local_path(&source.path)).collect()
        };
        let train = Corpus::open(&paths(&spec.data.train)?, Split::Train).map_err(invalid)?;
        let valid = Corpus::open(&paths(&spec.data.valid)?, Split::Valid).map_err(invalid)?;
        let vocabularies = train.vocabularies().iter().chain(valid.vocabularies());
        let schema = schema_of(vocabularies)?;
        let json = tokenizer_json(spec, &train, &schema, surroundings)?;
        let vocabulary = Words::new(&json, &schema)?;
        let options = BatchOptions {
            max_input: spec.data.max_input_tokens as usize,
            ..BatchOptions::new(heard_and_seen(spec, train.layout()))
        };
        let lengths = train.texts().map(|text| text.len() as u32).collect();
        let weights = spec.data.train.iter().map(|source| source.weight).collect();
        let mut material = Self { train, valid, vocabulary, options, weights, target_tokens: Vec::new(), lengths };
        material.count_targets();
        Ok(material)
    }

    /// The same data in the words of a checkpoint or a peer.
    pub(super) fn with_words(&self, words: Words) -> Self {
        let mut material = Self {
            train: self.train.clone(),
            valid: self.valid.clone(),
            vocabulary: words,
            options: self.options.clone(),
            weights: self.weights.clone(),
            target_tokens: Vec::new(),
            lengths: self.lengths.clone(),
        };
        material.count_targets();
        material
    }

    fn count_targets(&mut self) {
        let count = |index| self.vocabulary.target_ids(&self.train.labels(index)).len() as u16;
        self.target_tokens = (0..self.train.len()).map(count).collect();
    }

    /// The standardisation of the training data's features, as buffers of the model: names without their `mean` or `scale`, and both.
    pub(super) fn standards(&self) -> Vec<(String, Vec<f32>, Vec<f32>)> {
        let mut standards = Vec::new();
        let metadata = || self.train.stores().iter().map(|store| store.metadata());
        for (name, dims) in [("acoustic", &self.options.layout.acoustic), ("visual", &self.options.layout.visual)] {
            for &dim in dims {
                let of = |one: &'_ schema::Metadata| match name {
                    "acoustic" => one.acoustic_statistics.clone(),
                    _ => one.visual_statistics.clone(),
                };
                let all: Vec<_> = metadata().filter_map(of).filter(|one| one.mean.len() == dim).collect();
                let Some(pooled) = schema::Statistics::pooled(&all) else { continue };
                let scale = pooled.deviation.iter().map(|&d| if d > SMALLEST { d.recip() } else { 0.0 }).collect();
                standards.push((format!("{name}.standard.{dim}"), pooled.mean, scale));
            }
        }
        standards
    }

    /// What identifies the training data: the content of its stores, in their order.
    pub(super) fn identity(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for store in self.train.stores() {
            hasher.update(store.metadata().content_hash.as_bytes());
        }
        format!("{} samples, {}", self.train.len(), &hasher.finalize().to_hex()[..16])
    }

    /// Puts samples of about the same length side by side: micro-shards are cut from a global batch in order, and then have little
    /// padding. What a step computes stays the same, but for which samples are each other's contrastive negatives.
    pub(super) fn sort(&self, samples: &mut [u64]) {
        samples.sort_by_key(|&sample| (self.lengths[sample as usize], sample));
    }

    /// The weight of a training sample in the loss.
    pub(super) fn weight(&self, sample: u64) -> f64 {
        let (dataset, _) = self.train.locate(sample as usize);
        self.weights[dataset]
    }

    /// The weighted target tokens of some training samples: what their cross-entropy is divided by.
    pub(super) fn weighted_tokens(&self, samples: &[u64]) -> f64 {
        samples.iter().map(|&sample| self.weight(sample) * f64::from(self.target_tokens[sample as usize])).sum()
    }
}

impl Words {
    pub(super) fn new(json: &str, schema: &LabelSchema) -> Result<Self, ExitCause> {
        let tokenizer = Tokenizer::parse(json.as_bytes(), "the tokenizer").map_err(invalid)?;
        let encode = |text: &str| tokenizer.encode_open(text).unwrap_or_default();
        let grammar = Grammar::try_new(schema, EOS, encode).map_err(invalid)?;
        Ok(Self { tokenizer, json: json.to_owned(), grammar })
    }

    pub(super) fn schema(&self) -> &LabelSchema {
        self.grammar.schema()
    }

    /// The target of a sample, with its end.
    pub(super) fn target_ids(&self, labels: &schema::Labels) -> Vec<i64> {
        self.grammar.target_ids(&self.labels(labels))
    }

    /// Labels in the words of the schema; classes that it does not know are unknown.
    pub(super) fn labels(&self, labels: &schema::Labels) -> Labels {
        let score = labels.score.map(f64::from);
        let told = labels.polarity.map(|polarity| match polarity {
            schema::Polarity::Negative => Polarity::Negative,
            schema::Polarity::Neutral => Polarity::Neutral,
            schema::Polarity::Positive => Polarity::Positive,
        });
        let class = |vocabulary: &EmotionVocabulary| vocabulary.class(labels.emotions.get(&vocabulary.name)?);
        Labels {
            polarity: score.map(Polarity::of_score).or(told),
            score,
            emotions: self.schema().emotions().iter().map(class).collect(),
        }
    }

    /// What is asked about the samples of a dataset; none when its vocabulary is not in the schema.
    pub(super) fn task_of(&self, metadata: &schema::Metadata) -> Option<Task> {
        match metadata.task {
            schema::Task::Sentiment => Some(Task::Sentiment),
            schema::Task::Emotion => {
                let own = &metadata.emotion_vocabulary()?.name;
                self.schema().emotions().iter().position(|vocabulary| vocabulary.name == *own).map(Task::Emotion)
            }
        }
    }
}

fn schema_of<'v>(vocabularies: impl Iterator<Item = &'v Vocabulary>) -> Result<LabelSchema, ExitCause> {
    let mut emotions: Vec<EmotionVocabulary> = Vec::new();
    for vocabulary in vocabularies {
        if !emotions.iter().any(|known| known.name == vocabulary.name) {
            emotions.push(EmotionVocabulary { name: vocabulary.name.clone(), classes: vocabulary.classes.clone() });
        }
    }
    LabelSchema::try_new(emotions).map_err(invalid)
}

/// The features that the model reads.
fn heard_and_seen(spec: &JobSpec, layout: &FeatureLayout) -> FeatureLayout {
    let of = |width: u32, dims: &[usize]| if width == 0 { Vec::new() } else { dims.to_vec() };
    let encoders = &spec.model.encoders;
    FeatureLayout { acoustic: of(encoders.acoustic, &layout.acoustic), visual: of(encoders.visual, &layout.visual) }
}

/// A dataset's path on this machine.
fn local_path(path: &str) -> Result<PathBuf, ExitCause> {
    match path.strip_prefix("file://") {
        Some(local) => Ok(PathBuf::from(local)),
        None if path.contains("://") => Err(invalid(format!(
            "cannot open dataset `{path}`: datasets are read from paths that the workers see; hint: copy it to a folder that \
             every worker mounts"
        ))),
        None => Ok(PathBuf::from(path)),
    }
}

/// Finds the tokenizer: the one that is named, the model's own, or one learned from the training text.
fn tokenizer_json(
    spec: &JobSpec,
    train: &Corpus,
    schema: &LabelSchema,
    surroundings: &Surroundings,
) -> Result<String, ExitCause> {
    let pretrained = match &spec.model.source {
        ModelSource::Init(folder) => Some(folder),
        ModelSource::Preset(_) => None,
    };
    if let Some(path) = spec.data.tokenizer.as_ref().or(pretrained) {
        return Tokenizer::open_json(&local_path(path)?).map_err(invalid);
    }
    let emotions = schema.emotions().iter().flat_map(|vocabulary| vocabulary.classes.iter().cloned());
    let polarities = Polarity::ALL.iter().map(|polarity| polarity.word().to_owned());
    let mut words: Vec<String> = polarities.chain([NONE.to_owned()]).chain(emotions).collect();
    words.sort_unstable();
    words.dedup();
    let options = TokenizerOptions { vocabulary: spec.data.vocab_size as usize, words, extra_ids: 0 };
    let cached = surroundings.cache.as_ref().map(|cache| cache.join("tokenizers").join(cache_name(train, &options)));
    if let Some(json) = cached.as_ref().and_then(|path| std::fs::read_to_string(path).ok()) {
        return Ok(json);
    }
    let began = std::time::Instant::now();
    let tokenizer = Tokenizer::train(train.texts(), &options).map_err(invalid)?;
    let json = tokenizer.to_json().map_err(invalid)?;
    tracing::info!(
        tokens = tokenizer.len(),
        milliseconds = began.elapsed().as_millis() as u64,
        "tokenizer learned from the training text"
    );
    if let Some(path) = cached {
        keep(&path, &json);
    }
    Ok(json)
}

/// Names what the tokenizer is a function of.
fn cache_name(train: &Corpus, options: &TokenizerOptions) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
    hasher.update(&serde_json::to_vec(options).unwrap_or_default());
    for store in train.stores() {
        hasher.update(store.metadata().content_hash.as_bytes());
    }
    format!("{}.json", &hasher.finalize().to_hex()[..32])
}

/// Puts a file into the cache, whole or not at all; a cache that cannot be written is no reason to stop.
fn keep(path: &Path, text: &str) {
    let write = || {
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        std::fs::create_dir_all(folder)?;
        let partial = folder.join(format!(".{}", uuid::Uuid::new_v4().simple()));
        std::fs::write(&partial, text)?;
        std::fs::rename(&partial, path)
    };
    if let Err(error) = write() {
        tracing::debug!(%error, path = %path.display(), "cannot keep the tokenizer");
    }
}
