//! Following jobs while they live: streams that survive the coordinator, a story of what changed, and a bar.

mod bars;
mod feed;
mod story;

use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::sync::mpsc;
use tokio::time::Instant;
use unimse_core::id::{JobId, Rank};
use unimse_core::view::JobView;
use unimse_proto::client::{Client, LogEntry};

use crate::context::{self, Context};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output;
use crate::render;

use bars::Bars;
use feed::{Feed, News};
use story::{Story, Telling};

/// Where log lines of a followed job go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogsTo {
    /// They are the result.
    Stdout,
    /// They are talk: the result is something else.
    Stderr,
    /// The same as the first, one JSON object a line.
    StdoutJson,
}

/// The log lines to follow beside the states.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogRequest {
    pub(crate) rank: Option<Rank>,
    /// The first offset wanted.
    pub(crate) from: u64,
    pub(crate) to: LogsTo,
}

/// What to follow, and how long.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) jobs: Vec<JobId>,
    pub(crate) logs: Option<LogRequest>,
    pub(crate) timeout: Option<Duration>,
    /// What to type to come back, without the ids.
    pub(crate) reattach: &'static str,
}

/// Follows jobs until all have ended; gives their last views in the order asked for.
///
/// Ctrl-C detaches: the jobs go on, and the error is [`Exit::Interrupted`].
pub(crate) async fn run(context: &Context, client: &Client, request: Request) -> Result<Vec<JobView>> {
    let (sender, mut news) = mpsc::channel(256);
    let _feeds: Vec<Feed> =
        request.jobs.iter().map(|&job| Feed::start(client, job, request.logs, sender.clone())).collect();
    drop(sender);

    let mut screen = Screen {
        bars: (context.terminal.live && !context.settings.quiet).then(Bars::new),
        quiet: context.settings.quiet,
        zone: TimeZone::system(),
    };
    let telling =
        Telling { named: request.jobs.len() > 1, milestones: request.logs.is_none(), progress: screen.bars.is_none() };
    let mut stories: Vec<Story> = request.jobs.iter().map(|&job| Story::new(job, telling)).collect();
    let deadline = request.timeout.map(|timeout| Instant::now() + timeout);
    let mut lost = false;

    loop {
        let item = tokio::select! {
            item = news.recv() => item,
            _ = tokio::signal::ctrl_c() => {
                screen.clear();
                let ids: Vec<String> = unfinished(&stories).iter().map(ToString::to_string).collect();
                let subject = if ids.len() == 1 { "the job goes on" } else { "the jobs go on" };
                output::say(&format!("detached; {subject}. reattach: unimse {} {}", request.reattach, ids.join(" ")));
                return Err(Error::Told(Exit::Interrupted));
            }
            () = at(deadline) => {
                screen.clear();
                let waited = render::time::short(request.timeout.unwrap_or_default());
                let left: Vec<String> = stories.iter().filter_map(Story::unfinished_line).collect();
                output::say(&format!("error: timed out after {waited}: {}", left.join(", ")));
                output::say("hint: the jobs go on; wait again with a longer --timeout");
                return Err(Error::Told(Exit::TimedOut));
            }
        };
        let Some(item) = item else { break };
        match item {
            News::Job { view, history } => {
                lost = false;
                let Some(index) = request.jobs.iter().position(|&job| job == view.id) else { continue };
                for line in stories[index].update(&view, &history, &screen.zone, context::now()) {
                    screen.say(&line);
                }
                screen.show(index, &stories[index]);
            }
            News::Log(entry) => screen.log(&entry, request.logs.map_or(LogsTo::Stdout, |logs| logs.to))?,
            News::Lost => {
                if !lost {
                    screen
                        .say(&format!("lost the coordinator at {}; training goes on, trying again", client.endpoint()));
                }
                lost = true;
            }
            News::Back => {
                if lost {
                    screen.say("connected again");
                }
                lost = false;
            }
            News::Failed(error) => {
                screen.clear();
                return Err(error);
            }
        }
    }
    screen.clear();
    Ok(stories.into_iter().filter_map(Story::into_view).collect())
}

fn unfinished(stories: &[Story]) -> Vec<JobId> {
    stories.iter().filter(|story| !story.has_ended()).map(Story::job).collect()
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Where a followed job is shown.
struct Screen {
    bars: Option<Bars>,
    quiet: bool,
    zone: TimeZone,
}

impl Screen {
    fn say(&self, line: &str) {
        if self.quiet {
            return;
        }
        match &self.bars {
            Some(bars) => bars.suspend(|| output::say(line)),
            None => output::say(line),
        }
    }

    fn log(&self, entry: &LogEntry, to: LogsTo) -> Result<()> {
        let write = || match to {
            LogsTo::Stdout => output::print(&render::log::line(entry, &self.zone)),
            LogsTo::StdoutJson => output::print(&render::log::json_line(entry)),
            LogsTo::Stderr => {
                output::say(&render::log::line(entry, &self.zone));
                Ok(())
            }
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    fn show(&mut self, index: usize, story: &Story) {
        if let (Some(bars), Some(view)) = (&mut self.bars, story.view()) {
            bars.show(index, view);
        }
    }

    fn clear(&mut self) {
        if let Some(bars) = &mut self.bars {
            bars.clear();
        }
    }
}

/// Says how jobs ended, and what to do next.
pub(crate) fn tell_endings(context: &Context, jobs: &[JobView]) {
    for job in jobs {
        let ending = story::ending(job);
        // An error is worth a word even when talk is not wanted.
        if ending.starts_with("error") {
            output::say(&render::paint_error(&ending));
        } else {
            context.say(&ending);
        }
    }
}

/// The exit code for jobs that were waited for: the worst of them.
pub(crate) fn outcome(jobs: &[JobView]) -> Exit {
    let has = |state| jobs.iter().any(|job| job.state == state);
    if has("failed") {
        Exit::JobFailed
    } else if has("cancelled") {
        Exit::JobCancelled
    } else {
        Exit::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::job::tests::{failed, running};

    #[test]
    fn the_worst_job_decides_the_exit_code() {
        let completed = JobView { state: "completed".into(), ..running() };
        let cancelled = JobView { state: "cancelled".into(), ..running() };
        assert_eq!(outcome(std::slice::from_ref(&completed)), Exit::Done);
        assert_eq!(outcome(&[completed.clone(), cancelled.clone()]), Exit::JobCancelled);
        assert_eq!(outcome(&[completed, cancelled, failed()]), Exit::JobFailed);
    }
}
