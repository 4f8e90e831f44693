//! `unimse up`: a whole cluster on this machine, for as long as this program runs.
//!
//! The parts are processes of their own. They hold a pipe from this one as their standard input and stop when it closes, so they never
//! outlive it, however it ends. Nothing is started again by itself: what died is told, with the last words of its log.

mod child;
mod start;

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::UpArgs;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output;

use child::{Child, Ended};
use start::Cluster;

/// How long a worker may take to save and stop: a little more than it gives its trainers.
const WORKER_STOP: Duration = Duration::from_secs(310);
/// When somebody who waits for that is told what it waits for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the coordinator may take to close its journal.
const COORDINATOR_STOP: Duration = Duration::from_secs(10);

pub(crate) async fn run(context: &Context, args: UpArgs) -> Result<Exit> {
    let mut interrupts = Interrupts::new()?;
    let (sender, mut ended) = mpsc::channel(64);
    let mut cluster = tokio::select! {
        cluster = start::start(context, &args, sender) => cluster?,
        // The children see their pipe close.
        () = interrupts.next() => return Err(Error::Told(Exit::Interrupted)),
    };
    output::print(&cluster.url)?;
    for line in cluster.greeting() {
        context.say(&line);
    }
    loop {
        tokio::select! {
            () = interrupts.next() => return stop(context, cluster, &mut ended, &mut interrupts).await,
            Some(one) = ended.recv() => {
                output::say(&cluster.obituary(&one));
                cluster.children.retain(|child| child.name != one.name);
                if cluster.children.is_empty() {
                    output::say("error: nothing runs any more\nhint: `unimse up` with the same state goes on where it was");
                    return Err(Error::Told(Exit::Failure));
                }
            }
        }
    }
}

/// Workers first, so that the coordinator hears what they say last.
async fn stop(
    context: &Context,
    mut cluster: Cluster,
    ended: &mut mpsc::Receiver<Ended>,
    interrupts: &mut Interrupts,
) -> Result<Exit> {
    context.say("stopping; once more Ctrl-C kills");
    for (workers, patience) in [(true, WORKER_STOP), (false, COORDINATOR_STOP)] {
        for child in cluster.children.iter().filter(|child| child.is_worker == workers) {
            child.terminate();
        }
        let begun = tokio::time::Instant::now();
        let deadline = begun + patience;
        let mut told = false;
        while cluster.children.iter().any(|child| child.is_worker == workers) {
            tokio::select! {
                Some(one) = ended.recv() => cluster.children.retain(|child| child.name != one.name),
                () = tokio::time::sleep_until(begun + PATIENCE), if !told => {
                    told = true;
                    let names = cluster.children.iter().filter(|child| child.is_worker == workers).map(|child| child.name.as_str());
                    context.say(&format!("waiting for {}, which may be writing a checkpoint", names.collect::<Vec<_>>().join(", ")));
                }
                () = tokio::time::sleep_until(deadline) => {
                    for child in cluster.children.iter().filter(|child| child.is_worker == workers) {
                        context.say(&format!("{} did not stop in {} s, killing it", child.name, patience.as_secs()));
                    }
                    kill(&mut cluster.children, |child| child.is_worker == workers);
                }
                () = interrupts.next() => {
                    kill(&mut cluster.children, |_| true);
                    context.say("killed; jobs go on from their last checkpoints with `unimse up`");
                    return Err(Error::Told(Exit::Interrupted));
                }
            }
        }
    }
    context.say("stopped; `unimse up` with the same state goes on where it was");
    Ok(Exit::Done)
}

fn kill(children: &mut Vec<Child>, which: impl Fn(&Child) -> bool) {
    children.retain(|child| {
        let doomed = which(child);
        if doomed {
            child.kill();
        }
        !doomed
    });
}

/// Ctrl-C, a polite end, and a terminal that was closed.
struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Interrupts {
    fn new() -> Result<Self> {
        let listen = |kind| {
            signal(kind).map_err(|error| Error::Failed {
                message: format!("cannot listen for signals: {error}"),
                hint: "start coordinator and workers one by one: unimse coordinator, unimse worker".to_owned(),
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
