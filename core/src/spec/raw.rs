//! The job file exactly as people write it: every default still open, every text still unchecked.
//!
//! These types have two uses. The JSON Schema made from them is what editors and [`super::check`] go by, so that both always agree,
//! and a checked file is read into them on its way to [`super::JobSpec`]. Doc comments here are what an editor shows.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::job::{AnswerWay, FusionInit, Precision, Preset, ScheduleKind, Trainable};
use crate::metrics::Goal;

/// A training job. `name`, `model` and `data` are required, everything else has a default.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "unimse job")]
pub(crate) struct RawJobSpec {
    /// Shown everywhere; letters, digits, dots, hyphens and underscores.
    #[schemars(extend("format" = "name"))]
    pub name: String,
    /// Free words to find the job by, such as `paper: acl27`.
    pub labels: Option<BTreeMap<String, String>>,
    /// The model to train.
    pub model: RawModel,
    /// Datasets, and how their text becomes tokens.
    pub data: RawData,
    /// The optimisation.
    pub train: Option<RawTrain>,
    /// What the job needs from the cluster.
    pub resources: Option<RawResources>,
    /// When checkpoints are written, and which are kept.
    pub checkpoint: Option<RawCheckpoint>,
    /// Where training begins: `auto` (the job's newest checkpoint, if there is one), `never`, a checkpoint such as
    /// `j-7k2m:best`, or a URI.
    #[schemars(extend("format" = "resume", "default" = "auto"))]
    pub resume: Option<String>,
    /// What happens after a failure of the job itself. A lost worker does not count.
    pub restart: Option<RawRestart>,
    /// How often metrics are reported.
    pub log: Option<RawLog>,
    /// Bounds after which the job is stopped.
    pub limits: Option<RawLimits>,
}

/// Exactly one of `preset` and `init`, and the sizes of what is added to T5.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Model")]
pub(crate) struct RawModel {
    /// A T5 of this size with random weights.
    pub preset: Option<Preset>,
    /// Path or URI of a Hugging Face T5 directory (config.json, model.safetensors, tokenizer.json or spiece.model).
    #[schemars(extend("format" = "location"))]
    pub init: Option<String>,
    /// Sizes of the acoustic and the visual encoder.
    pub encoders: Option<RawEncoders>,
    /// The multimodal fusion layers.
    pub fusion: Option<RawFusion>,
    /// The inter-modality contrastive loss.
    pub contrastive: Option<RawContrastive>,
    /// Heads beside the generator that read the encoder.
    pub heads: Option<RawHeads>,
    /// How the model answers when it is evaluated: the `decoded` label string, the `expected` score, or its `heads`.
    #[schemars(extend("default" = "decoded"))]
    pub answers: Option<AnswerWay>,
    /// Which parameters learn; the rest keep the values of `init`.
    #[schemars(extend("default" = "all"))]
    pub trainable: Option<Trainable>,
    /// Low-rank updates of the attention's query and value projections.
    pub lora: Option<RawLora>,
}

/// Weights of the losses of the heads; 0 means that there is no such head.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Heads")]
pub(crate) struct RawHeads {
    /// Weight of the score's absolute error.
    #[schemars(range(min = 0, max = 100), extend("default" = 0.0))]
    pub score: Option<f64>,
    /// Weight of the emotions' cross-entropy.
    #[schemars(range(min = 0, max = 100), extend("default" = 0.0))]
    pub emotion: Option<f64>,
}

/// Low-rank adaptation (Hu et al. 2021): a projection `W x` becomes `W x + alpha / rank * B A x`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Lora")]
pub(crate) struct RawLora {
    /// Rows of `A`; 0 turns it off.
    #[schemars(range(min = 0, max = 1024), extend("default" = 0))]
    pub rank: Option<u32>,
    /// Scale of the update. Default: twice the rank.
    #[schemars(range(max = 10_000), extend("exclusiveMinimum" = 0))]
    pub alpha: Option<f64>,
}

/// One LSTM a modality; its last state is what the fusion layers see.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Encoders")]
pub(crate) struct RawEncoders {
    /// Width of the acoustic LSTM; 0 makes the model deaf, whatever the datasets have.
    #[schemars(range(min = 0, max = 4096), extend("default" = 64))]
    pub acoustic: Option<u32>,
    /// Width of the visual LSTM; 0 makes the model blind.
    #[schemars(range(min = 0, max = 4096), extend("default" = 64))]
    pub visual: Option<u32>,
    /// A second LSTM reads each sequence from its end.
    #[schemars(extend("default" = false))]
    pub bidirectional: Option<bool>,
}

