//! The stored form of a job: a job file with every default spelled out.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::diagnostic::Diagnostics;

use super::check;
use super::duration;
use super::job::{JobSpec, ModelSource, TrainLength};
use super::node::{Document, Node};
use super::raw::{
    RawAdam, RawCheckpoint, RawContext, RawContrastive, RawData, RawEncoders, RawFusion, RawHeads, RawJobSpec, RawKeep,
    RawLimits, RawLog, RawLora, RawMetric, RawModel, RawResources, RawRestart, RawSchedule, RawSource, RawSync,
    RawTrain, RawValidSource,
};
use super::resolve::resolve;
use super::schema;

/// Checks a document and fills in its defaults.
pub(crate) fn validate(document: &Document) -> Result<JobSpec, Diagnostics> {
    let job = check::check(document, &schema::JOB).and_then(|value| resolve(value, document));
    job.map_err(|found| Diagnostics::check(found).expect_err("an error always comes with what was found"))
}

impl Serialize for JobSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut value = serde_json::to_value(raw(self)).map_err(serde::ser::Error::custom)?;
        strip_nulls(&mut value);
        value.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JobSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let root = Node::deserialize(deserializer)?;
        validate(&Document { sources: Vec::new(), root }).map_err(D::Error::custom)
    }
}

/// Drops what was not given; null and absent mean the same everywhere.
pub(crate) fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

fn raw(job: &JobSpec) -> RawJobSpec {
    RawJobSpec {
        name: job.name.clone(),
        labels: Some(job.labels.clone()).filter(|labels| !labels.is_empty()),
        model: model(job),
        data: data(job),
        train: Some(train(job)),
        resources: Some(RawResources {
            slots: Some(job.resources.slots),
            min_slots: Some(job.resources.min_slots),
            priority: Some(job.resources.priority),
            queue: Some(job.resources.queue.clone()),
        }),
        checkpoint: Some(RawCheckpoint {
            every: Some(job.checkpoint.every),
            keep: Some(RawKeep { latest: Some(job.checkpoint.keep.latest), best: Some(job.checkpoint.keep.best) }),
            metric: Some(RawMetric { name: job.checkpoint.metric.name.clone(), goal: job.checkpoint.metric.goal }),
            uri: job.checkpoint.uri.clone(),
        }),
        resume: Some(job.resume.to_string()),
        restart: Some(RawRestart { max: Some(job.restart.max), backoff: Some(duration::format(job.restart.backoff)) }),
        log: Some(RawLog { every: Some(job.log.every), profile: Some(job.log.profile) }),
        limits: job.limits.time.map(|time| RawLimits { time: Some(duration::format(time)) }),
    }
}

fn model(job: &JobSpec) -> RawModel {
    let model = &job.model;
    let (preset, init) = match &model.source {
        ModelSource::Preset(preset) => (Some(*preset), None),
        ModelSource::Init(init) => (None, Some(init.clone())),
    };
    RawModel {
        preset,
        init,
        encoders: Some(RawEncoders {
            acoustic: Some(model.encoders.acoustic),
            visual: Some(model.encoders.visual),
            bidirectional: Some(model.encoders.bidirectional),
        }),
        fusion: Some(RawFusion {
            layers: Some(model.fusion.layers),
            bottleneck: Some(model.fusion.bottleneck),
            init: Some(model.fusion.init),
        }),
        contrastive: Some(RawContrastive {
            acoustic: Some(model.contrastive.acoustic),
            visual: Some(model.contrastive.visual),
            temperature: Some(model.contrastive.temperature),
            layers: Some(model.contrastive.layers),
            global: Some(model.contrastive.global),
            legacy: Some(model.contrastive.legacy),
        }),
        heads: Some(RawHeads { score: Some(model.heads.score), emotion: Some(model.heads.emotion) }),
        answers: Some(model.answers),
        trainable: Some(model.trainable),
        lora: Some(RawLora { rank: Some(model.lora.rank), alpha: Some(model.lora.alpha) }),
    }
}

fn data(job: &JobSpec) -> RawData {
    let data = &job.data;
    let train = data.train.iter().map(|source| RawSource { path: source.path.clone(), weight: Some(source.weight) });
    let valid = data.valid.iter().map(|source| RawValidSource { path: source.path.clone() });
    RawData {
        train: train.collect(),
        valid: Some(valid.collect()),
        tokenizer: data.tokenizer.clone(),
        vocab_size: Some(data.vocab_size),
        max_input_tokens: Some(data.max_input_tokens),
        standardise: Some(data.standardise),
        context: Some(RawContext { past: Some(data.context.past), future: Some(data.context.future) }),
    }
}

fn train(job: &JobSpec) -> RawTrain {
    let train = &job.train;
    let (max_steps, max_epochs) = match train.length {
        TrainLength::Steps(steps) => (Some(steps), None),
        TrainLength::Epochs(epochs) => (None, Some(epochs)),
    };
    RawTrain {
        max_steps,
        max_epochs,
        global_batch: Some(train.global_batch),
        micro_batch: Some(train.micro_batch),
        learning_rate: Some(train.learning_rate),
        adapter_learning_rate: train.adapter_learning_rate,
        weight_decay: Some(train.weight_decay),
        clip: Some(train.clip),
        dropout: train.dropout,
        adam: Some(RawAdam {
            beta1: Some(train.adam.beta1),
            beta2: Some(train.adam.beta2),
            eps: Some(train.adam.eps),
            decoupled: Some(train.adam.decoupled),
        }),
        schedule: Some(RawSchedule { kind: Some(train.schedule.kind), warmup: Some(train.schedule.warmup) }),
        precision: Some(train.precision),
        activation_checkpointing: Some(train.activation_checkpointing),
        cuda_graphs: Some(train.cuda_graphs),
        zero: Some(train.zero),
        sync: Some(RawSync {
            every: Some(train.sync.every),
            outer_learning_rate: Some(train.sync.outer_learning_rate),
            outer_momentum: Some(train.sync.outer_momentum),
            precision: Some(train.sync.precision),
            rank: Some(train.sync.rank),
            warmup: Some(train.sync.warmup),
        }),
        evaluate_every: Some(train.evaluate_every),
        seed: Some(train.seed),
    }
}
