//! `unimse submit FILE`.

use std::time::Duration;

use serde_json::json;
use unimse_core::id::JobId;
use unimse_core::spec::{JobSpec, parse_job_with};
use unimse_proto::Error as RemoteError;
use unimse_proto::client::Client;
use uuid::Uuid;

use super::validate::describe_job;
use crate::args::{SubmitArgs, SubmitFormat};
use crate::context::{self, Context};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::follow::{self, LogRequest, LogsTo, Request};
use crate::render::amount::count;
use crate::{input, output, render};

/// Tries to hand in a job while the coordinator is being restarted, and the time between two.
const TRIES: u32 = 10;
const BETWEEN: Duration = Duration::from_millis(500);

pub(crate) async fn run(context: &Context, args: SubmitArgs) -> Result<Exit> {
    let mut sets = args.sets.clone();
    if let Some(name) = &args.name {
        // Quoted, so that a name of digits stays a name.
        sets.push(format!("name={}", json!(name)));
    }
    let spec = parse_job_with(&input::read(&args.file)?, &input::source_name(&args.file), &sets)?;
    if args.dry_run {
        return dry_run(context, &spec, args.output).await;
    }
    let client = context.client().await?;
    // A key of our own makes it safe to ask again when the answer was lost.
    let key = args.key.clone().unwrap_or_else(|| format!("cli-{}", Uuid::new_v4()));
    let (job, new) = submit(&client, &key, &spec).await?;
    tell(context, &client, job, new, &spec, &args).await?;
    if !args.follow {
        return Ok(Exit::Done);
    }
    let logs = LogRequest { rank: None, from: 0, to: LogsTo::Stderr };
    let request = Request { jobs: vec![job], logs: Some(logs), timeout: None, reattach: "logs -f" };
    let jobs = follow::run(context, &client, request).await?;
    follow::tell_endings(context, &jobs);
    Ok(follow::outcome(&jobs))
}

/// Hands in a job; an answer that is lost is asked for again under the same key.
async fn submit(client: &Client, key: &str, spec: &JobSpec) -> Result<(JobId, bool), RemoteError> {
    let mut tries = 1;
    loop {
        match client.submit(Some(key.to_owned()), spec).await {
            Err(RemoteError::Unreachable { .. } | RemoteError::Unavailable { .. }) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(BETWEEN).await;
            }
            outcome => return outcome,
        }
    }
}

async fn tell(
    context: &Context,
    client: &Client,
    job: JobId,
    new: bool,
    spec: &JobSpec,
    args: &SubmitArgs,
) -> Result<()> {
    match args.output {
        SubmitFormat::Name => output::print(&job.to_string())?,
        SubmitFormat::Json => {
            let view = client.job(&job.to_string()).await?.job;
            output::print(&output::document(&[("new", new.into()), ("job", output::value(&view))]))?;
        }
        SubmitFormat::Table => {
            let view = client.job(&job.to_string()).await?.job;
            output::print(&render::job::list(&[view], context::now()).render(context.terminal.width))?;
        }
    }
    if new {
        let resources = &spec.resources;
        let least = if resources.min_slots < resources.slots {
            format!(", at least {}", resources.min_slots)
        } else {
            String::new()
        };
        context.say(&format!("submitted {} ({}{least})", spec.name, count(u64::from(resources.slots), "slot")));
    } else {
        context.say(&format!("{job} was submitted before with this key; nothing new was started"));
    }
    if !args.follow {
        let url = &context.settings.coordinator;
        context.say(&format!("  follow it: unimse logs -f {job}    in a browser: {url}/jobs/{job}"));
    }
    Ok(())
}

/// Says what would happen: whether the file is valid, and whether this cluster could ever run it.
async fn dry_run(context: &Context, spec: &JobSpec, format: SubmitFormat) -> Result<Exit> {
    let cluster = match context.client().await {
        Ok(client) => Some(client.info().await?),
        Err(Error::Remote(RemoteError::Unreachable { .. })) => None,
        Err(error) => return Err(error),
    };
    if format == SubmitFormat::Json {
        let slots = cluster.as_ref().map(|info| json!({ "total": info.slots_total, "used": info.slots_used }));
        output::print(&output::document(&[
            ("dry_run", true.into()),
            ("spec", serde_json::to_value(spec).expect("a specification is plain data")),
            ("cluster_slots", slots.into()),
        ]))?;
    } else {
        context.say(&describe_job(spec));
    }
    let Some(info) = cluster else {
        context.say("not checked against a cluster: no coordinator answers");
        return Ok(Exit::Done);
    };
    let uri = spec.checkpoint.uri.as_deref().unwrap_or(&info.checkpoint_uri);
    context.say(&format!("  checkpoints: {uri}"));
    let free = info.slots_total.saturating_sub(info.slots_used);
    let least = spec.resources.min_slots;
    if info.slots_total < least {
        return Err(Error::NotAllowed {
            message: format!(
                "it needs {} at least, this cluster has {}",
                count(u64::from(least), "slot"),
                info.slots_total
            ),
            hint: "add workers, or lower resources.min_slots; submitted now, it would wait until there are enough"
                .to_owned(),
        });
    }
    let start = if free >= least { "it would start at once" } else { "it would wait for slots" };
    context.say(&format!("  slots: {free} of {} are free: {start}", info.slots_total));
    context.say("nothing was submitted");
    Ok(Exit::Done)
}
