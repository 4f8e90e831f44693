//! `unimse logs JOB`.

use std::collections::VecDeque;

use futures::StreamExt;
use jiff::tz::TimeZone;
use serde_json::Value;
use unimse_proto::client::{Client, LogEntry};

use crate::args::{LogFormat, LogsArgs};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::follow::{self, LogRequest, LogsTo, Request};
use crate::{output, render};

pub(crate) async fn run(context: &Context, args: LogsArgs) -> Result<Exit> {
    if args.follow && args.output == LogFormat::Json {
        return Err(Error::Usage {
            message: "--follow never ends a JSON document".to_owned(),
            hint: "use -o jsonl, one JSON object a line".to_owned(),
        });
    }
    let client = context.client().await?;
    let job = client.job(&args.job).await?.job;
    let name = job.id.to_string();

    let mut from = 0;
    if !args.follow || args.tail.is_some() {
        let entries = present(&client, &name, &args).await?;
        from = entries.last().map_or(0, |entry| entry.offset + 1);
        if entries.is_empty() && !args.follow && args.output == LogFormat::Text {
            context.say(&format!("{name} has logged nothing yet ({}): unimse explain {name}", job.state));
        }
        print_all(&entries, args.output)?;
    }
    if !args.follow {
        return Ok(Exit::Done);
    }
    let to = if args.output == LogFormat::Jsonl { LogsTo::StdoutJson } else { LogsTo::Stdout };
    let request = Request {
        jobs: vec![job.id],
        logs: Some(LogRequest { rank: args.rank, from, to }),
        timeout: None,
        reattach: "logs -f",
    };
    let jobs = follow::run(context, &client, request).await?;
    follow::tell_endings(context, &jobs);
    Ok(follow::outcome(&jobs))
}

/// Reads what is there, or the end of it.
async fn present(client: &Client, name: &str, args: &LogsArgs) -> Result<Vec<LogEntry>> {
    let mut stream = client.logs(name, args.rank, 0, false).await?;
    let mut kept = VecDeque::new();
    while let Some(entry) = stream.next().await {
        kept.push_back(entry?);
        if args.tail.is_some_and(|tail| kept.len() > tail) {
            kept.pop_front();
        }
    }
    Ok(kept.into())
}

fn print_all(entries: &[LogEntry], format: LogFormat) -> Result<()> {
    let zone = TimeZone::system();
    match format {
        LogFormat::Text => {
            let lines = entries.iter().map(|entry| render::log::line(entry, &zone) + "\n");
            output::print(&lines.collect::<String>())
        }
        LogFormat::Jsonl => output::print(&entries.iter().map(render::log::json_line).collect::<String>()),
        LogFormat::Json => {
            let object = |entry: &LogEntry| render::log::parts(entry).map(|(name, value)| (name.to_owned(), value));
            let lines = entries.iter().map(|entry| Value::Object(object(entry).into_iter().collect()));
            output::print(&output::document(&[("lines", lines.collect())]))
        }
    }
}
