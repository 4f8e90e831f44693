//! From the checked file to the valid job: defaults, and what only shows when fields are seen together.

mod sync;

use serde_json::Value;

use crate::diagnostic::{Code, Diagnostic};
use crate::metrics::Goal;

use super::duration;
use super::format;
use super::job::{
    AdamSpec, AnswerWay, CheckpointSpec, ContextSpec, ContrastiveSpec, DataSource, DataSpec, EncoderSpec, FusionInit,
    FusionSpec, HeadSpec, JobSpec, KeepSpec, LimitSpec, LogSpec, LoraSpec, MetricSpec, ModelSource, ModelSpec,
    Precision, ResourceSpec, RestartSpec, Resume, ScheduleKind, ScheduleSpec, TrainLength, TrainSpec, Trainable,
};
use super::node::Document;
use super::raw::{
    RawAdam, RawCheckpoint, RawContrastive, RawData, RawEncoders, RawFusion, RawJobSpec, RawLog, RawLora, RawModel,
    RawResources, RawTrain,
};

/// Fills in the defaults and checks across fields.
pub(crate) fn resolve(value: Value, document: &Document) -> Result<JobSpec, Vec<Diagnostic>> {
    let raw: RawJobSpec = serde_json::from_value(value).map_err(|error| {
        // The checker and these types come from the same definitions, so this names a bug of ours rather than of the file.
        vec![Diagnostic::new(
            Code::WrongType,
            format!("the file passed its schema and still could not be read: {error}"),
        )]
    })?;
    let mut resolver = Resolver { document, found: Vec::new() };
    let job = resolver.job(raw);
    if resolver.found.is_empty() { Ok(job) } else { Err(resolver.found) }
}

struct Resolver<'a> {
    document: &'a Document,
    found: Vec<Diagnostic>,
}

