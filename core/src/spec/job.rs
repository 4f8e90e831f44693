//! A valid job: every default filled in, every value in its range, every contradiction refused.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{JobId, Step};
use crate::metrics::Goal;

/// All that a job is told by the person who submits it.
///
/// Its JSON form is itself a job file with every default spelled out: it reads back as the same value, and reading validates, so
/// that a specification from an untrusted client is safe to use.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct JobSpec {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub model: ModelSpec,
    pub data: DataSpec,
    pub train: TrainSpec,
    pub resources: ResourceSpec,
    pub checkpoint: CheckpointSpec,
    pub resume: Resume,
    pub restart: RestartSpec,
    pub log: LogSpec,
    pub limits: LimitSpec,
}

/// The model to train.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    pub source: ModelSource,
    pub encoders: EncoderSpec,
    pub fusion: FusionSpec,
    pub contrastive: ContrastiveSpec,
    pub heads: HeadSpec,
    pub answers: AnswerWay,
    pub trainable: Trainable,
    pub lora: LoraSpec,
}

/// Where the T5 comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// Random weights of this size.
    Preset(Preset),
    /// Path or URI of a Hugging Face T5 directory.
    Init(String),
}

/// Sizes of a T5 with random weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// A few hundred thousand weights; trains on a laptop in a minute.
    Tiny,
    /// As T5-small.
    Small,
    /// As T5-base, the size of the paper.
    Base,
    /// As T5-large.
    Large,
}

/// Weights of the losses of the heads beside the generator; 0 means that there is no such head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadSpec {
    pub score: f64,
    pub emotion: f64,
}

/// How a model answers when it is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AnswerWay {
    /// The label string that greedy decoding writes.
    Decoded,
    /// As decoded, but for the score: the mean of all scores, weighted with their probabilities.
    Expected,
    /// What the heads say.
    Heads,
}

/// Which parameters learn. Frozen ones have no gradients and no optimiser state, and are not communicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Trainable {
    /// Every parameter.
    All,
    /// What is added to T5, and its last two blocks on both sides, as the paper's authors do.
    Paper,
    /// Only what is added to T5: fusion, encoders, contrastive projections, low-rank updates.
    Adapters,
}

/// Low-rank updates of the attention's query and value projections; rank 0 means none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraSpec {
    pub rank: u32,
    pub alpha: f64,
}

/// Widths of the acoustic and the visual LSTM; 0 leaves the modality out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderSpec {
    pub acoustic: u32,
    pub visual: u32,
    pub bidirectional: bool,
}

/// Fusion adapters in the last `layers` blocks of encoder and decoder; 0 means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FusionSpec {
    pub layers: u32,
    pub bottleneck: u32,
    pub init: FusionInit,
}

/// How a fusion layer starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FusionInit {
    /// The layer returns its input.
    Identity,
    /// Random weights, as in the official code.
    Paper,
}

/// Weights of the contrastive losses (0 is off) and their temperature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContrastiveSpec {
    pub acoustic: f64,
    pub visual: f64,
    pub temperature: f64,
    /// The encoder's last blocks that take part, at most all.
    pub layers: u32,
    /// Negatives come from the whole global batch, else from the sample's micro-batch.
    pub global: bool,
    /// The official code's losses instead of the paper's.
    pub legacy: bool,
}

/// Datasets, and how their text becomes tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSpec {
    /// At least one; their training samples are concatenated in this order.
    pub train: Vec<DataSource>,
    /// May be empty: then nothing is evaluated. The weight is always 1.
    pub valid: Vec<DataSource>,
    /// A tokenizer.json or spiece.model; without it that of `model.init`, or one learned from the training text.
    pub tokenizer: Option<String>,
    /// Size of a learned vocabulary.
    pub vocab_size: u32,
    pub max_input_tokens: u32,
    /// Features are scaled by the training frames' mean and deviation.
    pub standardise: bool,
    pub context: ContextSpec,
}

/// A dataset by path or URI.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSource {
    pub path: String,
    /// Weight of its samples in the loss.
    pub weight: f64,
}

/// Neighbouring utterances of a dialogue that the model sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextSpec {
    pub past: u32,
    pub future: u32,
}

