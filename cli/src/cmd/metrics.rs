//! `unimse metrics JOB [NAME...]`.

use std::fmt::Write;

use serde_json::Value;
use unimse_core::id::Step;
use unimse_proto::client::MetricPoint;

use crate::args::{MetricsArgs, MetricsFormat};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output;
use crate::render::metric::{by_step, csv, last, newest};
use crate::render::time::rfc3339;

pub(crate) async fn run(context: &Context, args: MetricsArgs) -> Result<Exit> {
    let client = context.client().await?;
    if args.digests {
        return digests(&client.digests(&args.job).await?, args.output);
    }
    let mut points = client.metrics(&args.job, &args.names, Step(0)).await?;
    if points.is_empty() {
        return none(context, &client.metrics(&args.job, &[], Step(0)).await?, &args);
    }
    if let Some(count) = args.last {
        points = last(&points, count);
    }
    output::print(&match args.output {
        MetricsFormat::Table if args.names.is_empty() && args.last.is_none() => {
            newest(&points).render(context.terminal.width)
        }
        MetricsFormat::Table => by_step(&points).render(context.terminal.width),
        MetricsFormat::Csv => csv(&points),
        MetricsFormat::Jsonl => points.iter().map(|point| output::line(&parts(point))).collect(),
        MetricsFormat::Json => {
            let object =
                |point| Value::Object(parts(point).map(|(name, value)| (name.to_owned(), value)).into_iter().collect());
            output::document(&[("points", points.iter().map(object).collect())])
        }
    })?;
    Ok(Exit::Done)
}

/// One line a step.
fn digests(list: &[(Step, String)], format: MetricsFormat) -> Result<Exit> {
    let row = |(step, digest): &(Step, String)| [("step", step.0.into()), ("digest", digest.as_str().into())];
    let text = |between: &str| {
        list.iter().fold(String::new(), |mut text, (step, digest)| {
            let _ = writeln!(text, "{step}{between}{digest}");
            text
        })
    };
    output::print(&match format {
        MetricsFormat::Table => text("  "),
        MetricsFormat::Csv => format!("step,digest\n{}", text(",")),
        MetricsFormat::Jsonl => list.iter().map(|one| output::line(&row(one))).collect(),
        MetricsFormat::Json => {
            let object = |one| {
                Value::Object(
                    row(one).map(|(name, value): (&str, Value)| (name.to_owned(), value)).into_iter().collect(),
                )
            };
            output::document(&[("digests", list.iter().map(object).collect())])
        }
    })?;
    Ok(Exit::Done)
}

/// The fields of a point; what JSON has no number for is null.
fn parts(point: &MetricPoint) -> [(&'static str, Value); 5] {
    [
        ("name", point.name.clone().into()),
        ("step", point.step.0.into()),
        ("value", point.value.into()),
        ("generation", point.generation.0.into()),
        ("at", rfc3339(point.at).into()),
    ]
}

/// Nothing matched: an answer when nothing was asked for by name, else a mistake.
fn none(context: &Context, all: &[MetricPoint], args: &MetricsArgs) -> Result<Exit> {
    if args.names.is_empty() {
        match args.output {
            MetricsFormat::Table => context.say(&format!("{} has reported no metrics yet", args.job)),
            MetricsFormat::Csv => output::print(&csv(&[]))?,
            MetricsFormat::Jsonl => {}
            MetricsFormat::Json => output::print(&output::document(&[("points", Value::Array(Vec::new()))]))?,
        }
        return Ok(Exit::Done);
    }
    let mut names: Vec<&str> = all.iter().map(|point| point.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let hint = if names.is_empty() {
        "it has reported none yet".to_owned()
    } else {
        format!("there are {}", names.join(", "))
    };
    Err(Error::NotFound { message: format!("{} has no metric {}", args.job, args.names.join(", ")), hint })
}