impl Resolver<'_> {
    fn contradiction(&mut self, path: &[&str], message: String, label: &str, help: &str) {
        let diagnostic = Diagnostic::new(Code::Contradiction, message).label(label).help(help);
        self.found.push(self.document.blame(path, diagnostic));
    }

    fn job(&mut self, raw: RawJobSpec) -> JobSpec {
        let checkpoint = checkpoint(raw.checkpoint.unwrap_or_default());
        let restart = raw.restart.unwrap_or_default();
        let limits = raw.limits.unwrap_or_default();
        let job = JobSpec {
            name: raw.name,
            labels: raw.labels.unwrap_or_default(),
            model: self.model(raw.model),
            data: data(raw.data),
            train: self.train(&raw.train.unwrap_or_default(), checkpoint.every),
            resources: self.resources(raw.resources.unwrap_or_default()),
            checkpoint,
            // The checker has read all three texts already; what it refused never gets here.
            resume: raw.resume.and_then(|text| format::resume(&text).ok()).unwrap_or(Resume::Auto),
            restart: RestartSpec {
                max: restart.max.unwrap_or(5),
                backoff: duration::parse(restart.backoff.as_deref().unwrap_or("5s")).unwrap_or_default(),
            },
            log: log(&raw.log.unwrap_or_default()),
            limits: LimitSpec { time: limits.time.and_then(|text| duration::parse(&text)) },
        };
        self.rounds(&job);
        job
    }

    fn model(&mut self, raw: RawModel) -> ModelSpec {
        let source = match (raw.preset, raw.init) {
            (Some(preset), None) => ModelSource::Preset(preset),
            (None, Some(init)) => ModelSource::Init(init),
            (Some(_), Some(init)) => {
                let message = "`model.preset` and `model.init` exclude each other".to_owned();
                let help = "`preset` starts from random weights, `init` from those of a directory";
                self.contradiction(&["model", "init"], message, "remove one of them", help);
                ModelSource::Init(init)
            }
            (None, None) => {
                let message = "`model` needs `preset` or `init`";
                let diagnostic = Diagnostic::new(Code::Missing, message)
                    .label("add `preset: base` or `init: <a Hugging Face T5 directory>`")
                    .help("presets: tiny, small, base, large");
                self.found.push(self.document.blame(&["model"], diagnostic));
                ModelSource::Init(String::new())
            }
        };
        let trainable = raw.trainable.unwrap_or(Trainable::All);
        let lora = lora(&raw.lora.unwrap_or_default());
        let heads = raw.heads.unwrap_or_default();
        let heads = HeadSpec { score: heads.score.unwrap_or(0.0), emotion: heads.emotion.unwrap_or(0.0) };
        let answers = raw.answers.unwrap_or(AnswerWay::Decoded);
        if answers == AnswerWay::Heads && heads.score == 0.0 && heads.emotion == 0.0 {
            let message = "`model.answers` asks heads that the model does not have".to_owned();
            let help = "a head exists where its loss has a weight above 0";
            self.contradiction(&["model", "answers"], message, "add `heads: {score: 1, emotion: 1}` beside it", help);
        }
        if lora.rank > 0 && trainable != Trainable::Adapters {
            let message = "`model.lora` updates frozen weights, but `model.trainable` trains them".to_owned();
            let help = "`trainable: adapters` trains the low-rank updates in place of the weights; rank 0 is no update";
            self.contradiction(&["model", "lora"], message, "add `trainable: adapters` beside it", help);
        }
        let contrastive = contrastive(&raw.contrastive.unwrap_or_default());
        let encoders = encoders(&raw.encoders.unwrap_or_default());
        if contrastive.legacy {
            self.legacy(&contrastive, &encoders);
        }
        ModelSpec {
            source,
            encoders,
            fusion: fusion(&raw.fusion.unwrap_or_default()),
            contrastive,
            heads,
            answers,
            trainable,
            lora,
        }
    }

    /// What the official code's contrastive losses ask of the rest.
    fn legacy(&mut self, contrastive: &ContrastiveSpec, encoders: &EncoderSpec) {
        if contrastive.global {
            let message = "`model.contrastive.legacy` takes its negatives from the micro-batch".to_owned();
            let help = "the official code knows one process; `global: true` is for the paper's losses";
            self.contradiction(&["model", "contrastive", "global"], message, "remove it", help);
        }
        let both = contrastive.acoustic > 0.0 && contrastive.visual > 0.0;
        if both && encoders.acoustic > 0 && encoders.visual > 0 && encoders.acoustic != encoders.visual {
            let EncoderSpec { acoustic, visual, .. } = encoders;
            let message =
                format!("`model.contrastive.legacy` needs encoders of one width, not {acoustic} and {visual}");
            let help = "in the official code sound and picture share one projection";
            self.contradiction(&["model", "encoders", "visual"], message, &format!("try {acoustic}"), help);
        }
    }

    fn train(&mut self, raw: &RawTrain, checkpoint_every: u64) -> TrainSpec {
        let length = match (raw.max_steps, raw.max_epochs) {
            (Some(steps), None) => TrainLength::Steps(steps),
            (None, epochs) => TrainLength::Epochs(epochs.unwrap_or(20)),
            (Some(steps), Some(_)) => {
                let message = "`train.max_steps` and `train.max_epochs` exclude each other".to_owned();
                let help = "with --set, unset the other one: --set train.max_steps=null";
                self.contradiction(&["train", "max_epochs"], message, "remove one of them", help);
                TrainLength::Steps(steps)
            }
        };
        let global_batch = raw.global_batch.unwrap_or(96);
        let micro_batch = raw.micro_batch.unwrap_or_else(|| largest_divisor(global_batch, 16));
        if !global_batch.is_multiple_of(micro_batch) {
            let message =
                format!("`train.micro_batch` {micro_batch} does not divide `train.global_batch` {global_batch}");
            let near = largest_divisor(global_batch, micro_batch);
            let help = "equal micro-batches make the loss independent of how the batch is cut";
            self.contradiction(&["train", "micro_batch"], message, &format!("try {near}"), help);
        }
        let recomputes = raw.activation_checkpointing.unwrap_or(false);
        let records = raw.cuda_graphs.unwrap_or(false);
        if records && recomputes {
            let message = "`train.cuda_graphs` and `train.activation_checkpointing` exclude each other".to_owned();
            let help = "what is computed again sets random generators back, which cannot be recorded";
            self.contradiction(&["train", "cuda_graphs"], message, "remove one of them", help);
        }
        let schedule = raw.schedule.clone().unwrap_or_default();
        let warmup = schedule.warmup.unwrap_or(0);
        if let TrainLength::Steps(steps) = length
            && warmup >= steps
        {
            let message = format!("`train.schedule.warmup` {warmup} leaves nothing of `train.max_steps` {steps}");
            let help = "the warm-up is part of the steps; a tenth of them is usual";
            self.contradiction(&["train", "schedule", "warmup"], message, &format!("must be below {steps}"), help);
        }
        TrainSpec {
            length,
            global_batch,
            micro_batch,
            learning_rate: raw.learning_rate.unwrap_or(3e-4),
            adapter_learning_rate: raw.adapter_learning_rate,
            weight_decay: raw.weight_decay.unwrap_or(0.0),
            clip: raw.clip.unwrap_or(1.0),
            dropout: raw.dropout,
            adam: adam(&raw.adam.clone().unwrap_or_default()),
            schedule: ScheduleSpec { kind: schedule.kind.unwrap_or(ScheduleKind::Linear), warmup },
            precision: raw.precision.unwrap_or(Precision::Fp32),
            activation_checkpointing: recomputes,
            cuda_graphs: records,
            zero: raw.zero.unwrap_or(0),
            sync: self.sync(raw.sync.as_ref(), raw.zero.unwrap_or(0)),
            evaluate_every: raw.evaluate_every.unwrap_or(checkpoint_every),
            seed: raw.seed.unwrap_or(42),
        }
    }

    fn resources(&mut self, raw: RawResources) -> ResourceSpec {
        let slots = raw.slots.or(raw.min_slots).unwrap_or(1);
        let min_slots = raw.min_slots.unwrap_or(slots);
        if min_slots > slots {
            let message = format!("`resources.min_slots` {min_slots} is above `resources.slots` {slots}");
            let help = "`slots` is what the job can use, `min_slots` what it needs to run at all";
            self.contradiction(&["resources", "min_slots"], message, &format!("must be at most {slots}"), help);
        }
        ResourceSpec {
            slots,
            min_slots,
            priority: raw.priority.unwrap_or(50),
            queue: raw.queue.unwrap_or_else(|| "default".into()),
        }
    }
}

