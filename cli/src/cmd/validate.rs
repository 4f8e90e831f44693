//! `unimse validate FILE...`: job and sweep files, without a coordinator.

use std::path::Path;

use serde_json::{Value, json};
use unimse_core::diagnostic::Diagnostics;
use unimse_core::spec::{self, JobFile, JobSpec};
use unimse_core::sweep::SweepSpec;

use crate::args::{Format, SchemaKind, ValidateArgs};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::render::amount::count;
use crate::{input, output, render};

pub(crate) fn run(context: &Context, args: &ValidateArgs) -> Result<Exit> {
    let mut exit = Exit::Done;
    let mut documents = Vec::new();
    for path in &args.files {
        let checked = check(path, args.kind);
        let file = input::source_name(path);
        match (&checked.outcome, args.output.format) {
            (Ok(summary), Format::Table) => output::print(&format!("{file}: {summary}"))?,
            (Err(error), Format::Table) => {
                if let Some(text) = error.report() {
                    output::say(&render::paint_error(&text));
                }
            }
            (outcome, Format::Json) => documents.push(document(&file, checked.kind, outcome)),
        }
        if let Err(error) = &checked.outcome
            && exit == Exit::Done
        {
            exit = error.exit();
        }
    }
    if args.output.format == Format::Json {
        output::print(&output::document(&[("files", documents.into())]))?;
    } else if exit != Exit::Done && args.files.len() > 1 {
        context.say("error: not all files are valid");
    }
    Ok(exit)
}

struct Checked {
    kind: Option<SchemaKind>,
    /// What the file describes, in a line.
    outcome: Result<String>,
}

fn check(path: &Path, kind: Option<SchemaKind>) -> Checked {
    let text = match input::read(path) {
        Ok(text) => text,
        Err(error) => return Checked { kind, outcome: Err(error) },
    };
    let kind = kind.unwrap_or_else(|| guess(&text));
    let name = input::source_name(path);
    let outcome = match kind {
        SchemaKind::Job => spec::parse_job(&text, &name).map(|job| describe_job(&job)).map_err(Error::from),
        SchemaKind::Sweep => parse_sweep(path, &text).map(|sweep| describe_sweep(&sweep)),
    };
    Checked { kind: Some(kind), outcome }
}

/// Reads a sweep, with the job file that it names beside it.
pub(crate) fn parse_sweep(path: &Path, text: &str) -> Result<SweepSpec> {
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let mut resolve = |name: &str| {
        let path = folder.join(name);
        let text = input::read(&path).map_err(|error| error.to_string())?;
        Ok(JobFile { name: path.display().to_string(), text })
    };
    Ok(spec::parse_sweep(text, &input::source_name(path), &mut resolve)?)
}

/// Takes a file for a sweep when a field is at its top that only sweeps have.
fn guess(text: &str) -> SchemaKind {
    let only_sweeps = ["parameters", "method", "max_trials", "job"];
    let is_sweep = text.lines().any(|line| {
        let key = line.split(':').next().filter(|_| line.contains(':')).unwrap_or_default();
        // At the top of a YAML mapping, or, one level in, of a JSON one.
        let key = key.trim_start_matches(['{', ' ']).trim().trim_matches(['"', '\'']);
        let top = !line.starts_with(' ') || line.trim_start().starts_with('"');
        top && only_sweeps.contains(&key)
    });
    if is_sweep { SchemaKind::Sweep } else { SchemaKind::Job }
}

/// Says in a line what a job would do.
pub(crate) fn describe_job(job: &JobSpec) -> String {
    let resources = &job.resources;
    let slots = if resources.min_slots == resources.slots {
        count(u64::from(resources.slots), "slot")
    } else {
        format!("{} to {} slots", resources.min_slots, resources.slots)
    };
    let length = match job.train.length {
        spec::TrainLength::Steps(steps) => count(steps, "step"),
        spec::TrainLength::Epochs(epochs) => count(epochs, "epoch"),
    };
    let data = count(job.data.train.len() as u64, "training set");
    format!("valid job {}: {length} of {} samples on {data}, {slots}", job.name, job.train.global_batch)
}

fn describe_sweep(sweep: &SweepSpec) -> String {
    let parameters = count(sweep.parameters.len() as u64, "parameter");
    format!(
        "valid sweep {}: {} by {} over {parameters}, {} at a time, {} {}",
        sweep.name,
        count(u64::from(sweep.trial_count()), "trial"),
        sweep.method,
        sweep.parallel,
        sweep.metric.goal,
        sweep.metric.name
    )
}

fn document(file: &str, kind: Option<SchemaKind>, outcome: &Result<String>) -> Value {
    let diagnostics = match outcome {
        Ok(_) => json!([]),
        Err(Error::Invalid(diagnostics)) => diagnostics_json(diagnostics),
        Err(other) => json!([{ "message": other.to_string() }]),
    };
    json!({ "file": file, "kind": kind.map(SchemaKind::as_str), "valid": outcome.is_ok(), "diagnostics": diagnostics })
}

fn diagnostics_json(diagnostics: &Diagnostics) -> Value {
    serde_json::to_value(diagnostics).expect("diagnostics are plain data")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_are_told_from_jobs_by_their_own_fields() {
        assert_eq!(guess("name: a\nmodel: {preset: tiny}\n"), SchemaKind::Job);
        assert_eq!(guess("name: a\njob: ./job.yaml\nmethod: grid\n"), SchemaKind::Sweep);
        assert_eq!(guess("{\n  \"name\": \"a\",\n  \"parameters\": {}\n}"), SchemaKind::Sweep);
        assert_eq!(guess("labels:\n  method: none\n"), SchemaKind::Job);
    }
}
