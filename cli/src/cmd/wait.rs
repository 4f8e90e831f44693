//! `unimse wait JOB...`.

use crate::args::{Format, WaitArgs};
use crate::context::Context;
use crate::error::Result;
use crate::exit::Exit;
use crate::follow::{self, Request};
use crate::output;

pub(crate) async fn run(context: &Context, args: WaitArgs) -> Result<Exit> {
    let client = context.client().await?;
    let mut ids = Vec::new();
    for name in &args.jobs {
        let id = client.job(name).await?.job.id;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let request = Request { jobs: ids, logs: None, timeout: args.timeout, reattach: "wait" };
    let jobs = follow::run(context, &client, request).await?;
    match args.output.format {
        Format::Json => output::print_json("jobs", &jobs)?,
        Format::Table => {
            let lines = jobs.iter().map(|job| format!("{} {}\n", job.id, job.state));
            output::print(&lines.collect::<String>())?;
        }
    }
    follow::tell_endings(context, &jobs);
    Ok(follow::outcome(&jobs))
}