fn log(raw: &RawLog) -> LogSpec {
    LogSpec { every: raw.every.unwrap_or(10), profile: raw.profile.unwrap_or(0) }
}

fn encoders(raw: &RawEncoders) -> EncoderSpec {
    EncoderSpec {
        acoustic: raw.acoustic.unwrap_or(64),
        visual: raw.visual.unwrap_or(64),
        bidirectional: raw.bidirectional.unwrap_or(false),
    }
}

fn fusion(raw: &RawFusion) -> FusionSpec {
    FusionSpec {
        layers: raw.layers.unwrap_or(3),
        bottleneck: raw.bottleneck.unwrap_or(64),
        init: raw.init.unwrap_or(FusionInit::Identity),
    }
}

fn adam(raw: &RawAdam) -> AdamSpec {
    AdamSpec {
        beta1: raw.beta1.unwrap_or(0.9),
        beta2: raw.beta2.unwrap_or(0.999),
        eps: raw.eps.unwrap_or(1e-8),
        decoupled: raw.decoupled.unwrap_or(true),
    }
}

fn contrastive(raw: &RawContrastive) -> ContrastiveSpec {
    ContrastiveSpec {
        acoustic: raw.acoustic.unwrap_or(0.5),
        visual: raw.visual.unwrap_or(0.5),
        temperature: raw.temperature.unwrap_or(0.1),
        layers: raw.layers.unwrap_or(3),
        global: raw.global.unwrap_or(false),
        legacy: raw.legacy.unwrap_or(false),
    }
}

fn lora(raw: &RawLora) -> LoraSpec {
    let rank = raw.rank.unwrap_or(0);
    LoraSpec { rank, alpha: raw.alpha.unwrap_or_else(|| f64::from(2 * rank.max(1))) }
}

fn data(raw: RawData) -> DataSpec {
    let (past, future) = raw.context.map_or((None, None), |context| (context.past, context.future));
    let valid = raw.valid.unwrap_or_default();
    DataSpec {
        train: raw
            .train
            .into_iter()
            .map(|source| DataSource { path: source.path, weight: source.weight.unwrap_or(1.0) })
            .collect(),
        valid: valid.into_iter().map(|source| DataSource { path: source.path, weight: 1.0 }).collect(),
        tokenizer: raw.tokenizer,
        vocab_size: raw.vocab_size.unwrap_or(4096),
        max_input_tokens: raw.max_input_tokens.unwrap_or(256),
        standardise: raw.standardise.unwrap_or(true),
        context: ContextSpec { past: past.unwrap_or(2), future: future.unwrap_or(2) },
    }
}

fn checkpoint(raw: RawCheckpoint) -> CheckpointSpec {
    let keep = raw.keep.unwrap_or_default();
    let metric = raw.metric.map_or_else(
        || MetricSpec { name: "valid/score".into(), goal: Goal::Maximize },
        |metric| MetricSpec { name: metric.name, goal: metric.goal },
    );
    CheckpointSpec {
        every: raw.every.unwrap_or(200),
        keep: KeepSpec { latest: keep.latest.unwrap_or(2), best: keep.best.unwrap_or(1) },
        metric,
        uri: raw.uri,
    }
}

/// The largest divisor of `number` that is at most `bound`, both at least 1.
fn largest_divisor(number: u32, bound: u32) -> u32 {
    (1..=bound.min(number)).rev().find(|divisor| number.is_multiple_of(*divisor)).unwrap_or(1)
}