/// Fusion adapters after the feed-forward sublayer of the last blocks of encoder and decoder.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Fusion")]
pub(crate) struct RawFusion {
    /// Blocks that get one, counted from the last; 0 leaves text alone.
    #[schemars(range(min = 0, max = 48), extend("default" = 3))]
    pub layers: Option<u32>,
    /// Width of the bottleneck.
    #[schemars(range(min = 1, max = 4096), extend("default" = 64))]
    pub bottleneck: Option<u32>,
    /// How the layers start: `identity` leaves a pretrained T5 intact, `paper` sends it through random weights.
    #[schemars(extend("default" = "identity"))]
    pub init: Option<FusionInit>,
}

/// Weights of the two contrastive losses, and their temperature.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Contrastive")]
pub(crate) struct RawContrastive {
    /// Weight of text against acoustic; 0 turns it off.
    #[schemars(range(min = 0, max = 100), extend("default" = 0.5))]
    pub acoustic: Option<f64>,
    /// Weight of text against visual; 0 turns it off.
    #[schemars(range(min = 0, max = 100), extend("default" = 0.5))]
    pub visual: Option<f64>,
    /// Divides the similarities.
    #[schemars(range(min = 0.001, max = 100), extend("default" = 0.1))]
    pub temperature: Option<f64>,
    /// The encoder's last blocks that take part; fewer where the model has fewer.
    #[schemars(range(min = 1, max = 48), extend("default" = 3))]
    pub layers: Option<u32>,
    /// Negatives come from the whole global batch instead of the sample's micro-batch. Costs a second forward pass.
    #[schemars(extend("default" = false))]
    pub global: Option<bool>,
    /// As the official code has it: the input of the last block of both stacks, means over padding, random projections that are
    /// never trained, sound and picture in the code's order. `layers` is not used.
    #[schemars(extend("default" = false))]
    pub legacy: Option<bool>,
}

/// Datasets are Arrow stores made by `unimse data import`: a path that the workers see, or a URI.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Data")]
pub(crate) struct RawData {
    /// Datasets whose training samples are concatenated.
    #[schemars(length(min = 1, max = 256))]
    pub train: Vec<RawSource>,
    /// Datasets on whose validation samples the model is judged.
    #[schemars(length(max = 256))]
    pub valid: Option<Vec<RawValidSource>>,
    /// A tokenizer.json or spiece.model. Without it, that of `model.init` is used, or one is learned from the training text.
    #[schemars(extend("format" = "location"))]
    pub tokenizer: Option<String>,
    /// Size of the vocabulary when the tokenizer is learned.
    #[schemars(range(min = 300, max = 250_000), extend("default" = 4096))]
    pub vocab_size: Option<u32>,
    /// Longer inputs are cut.
    #[schemars(range(min = 8, max = 4096), extend("default" = 256))]
    pub max_input_tokens: Option<u32>,
    /// Scales every feature to mean 0 and deviation 1 over the training frames, and cuts it at 3 deviations.
    #[schemars(extend("default" = true))]
    pub standardise: Option<bool>,
    /// Neighbouring utterances of a dialogue that are shown to the model.
    pub context: Option<RawContext>,
}

/// A dataset to train on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TrainSource")]
pub(crate) struct RawSource {
    /// Path or URI of the store.
    #[schemars(extend("format" = "location"))]
    pub path: String,
    /// Weight of its samples in the loss; every sample is still used exactly once an epoch.
    #[schemars(range(max = 1000), extend("exclusiveMinimum" = 0, "default" = 1.0))]
    pub weight: Option<f64>,
}

/// A dataset to be judged on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ValidSource")]
pub(crate) struct RawValidSource {
    /// Path or URI of the store.
    #[schemars(extend("format" = "location"))]
    pub path: String,
}

