//! The sweep file exactly as people write it; see [`super::raw`] for what these types are used for.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::raw::{RawJobSpec, RawMetric};
use crate::sweep::{MAX_TRIALS, Scale};

/// A hyper-parameter sweep over a job.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "unimse sweep")]
pub(crate) struct RawSweepSpec {
    /// Shown everywhere; trial 7 is the job `<name>-7`.
    #[schemars(extend("format" = "sweep-name"))]
    pub name: String,
    /// The job to vary: a job file, relative to this one, or the job itself.
    pub job: RawJobRef,
    /// How parameters are chosen.
    pub method: RawMethod,
    /// What is optimised.
    pub metric: RawMetric,
    /// What is varied: fields of the job by dotted path.
    #[serde(default)]
    pub parameters: BTreeMap<String, RawParameter>,
    /// Named sets of fields that change together, as in an ablation. Each is tried with every point of `parameters`.
    #[schemars(length(min = 1, max = 1000))]
    pub variants: Option<Vec<RawVariant>>,
    /// Stops trials that fall behind: `asha`, or a mapping with its settings.
    pub early_stop: Option<RawEarlyStop>,
    /// Trials in all. Required for `random`; a grid has as many as it has points.
    #[schemars(range(min = 1, max = MAX_TRIALS))]
    pub max_trials: Option<u32>,
    /// Trials that run at the same time.
    #[schemars(range(min = 1, max = 256), extend("default" = 4))]
    pub parallel: Option<u32>,
    /// Seeds the choice of parameters. Each trial's parameters depend on this and its number alone.
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64), extend("default" = 0))]
    pub seed: Option<u64>,
    /// What happens when trials fail.
    pub on_failure: Option<RawFailure>,
}

/// How parameters are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Method")]
pub(crate) enum RawMethod {
    /// Every combination.
    Grid,
    /// Independent draws.
    Random,
    /// Tree-structured Parzen estimator; not there yet.
    Tpe,
    /// Population-based training; not there yet.
    Pbt,
}

/// One way of the job.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Variant")]
pub(crate) struct RawVariant {
    /// Shown in tables, such as `without sound`.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Fields of the job by dotted path; nothing for the job as it is.
    #[serde(default)]
    pub set: BTreeMap<String, Value>,
}

/// A list of `values`, or a range from `min` to `max`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Parameter")]
pub(crate) struct RawParameter {
    /// The values to try.
    #[schemars(length(min = 1, max = MAX_TRIALS))]
    pub values: Option<Vec<Value>>,
    /// Smallest value.
    pub min: Option<f64>,
    /// Largest value.
    pub max: Option<f64>,
    /// `log` when the order of magnitude matters, as for learning rates.
    #[schemars(extend("default" = "lin"))]
    pub scale: Option<Scale>,
    /// Distance between neighbouring values. Default for whole numbers: 1.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub step: Option<f64>,
}

/// Settings of an early stop.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "EarlyStopSettings")]
pub(crate) struct RawStopper {
    /// Which one.
    #[serde(rename = "type")]
    pub kind: RawStopKind,
    /// Step of the first rung. Default: the job's `train.evaluate_every`.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_steps: Option<u64>,
    /// One in so many is promoted, and each rung has so many times the steps of the one before.
    #[schemars(range(min = 2, max = 100), extend("default" = 3))]
    pub factor: Option<u32>,
    /// No rung at or beyond this step. Default: the job's `train.max_steps`.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_steps: Option<u64>,
}

/// Which early stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "EarlyStopType")]
pub(crate) enum RawStopKind {
    /// Successive halving without barriers.
    Asha,
    /// Not there yet.
    Hyperband,
    /// Not there yet.
    Median,
}

/// What happens when trials fail.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "OnFailure")]
pub(crate) struct RawFailure {
    /// How often a failed trial is tried again.
    #[schemars(range(min = 0, max = 100), extend("default" = 1))]
    pub retry: Option<u32>,
    /// The sweep fails when more trials than this have failed for good. Default: only when all have.
    #[schemars(range(min = 0, max = MAX_TRIALS))]
    pub max_failed: Option<u32>,
}

/// A job by file or in place. It is checked as part of the tree, so here it stays plain JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct RawJobRef(pub Value);

impl JsonSchema for RawJobRef {
    fn schema_name() -> Cow<'static, str> {
        "JobRef".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let job = generator.subschema_for::<RawJobSpec>();
        json_schema!({"anyOf": [{"type": "string", "format": "location"}, job]})
    }
}

/// A bare word or a mapping; written by hand because serde's untagged enums lose the place of a mistake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawEarlyStop(pub RawStopper);

impl JsonSchema for RawEarlyStop {
    fn schema_name() -> Cow<'static, str> {
        "EarlyStop".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let word = generator.subschema_for::<RawStopKind>();
        let settings = generator.subschema_for::<RawStopper>();
        json_schema!({"anyOf": [word, settings]})
    }
}

impl<'de> Deserialize<'de> for RawEarlyStop {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let value = if value.is_string() { serde_json::json!({"type": value}) } else { value };
        serde_json::from_value(value).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for RawEarlyStop {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
