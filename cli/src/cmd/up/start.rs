//! Starting a local cluster and waiting until it can be used.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use unimse_proto::client::{Client, Info};

use super::child::{Child, Ended};
use crate::args::{DEFAULT_COORDINATOR, UpArgs};
use crate::cmd::exec::{self, Worker};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::render::amount::count;

/// In the state folder: the address at which the coordinator listens.
const ADDRESS: &str = "coordinator.addr";
/// How long the coordinator may take to read its journal.
const COORDINATOR_START: Duration = Duration::from_mins(1);
/// How long workers may take to register before `up` says that it goes on without them.
const WORKERS_START: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);

/// A cluster on this machine.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) url: String,
    pub(super) children: Vec<Child>,
    state: PathBuf,
    logs: PathBuf,
    info: Info,
    /// How many workers were asked for, and their slots.
    workers: u32,
    slots: Option<u32>,
}

/// Starts the coordinator, then the workers, and waits until all have found each other.
pub(super) async fn start(context: &Context, args: &UpArgs, ended: mpsc::Sender<Ended>) -> Result<Cluster> {
    let program = exec::coordinator(context)?;
    // Found before anything is started: half a cluster helps nobody.
    let worker = if args.workers > 0 { Some(Worker::find(context)?) } else { None };
    let state = std::path::absolute(&args.state).map_err(|error| Error::file("find", &args.state, error))?;
    let logs = state.join("logs");
    fs::create_dir_all(&logs).map_err(|error| Error::file("create", &logs, error))?;
    let checkpoints = args.checkpoints.clone().unwrap_or_else(|| state.join("checkpoints").display().to_string());

    let before = stamp(&state.join(ADDRESS));
    let mut command = std::process::Command::new(program);
    command.arg("--state").arg(&state).args([
        "--listen",
        &args.listen,
        "--checkpoints",
        &checkpoints,
        "--exit-on-stdin-eof",
    ]);
    if args.insecure_bind {
        command.arg("--insecure-bind");
    }
    let (first_sender, mut first_ended) = mpsc::channel(1);
    let coordinator = Child::start("coordinator", false, command, &logs.join("coordinator.log"), first_sender)?;
    let url = wait_for_address(&state, before, &mut first_ended).await?;
    // From now on its end is news like that of any other part.
    let forward = ended.clone();
    tokio::spawn(async move {
        if let Some(one) = first_ended.recv().await {
            let _ = forward.send(one).await;
        }
    });

    let mut children = vec![coordinator];
    if let Some(worker) = worker {
        for number in 1..=args.workers {
            let name = format!("worker-{number}");
            let mut command = worker.command();
            command.args(["agent", "--coordinator", &url, "--name", &name, "--exit-on-stdin-eof"]);
            if args.fake_trainers {
                command.arg("--fake-trainers");
            }
            if let Some(slots) = args.slots {
                command.args(["--slots", &slots.to_string()]);
            }
            let threads = threads_per_slot(args.workers, args.slots.unwrap_or(1));
            command.args(["--threads", &threads.to_string()]);
            children.push(Child::start(&name, true, command, &logs.join(format!("{name}.log")), ended.clone())?);
        }
    }
    let client = Client::connect(&url).await?;
    let info = wait_for_workers(&client, &children).await?;
    let logs = args.state.join("logs");
    let (state, workers, slots) = (args.state.clone(), args.workers, args.slots);
    Ok(Cluster { url, children, state, logs, info, workers, slots })
}

/// Each worker thinks it has the machine to itself; several of them share its processors.
fn threads_per_slot(workers: u32, slots: u32) -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
    (processors / workers.saturating_mul(slots).max(1)).max(1)
}