/// Only dialogues have context; single utterances have none whatever stands here.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Context")]
pub(crate) struct RawContext {
    /// Utterances before the current one.
    #[schemars(range(min = 0, max = 16), extend("default" = 2))]
    pub past: Option<u32>,
    /// Utterances after it; 0 for a causal model.
    #[schemars(range(min = 0, max = 16), extend("default" = 2))]
    pub future: Option<u32>,
}

/// At most one of `max_steps` and `max_epochs`; nothing here depends on the number of workers.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Train")]
pub(crate) struct RawTrain {
    /// Optimiser steps.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_steps: Option<u64>,
    /// Passes over the training data; 20 when neither this nor `max_steps` is given.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_epochs: Option<u64>,
    /// Samples of one optimiser step, whatever the number of workers.
    #[schemars(range(min = 1, max = 65_536), extend("default" = 96))]
    pub global_batch: Option<u32>,
    /// Samples of one forward pass; divides `global_batch`. Default: its largest divisor up to 16.
    #[schemars(range(min = 1, max = 65_536))]
    pub micro_batch: Option<u32>,
    /// Peak learning rate of Adam.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0, "default" = 3e-4))]
    pub learning_rate: Option<f64>,
    /// Peak learning rate of what is added to T5: fusion, encoders, contrastive projections, low-rank updates. Default:
    /// `learning_rate`.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub adapter_learning_rate: Option<f64>,
    /// Weight decay of matrices; of everything without `adam.decoupled`.
    #[schemars(range(min = 0, max = 1), extend("default" = 0.0))]
    pub weight_decay: Option<f64>,
    /// Bound of the gradient's global norm; 0 turns clipping off.
    #[schemars(range(min = 0, max = 1_000_000), extend("default" = 1.0))]
    pub clip: Option<f64>,
    /// Overrides the dropout of the T5 configuration.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub dropout: Option<f64>,
    /// Coefficients of Adam.
    pub adam: Option<RawAdam>,
    /// How the learning rate changes over the steps.
    pub schedule: Option<RawSchedule>,
    /// Arithmetic of forward and backward passes; weights and optimiser are always fp32.
    #[schemars(extend("default" = "fp32"))]
    pub precision: Option<Precision>,
    /// Blocks keep only what they read and compute the rest again in the backward pass: less memory for more arithmetic.
    #[schemars(extend("default" = false))]
    pub activation_checkpointing: Option<bool>,
    /// On GPUs, what a micro-batch makes the GPU do is recorded the third time its shapes occur, and replayed from then on. Worth it where
    /// batches are so small that the processor cannot keep the GPU busy.
    #[schemars(extend("default" = false))]
    pub cuda_graphs: Option<bool>,
    /// Stage of ZeRO: 1 gives each rank its share of Adam's moments in place of all of them. A lost rank then costs the steps since
    /// the last checkpoint, and the job does not grow into slots that become free.
    #[schemars(range(min = 0, max = 1), extend("default" = 0))]
    pub zero: Option<u32>,
    /// How the ranks agree: what travels, how often and how exactly.
    pub sync: Option<RawSync>,
    /// Steps between evaluations. Default: `checkpoint.every`.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub evaluate_every: Option<u64>,
    /// Seeds weights, data order and dropout.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64), extend("default" = 42))]
    pub seed: Option<u64>,
}

/// How the ranks agree, for networks that are slow beside the step. The default adds up exact gradients at every step.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Sync")]
pub(crate) struct RawSync {
    /// Steps between agreements; above 1 the ranks train on their own in between (`DiLoCo`). Divides `checkpoint.every` and
    /// `train.evaluate_every`.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 1))]
    pub every: Option<u64>,
    /// With `every` above 1: the rate at which the mean of the ranks' ways is followed.
    #[schemars(range(max = 2), extend("exclusiveMinimum" = 0, "default" = 0.7))]
    pub outer_learning_rate: Option<f64>,
    /// With `every` above 1: its Nesterov momentum.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1, "default" = 0.9))]
    pub outer_momentum: Option<f64>,
    /// How gradients travel; they are added up in fp32.
    #[schemars(extend("default" = "fp32"))]
    pub precision: Option<Precision>,
    /// Rank of the factors that stand for gradient matrices (`PowerSGD`); 0 is off, 1 to 4 are usual.
    #[schemars(range(min = 0, max = 64), extend("default" = 0))]
    pub rank: Option<u32>,
    /// Steps before the factors replace the gradients; a tenth of all steps is usual.
    #[schemars(range(min = 0, max = 1_000_000_000), extend("default" = 0))]
    pub warmup: Option<u64>,
}

