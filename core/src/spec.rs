//! Job and sweep files: text in, a valid specification or a list of mistakes out.
//!
//! Stages: size cap, YAML with places (`yaml`), types and ranges by the same JSON Schema that editors use (`check`), then
//! defaults and what only shows across fields (`resolve`). All mistakes of a stage are reported at once, each with a code, its
//! line, a caret and what to do. What comes out is valid by construction: nobody behind this module checks a specification again.

mod canonical;
mod check;
mod duration;
mod format;
mod job;
mod json;
mod node;
mod raw;
mod raw_sweep;
mod resolve;
mod schema;
mod set;
mod sweep;
#[cfg(test)]
mod tests;
mod yaml;

pub use job::{
    AdamSpec, AnswerWay, CheckpointName, CheckpointSpec, ContextSpec, ContrastiveSpec, DataSource, DataSpec,
    EncoderSpec, FusionInit, FusionSpec, HeadSpec, JobSpec, KeepSpec, LimitSpec, LogSpec, LoraSpec, MetricSpec,
    ModelSource, ModelSpec, Pick, Precision, Preset, ResourceSpec, RestartSpec, Resume, ScheduleKind, ScheduleSpec,
    SyncSpec, TrainLength, TrainSpec, Trainable,
};
pub use schema::{schema_job, schema_sweep};
pub use sweep::{JobFile, parse_sweep};

use crate::diagnostic::Diagnostics;

use node::Document;

/// Parses and checks a job file; `source_name` is what messages call it.
pub fn parse_job(text: &str, source_name: &str) -> Result<JobSpec, Diagnostics> {
    parse_job_with(text, source_name, &[])
}

/// Parses a job file with arguments of `--set path=value` applied to it, in order.
pub fn parse_job_with(text: &str, source_name: &str, sets: &[String]) -> Result<JobSpec, Diagnostics> {
    let document = yaml::parse(text, source_name)?;
    with_sets(document, sets)
}

/// Changes a job that is valid already, as `resume --set` does. Defaults were filled in when it was submitted and stay as they are.
pub fn apply_sets(job: &JobSpec, sets: &[String]) -> Result<JobSpec, Diagnostics> {
    let value = serde_json::to_value(job).map_err(|error| {
        crate::diagnostic::Diagnostic::new(
            crate::diagnostic::Code::WrongType,
            format!("the stored job cannot be written: {error}"),
        )
    })?;
    with_sets(Document::from_value(&value), sets)
}

fn with_sets(mut document: Document, sets: &[String]) -> Result<JobSpec, Diagnostics> {
    let found = sets.iter().filter_map(|argument| set::apply(&mut document, argument).err()).flatten().collect();
    Diagnostics::check(found)?;
    canonical::validate(&document)
}