/// The optimisation; nothing here depends on the world size, but for [`SyncSpec::every`].
#[derive(Clone, Debug, PartialEq)]
pub struct TrainSpec {
    pub length: TrainLength,
    /// Samples of one optimiser step.
    pub global_batch: u32,
    /// Samples of one logical micro-shard; divides `global_batch`.
    pub micro_batch: u32,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Peak learning rate of what is added to T5; without it, that of everything else.
    pub adapter_learning_rate: Option<f64>,
    pub weight_decay: f64,
    /// Bound of the gradient's global norm; 0 is off.
    pub clip: f64,
    /// Overrides the dropout of the T5 configuration.
    pub dropout: Option<f64>,
    pub adam: AdamSpec,
    pub schedule: ScheduleSpec,
    pub precision: Precision,
    /// Blocks compute again in the backward pass what they would else keep.
    pub activation_checkpointing: bool,
    /// GPUs replay recordings of micro-batches of the same shapes.
    pub cuda_graphs: bool,
    /// Stage of ZeRO (Rajbhandari et al. 2020): 0, or 1, where each rank keeps its share of the optimiser's moments only. A lost rank
    /// then costs the steps since the last checkpoint.
    pub zero: u32,
    pub sync: SyncSpec,
    /// Steps between evaluations.
    pub evaluate_every: u64,
    pub seed: u64,
}

/// How long a job trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainLength {
    /// Optimiser steps.
    Steps(u64),
    /// Passes over the training data.
    Epochs(u64),
}

/// Coefficients of Adam.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamSpec {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Weight decay acts on the weights, as in `AdamW`; else it is added to the gradients of all of them.
    pub decoupled: bool,
}

/// How the learning rate changes over the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleSpec {
    pub kind: ScheduleKind,
    /// Steps over which the rate rises from 0 to its peak.
    pub warmup: u64,
}

impl ScheduleSpec {
    /// The factor of the peak learning rate for the update that makes step `step` (from 1) of `total`.
    ///
    /// As in Hugging Face's schedules, counted so that the first update already has a rate above 0 and the last one too.
    pub fn factor(self, step: Step, total: u64) -> f64 {
        let done = step.0.saturating_sub(1);
        if done < self.warmup {
            return (done + 1) as f64 / (self.warmup + 1) as f64;
        }
        let rest = total.saturating_sub(self.warmup).max(1) as f64;
        let progress = ((done - self.warmup) as f64 / rest).min(1.0);
        match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Linear => 1.0 - progress,
            ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        }
    }
}

/// The shape after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Falls evenly to 0 at the last step.
    Linear,
    /// Stays at its peak.
    Constant,
    /// Falls along half a cosine to 0 at the last step.
    Cosine,
}

/// Arithmetic of forward and backward passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    Fp32,
    /// bfloat16 where it is safe, 32-bit floats elsewhere.
    Bf16,
}

/// How the ranks agree, which is what a slow network limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SyncSpec {
    /// Steps between agreements. Above 1 each rank takes steps of its own in between (`DiLoCo`, Douillard et al. 2023), and the
    /// result depends on the world size.
    pub every: u64,
    /// The rate at which the mean of the ranks' ways is followed, for `every` above 1.
    pub outer_learning_rate: f64,
    /// Nesterov momentum of that.
    pub outer_momentum: f64,
    /// How gradients (or ways) travel; they are added up in 32 bits.
    pub precision: Precision,
    /// Rank of the factors that stand for gradient matrices (`PowerSGD`, Vogels et al. 2019); 0 sends the gradients themselves.
    pub rank: u32,
    /// Steps before that begins.
    pub warmup: u64,
}

impl SyncSpec {
    /// Whether all ranks hold the same numbers after this step of `total`.
    pub fn agrees_after(&self, step: Step, total: u64) -> bool {
        step.0.is_multiple_of(self.every) || step.0 >= total
    }
}

impl Default for SyncSpec {
    /// Gradients are added up as they are, at every step.
    fn default() -> Self {
        Self { every: 1, outer_learning_rate: 0.7, outer_momentum: 0.9, precision: Precision::Fp32, rank: 0, warmup: 0 }
    }
}

/// What a job needs from the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceSpec {
    /// Slots it can use, at most 256.
    pub slots: u32,
    /// Slots with which it may run; at most `slots`.
    pub min_slots: u32,
    /// 0 to 100, larger goes first.
    pub priority: u32,
    pub queue: String,
}