/// Coefficients of Adam.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Adam")]
pub(crate) struct RawAdam {
    /// Decay of the first moment.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1, "default" = 0.9))]
    pub beta1: Option<f64>,
    /// Decay of the second moment.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1, "default" = 0.999))]
    pub beta2: Option<f64>,
    /// Keeps the division finite.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0, "default" = 1e-8))]
    pub eps: Option<f64>,
    /// Weight decay apart from the gradients (`AdamW`); `false` adds it to them, biases and norms included, as PyTorch's Adam does.
    #[schemars(extend("default" = true))]
    pub decoupled: Option<bool>,
}

/// How the learning rate changes over the steps.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Schedule")]
pub(crate) struct RawSchedule {
    /// Shape after the warm-up.
    #[serde(rename = "type")]
    #[schemars(extend("default" = "linear"))]
    pub kind: Option<ScheduleKind>,
    /// Steps over which the rate rises from 0 to its peak.
    #[schemars(range(min = 0, max = 1_000_000_000), extend("default" = 0))]
    pub warmup: Option<u64>,
}

/// A slot is one GPU, or a CPU slot of a few threads.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Resources")]
pub(crate) struct RawResources {
    /// Slots that the job can use.
    #[schemars(range(min = 1, max = 256), extend("default" = 1))]
    pub slots: Option<u32>,
    /// Slots with which it may already run, or go on after a loss. Default: `slots`.
    #[schemars(range(min = 1, max = 256))]
    pub min_slots: Option<u32>,
    /// Larger goes first and may preempt smaller.
    #[schemars(range(min = 0, max = 100), extend("default" = 50))]
    pub priority: Option<u32>,
    /// Queue whose quota counts.
    #[schemars(extend("format" = "name", "default" = "default"))]
    pub queue: Option<String>,
}

/// When checkpoints are written, and which are kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Checkpoint")]
pub(crate) struct RawCheckpoint {
    /// Steps between checkpoints. The last step always gets one.
    #[schemars(range(min = 1, max = 1_000_000_000), extend("default" = 200))]
    pub every: Option<u64>,
    /// Which checkpoints survive; the union of both rules.
    pub keep: Option<RawKeep>,
    /// By which metric `best` is judged.
    pub metric: Option<RawMetric>,
    /// Where they are written. Default: the coordinator's store.
    #[schemars(extend("format" = "location"))]
    pub uri: Option<String>,
}

/// Which checkpoints survive.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Keep")]
pub(crate) struct RawKeep {
    /// The newest so many.
    #[schemars(range(min = 1, max = 1000), extend("default" = 2))]
    pub latest: Option<u32>,
    /// The best so many.
    #[schemars(range(min = 0, max = 1000), extend("default" = 1))]
    pub best: Option<u32>,
}

/// A metric and which way is up. Both or neither.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Metric")]
pub(crate) struct RawMetric {
    /// Such as `valid/score`, `valid/mae` or `valid/mosi/acc2_non0`.
    #[schemars(extend("format" = "metric"))]
    pub name: String,
    /// There is no default on purpose.
    pub goal: Goal,
}

/// What happens after a failure of the job itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Restart")]
pub(crate) struct RawRestart {
    /// Restarts before the job counts as failed.
    #[schemars(range(min = 0, max = 1000), extend("default" = 5))]
    pub max: Option<u32>,
    /// Pause before the first restart; it doubles each time.
    #[schemars(extend("format" = "duration", "default" = "5s"))]
    pub backoff: Option<String>,
}

/// How often metrics are reported.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Log")]
pub(crate) struct RawLog {
    /// Steps between reports of the training metrics.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 10))]
    pub every: Option<u64>,
    /// Steps that each rank records operator by operator, after its first ten, for `unimse trace`; 0 is off.
    #[schemars(range(min = 0, max = 1000), extend("default" = 0))]
    pub profile: Option<u64>,
}

/// Bounds after which the job is stopped.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Limits")]
pub(crate) struct RawLimits {
    /// Time that the job may run, waiting not counted, such as `24h`.
    #[schemars(extend("format" = "period"))]
    pub time: Option<String>,
}
