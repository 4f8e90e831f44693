//! `unimse ps`.

use std::time::Duration;

use unimse_core::view::JobView;
use unimse_proto::client::{Client, JobFilter};

use super::refresh;
use crate::args::{Format, PsArgs};
use crate::context::{self, Context};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output;
use crate::render::job::list;

/// How long an ended job stays in the list.
const RECENT: Duration = Duration::from_hours(24);

pub(crate) async fn run(context: &Context, args: PsArgs) -> Result<Exit> {
    let client = context.client().await?;
    if args.watch {
        if args.output.format == Format::Json {
            return Err(Error::Usage {
                message: "--watch keeps a table up to date, it cannot write JSON".to_owned(),
                hint: "leave out --watch, or follow one job with `unimse logs -f JOB -o jsonl`".to_owned(),
            });
        }
        return refresh::run(context, async || Ok(list(&jobs(&client, &args).await?.shown, context::now()))).await;
    }
    let Jobs { shown, hidden } = jobs(&client, &args).await?;
    match args.output.format {
        Format::Json => output::print_json("jobs", &shown)?,
        Format::Table if shown.is_empty() => {
            context.say(if hidden > 0 || !args.state.is_empty() {
                "no such jobs"
            } else {
                "no jobs yet: unimse submit JOB.yaml"
            });
        }
        Format::Table => output::print(&list(&shown, context::now()).render(context.terminal.width))?,
    }
    if hidden > 0 && args.output.format == Format::Table {
        let noun = if hidden == 1 { "job" } else { "jobs" };
        context.say(&format!("{hidden} {noun} that ended more than a day ago: unimse ps -a"));
    }
    Ok(Exit::Done)
}

struct Jobs {
    shown: Vec<JobView>,
    hidden: usize,
}

async fn jobs(client: &Client, args: &PsArgs) -> Result<Jobs> {
    let filter = JobFilter { states: args.state.clone(), ..JobFilter::default() };
    let all = client.jobs(filter).await?;
    let now = context::now();
    // Whoever asks for states has said what should be seen.
    let everything = args.all || !args.state.is_empty();
    let (shown, hidden): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|job| everything || job.ended.is_none_or(|ended| now.since(ended) < RECENT));
    Ok(Jobs { shown, hidden: hidden.len() })
}