/// When checkpoints are written, and which are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointSpec {
    /// Steps between checkpoints; the last step always gets one.
    pub every: u64,
    pub keep: KeepSpec,
    /// By which `best` is judged.
    pub metric: MetricSpec,
    /// Where they are written; without it, the coordinator's store.
    pub uri: Option<String>,
}

/// How many checkpoints survive; the union of both rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepSpec {
    /// At least 1.
    pub latest: u32,
    pub best: u32,
}

/// A metric and which way is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricSpec {
    pub name: String,
    pub goal: Goal,
}

/// Where training begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The job's own newest checkpoint, if there is one.
    Auto,
    /// From the beginning, whatever there is.
    Never,
    /// A checkpoint of a job that the coordinator knows.
    Checkpoint(CheckpointName),
    /// A path or URI of a checkpoint.
    Location(String),
}

/// A checkpoint as people name it: `j-7k2m:best`, `j-7k2m:latest` (or just `j-7k2m`), `j-7k2m:12400`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CheckpointName {
    pub job: JobId,
    pub pick: Pick,
}

/// Which checkpoint of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pick {
    /// The best by the job's metric.
    Best,
    /// The newest.
    Latest,
    /// The one of this step.
    At(Step),
}

impl FromStr for CheckpointName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (job, pick) = text.split_once(':').unwrap_or((text, "latest"));
        let job = job.parse().map_err(|error| format!("{error}"))?;
        let pick = match pick {
            "best" => Pick::Best,
            "latest" => Pick::Latest,
            step => Pick::At(step.parse().map_err(|_| format!("`{step}` is neither `best`, `latest` nor a step"))?),
        };
        Ok(Self { job, pick })
    }
}

impl fmt::Display for CheckpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pick {
            Pick::Best => write!(f, "{}:best", self.job),
            Pick::Latest => write!(f, "{}:latest", self.job),
            Pick::At(step) => write!(f, "{}:{step}", self.job),
        }
    }
}

impl fmt::Display for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Never => f.write_str("never"),
            Self::Checkpoint(name) => name.fmt(f),
            Self::Location(location) => f.write_str(location),
        }
    }
}

/// What happens after a failure of the job itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartSpec {
    /// Restarts before the job counts as failed; a lost worker does not count.
    pub max: u32,
    /// Pause before the first restart; it doubles each time.
    pub backoff: Duration,
}

/// How often metrics are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSpec {
    /// Steps between reports of the training metrics.
    pub every: u64,
    /// Steps that each rank records in detail, after its first ten.
    pub profile: u64,
}

/// Bounds after which the job is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitSpec {
    /// Time that the job may run, waiting not counted.
    pub time: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_update_of_a_schedule_has_a_rate_above_zero() {
        for kind in [ScheduleKind::Linear, ScheduleKind::Constant, ScheduleKind::Cosine] {
            let schedule = ScheduleSpec { kind, warmup: 10 };
            let factors: Vec<f64> = (1..=100).map(|step| schedule.factor(Step(step), 100)).collect();
            assert!(factors.iter().all(|factor| *factor > 0.0 && *factor <= 1.0), "{kind:?}");
            assert!(factors[..10].is_sorted(), "{kind:?} warms up");
            assert_eq!(factors[10], 1.0, "{kind:?} reaches its peak after the warm-up");
            assert!(factors[10..].iter().rev().is_sorted(), "{kind:?} never rises again");
        }
        let linear = ScheduleSpec { kind: ScheduleKind::Linear, warmup: 0 };
        assert_eq!(linear.factor(Step(1), 4), 1.0);
        assert_eq!(linear.factor(Step(4), 4), 0.25);
        assert_eq!(linear.factor(Step(5), 4), 0.0);
    }

    #[test]
    fn checkpoints_are_named_by_job_and_pick() {
        let job = JobId(3);
        for pick in [Pick::Best, Pick::Latest, Pick::At(Step(12_400))] {
            let name = CheckpointName { job, pick };
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        assert_eq!(job.to_string().parse(), Ok(CheckpointName { job, pick: Pick::Latest }));
        for text in ["best", "x:best", &format!("{job}:newest"), &format!("{job}:-1")] {
            assert!(text.parse::<CheckpointName>().is_err(), "{text}");
        }
    }
}
