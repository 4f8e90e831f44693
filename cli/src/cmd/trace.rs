//! `unimse trace`: the profiles of a job's ranks as one file for Perfetto.

use std::path::Path;

use serde_json::{Value, json};
use unimse_checkpoint::TraceKey;

use crate::args::{Format, TraceArgs};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output;
use crate::render::amount::count;

pub(crate) async fn run(context: &Context, args: TraceArgs) -> Result<Exit> {
    let client = context.client().await?;
    let detail = client.job(&args.job).await?;
    let id = detail.job.id;
    let own = detail.spec.pointer("/checkpoint/uri").and_then(Value::as_str).map(str::to_owned);
    let Some(place) = own.or_else(|| detail.checkpoints.first().map(|checkpoint| checkpoint.uri.clone())) else {
        return Err(Error::NotFound {
            message: format!("{id} has no checkpoint, so it is not known where its profiles are"),
            hint: "profiles lie beside the checkpoints; ask again when the first one is there".to_owned(),
        });
    };
    let mut traces = context.store(&place)?.traces(id).await?;
    // Generations have different ranks in different places: together they would be confusing.
    let newest = traces.iter().map(|(key, _)| key.generation).max();
    traces.retain(|(key, _)| Some(key.generation) == newest);
    if traces.is_empty() {
        return Err(Error::NotFound {
            message: format!("{id} has no profile"),
            hint: "submit it with `--set log.profile=5`: each rank then records five steps after its first ten"
                .to_owned(),
        });
    }
    let ranks = traces.len();
    let merged = merge(traces)?;
    let events = merged["traceEvents"].as_array().map_or(0, Vec::len);
    std::fs::write(&args.file, merged.to_string()).map_err(|error| Error::file("write", &args.file, error))?;
    report(context, &args, &args.file, ranks, events)
}

fn report(context: &Context, args: &TraceArgs, file: &Path, ranks: usize, events: usize) -> Result<Exit> {
    match args.output.format {
        Format::Json => output::print(&output::document(&[
            ("file", file.display().to_string().into()),
            ("ranks", ranks.into()),
            ("events", events.into()),
        ]))?,
        Format::Table => {
            output::print(&file.display().to_string())?;
            let (ranks, events) = (count(ranks as u64, "rank"), count(events as u64, "event"));
            context.say(&format!("{events} of {ranks}; open it in https://ui.perfetto.dev or chrome://tracing"));
        }
    }
    Ok(Exit::Done)
}

/// Puts the events of all ranks into one list; each rank is a process of its own in them.
fn merge(traces: Vec<(TraceKey, bytes::Bytes)>) -> Result<Value> {
    let mut events = Vec::new();
    for (key, file) in traces {
        let mut trace: Value = serde_json::from_slice(&file).map_err(|error| Error::Failed {
            message: format!("the profile {key} is damaged: {error}"),
            hint: "take another one".to_owned(),
        })?;
        if let Some(list) = trace.get_mut("traceEvents").and_then(Value::as_array_mut) {
            events.append(list);
        }
    }
    Ok(json!({"traceEvents": events, "displayTimeUnit": "ms"}))
}

#[cfg(test)]
mod tests {
    use unimse_core::id::{Generation, JobId, Rank};

    use super::*;

    #[test]
    fn events_of_all_ranks_come_together_and_damage_is_named() {
        let key = |rank| TraceKey { job: JobId(5), generation: Generation(1), rank: Rank(rank) };
        let file = |pid: u32| bytes::Bytes::from(json!({"traceEvents": [{"pid": pid}]}).to_string());
        let merged = merge(vec![(key(0), file(0)), (key(1), file(1))]).expect("both are sound");
        assert_eq!(merged["traceEvents"], json!([{"pid": 0}, {"pid": 1}]));
        let error = merge(vec![(key(1), bytes::Bytes::from_static(b"{\"trace"))]).expect_err("cut off");
        assert!(error.to_string().contains("rank001"), "{error}");
    }
}