/// When a file was last written, if it is there.
fn stamp(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// Waits until the coordinator has written where it listens; the file of an earlier life does not count.
async fn wait_for_address(
    state: &Path,
    before: Option<SystemTime>,
    ended: &mut mpsc::Receiver<Ended>,
) -> Result<String> {
    let file = state.join(ADDRESS);
    let deadline = Instant::now() + COORDINATOR_START;
    loop {
        if stamp(&file).is_some_and(|now| Some(now) != before)
            && let Ok(text) = fs::read_to_string(&file)
            && !text.trim().is_empty()
        {
            return Ok(crate::settings::with_scheme(&text));
        }
        tokio::select! {
            Some(one) = ended.recv() => return Err(did_not_start(&one)),
            () = sleep(POLL) => {}
        }
        if Instant::now() > deadline {
            return Err(Error::Failed {
                message: format!("the coordinator is not ready after {} s", COORDINATOR_START.as_secs()),
                hint: format!("see {}", state.join("logs/coordinator.log").display()),
            });
        }
    }
}

/// Its own last words say more than anything that could be guessed here.
fn did_not_start(ended: &Ended) -> Error {
    let said = ended.last_words.join("\n");
    let (message, hint) = match said.split_once("hint:") {
        Some((message, hint)) => (message.trim().to_owned(), hint.trim().to_owned()),
        None => (said.trim().to_owned(), format!("see {}", ended.log.display())),
    };
    let message = message.trim_start_matches("error: ");
    let separator = if message.is_empty() { "" } else { ": " };
    Error::Failed { message: format!("the coordinator did not start{separator}{message}"), hint }
}

/// Waits until the workers that live have registered, or for a while; those that died are told by whoever listens for that.
async fn wait_for_workers(client: &Client, children: &[Child]) -> Result<Info> {
    let deadline = Instant::now() + WORKERS_START;
    loop {
        let info = client.info().await?;
        let living = children.iter().filter(|child| child.is_worker && child.is_alive()).count();
        if info.workers as usize >= living || Instant::now() > deadline {
            return Ok(info);
        }
        sleep(POLL).await;
    }
}

impl Cluster {
    /// What to know and what to do next.
    pub(super) fn greeting(&self) -> Vec<String> {
        let info = &self.info;
        let workers = if info.workers < self.workers {
            format!("{} of {} workers are up", info.workers, self.workers)
        } else {
            count(u64::from(info.workers), "worker")
        };
        let mut lines = vec![
            format!("{workers} with {}", count(u64::from(info.slots_total), "slot")),
            format!(
                "state {}, checkpoints {}, logs {}",
                self.state.display(),
                info.checkpoint_uri,
                self.logs.display()
            ),
        ];
        let unfinished: u32 =
            ["queued", "starting", "running", "stopping"].iter().filter_map(|state| info.jobs.get(*state)).sum();
        if unfinished > 0 {
            lines.push(format!("goes on with {}: unimse ps", count(u64::from(unfinished), "unfinished job")));
        }
        if self.url != DEFAULT_COORDINATOR {
            lines.push(format!("in other terminals first: export UNIMSE_COORDINATOR={}", self.url));
        }
        lines.push("the address above is also a status page, in a browser".to_owned());
        lines.push("next: unimse submit JOB.yaml -f".to_owned());
        lines.push("Ctrl-C stops everything".to_owned());
        lines
    }

    /// Says who died, what it said last, and what can be done.
    pub(super) fn obituary(&self, ended: &Ended) -> String {
        let mut text = format!("{} {}", ended.name, ended.how);
        for line in &ended.last_words {
            let _ = write!(text, "\n  | {line}");
        }
        let _ = write!(text, "\n  its log: {}", ended.log.display());
        let again = if ended.name == "coordinator" {
            format!(
                "training goes on without it for a while; start it again: unimse coordinator --state {} --listen {} --checkpoints {}",
                self.state.display(),
                self.url.trim_start_matches("http://"),
                self.info.checkpoint_uri
            )
        } else {
            let slots = self.slots.map_or_else(String::new, |slots| format!(" --slots {slots}"));
            format!(
                "its jobs go on where there are slots; start it again: unimse worker --name {}{slots} --coordinator {}",
                ended.name, self.url
            )
        };
        format!("{text}\n  {again}")
    }
}
