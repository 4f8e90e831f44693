//! Curves, digests and logs: a SQLite file of their own, written by a thread of their own.
//!
//! It is durable against the end of the process, not against the loss of power (`synchronous=NORMAL`): what was acknowledged in the last
//! moments before that may be missing from a curve, never from a decision. Writing the same again changes nothing; of two values for one
//! step the newer generation's stays.

mod curve;
mod store;

use std::path::Path;
use std::thread::JoinHandle;

use tokio::sync::{broadcast, mpsc, oneshot};
use unimse_core::id::{JobId, Rank, Step};
use unimse_proto::client::{LogEntry, MetricPoint};
use unimse_proto::server::MetricQuery;
use unimse_proto::session::{Logs, Steps};

use crate::service::{Failure, Reply};
use store::Store;

/// Writes in one transaction.
const LARGEST_COMMIT: usize = 512;
/// Lines in one page of a log, and about how many bytes.
pub(crate) const PAGE_LINES: usize = 500;
const PAGE_BYTES: usize = 512 << 10;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "could not {action} {}\n\
     hint: when it is damaged, move it away: curves and logs of the past are lost then, jobs and checkpoints are not", place.display()
)]
pub struct Error {
    action: &'static str,
    place: std::path::PathBuf,
    source: rusqlite::Error,
}

/// What agents report that is kept here.
#[derive(Debug)]
pub(crate) enum Write {
    Steps(Steps),
    Logs(Logs),
}

impl Write {
    fn job(&self) -> JobId {
        match self {
            Self::Steps(steps) => steps.job,
            Self::Logs(logs) => logs.job,
        }
    }
}

type Read = Box<dyn FnOnce(&Store) + Send>;

enum Task {
    Write(Write, Reply<()>),
    Read(Read),
}

/// A way to the thread; every clone leads to the same one. The thread ends when the last clone is gone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    // Not bounded here: each session has a bounded number of reports on their way, and waits for them.
    tasks: mpsc::UnboundedSender<Task>,
    fresh: broadcast::Sender<JobId>,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Task")
    }
}

impl Telemetry {
    /// Opens the file and starts the thread.
    pub(crate) fn open(place: &Path) -> Result<(Self, JoinHandle<()>), Error> {
        let failed = |source| Error { action: "open", place: place.to_owned(), source };
        let store = Store::open(place).map_err(failed)?;
        let (tasks, queue) = mpsc::unbounded_channel();
        let fresh = broadcast::Sender::new(1024);
        let telemetry = Self { tasks, fresh: fresh.clone() };
        let work = move || work(store, queue, &fresh);
        let thread = std::thread::Builder::new().name("telemetry".to_owned()).spawn(work);
        let thread = thread.expect("a process that has just started may have one more thread");
        Ok((telemetry, thread))
    }

    /// Keeps a report and answers when it is kept.
    pub(crate) fn write(&self, write: Write, reply: Reply<()>) {
        if let Err(mpsc::error::SendError(Task::Write(_, reply))) = self.tasks.send(Task::Write(write, reply)) {
            drop(reply.send(Err(Failure::Stopped)));
        }
    }

    /// Jobs that have new lines or points.
    pub fn fresh(&self) -> broadcast::Receiver<JobId> {
        self.fresh.subscribe()
    }

    /// Reads curves, by name and step.
    pub async fn metrics(&self, job: JobId, query: MetricQuery) -> Result<Vec<MetricPoint>, Failure> {
        self.read(move |store| store.metrics(job, &query)).await
    }

    /// Reads the digest of each step.
    pub async fn digests(&self, job: JobId) -> Result<Vec<(Step, String)>, Failure> {
        self.read(move |store| store.digests(job)).await
    }

    /// Reads the next lines of a log; none when there are no more yet.
    pub async fn log(&self, job: JobId, rank: Option<Rank>, from_offset: u64) -> Result<Vec<LogEntry>, Failure> {
        self.read(move |store| store.log(job, rank, from_offset, PAGE_LINES, PAGE_BYTES)).await
    }

    /// Reads the last lines of a log.
    pub async fn log_end(&self, job: JobId, lines: usize) -> Result<Vec<LogEntry>, Failure> {
        self.read(move |store| store.log_end(job, lines)).await
    }

    async fn read<T, F>(&self, read: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&Store) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let read = Box::new(move |store: &Store| drop(reply.send(read(store))));
        self.tasks.send(Task::Read(read)).map_err(|_| Failure::Stopped)?;
        match answer.await {
            Ok(answer) => answer.map_err(|error| Failure::Telemetry(error.to_string())),
            Err(_) => Err(Failure::Stopped),
        }
    }
}

fn work(mut store: Store, mut queue: mpsc::UnboundedReceiver<Task>, fresh: &broadcast::Sender<JobId>) {
    let mut batch = Vec::with_capacity(LARGEST_COMMIT);
    while queue.blocking_recv_many(&mut batch, LARGEST_COMMIT) > 0 {
        let mut writes = Vec::new();
        let mut reads = Vec::new();
        for task in batch.drain(..) {
            match task {
                Task::Write(write, reply) => writes.push((write, reply)),
                Task::Read(read) => reads.push(read),
            }
        }
        if !writes.is_empty() {
            let kept = store.write(writes.iter().map(|(write, _)| write)).map_err(|error| {
                tracing::error!(%error, "could not write telemetry");
                match error.sqlite_error_code() {
                    Some(rusqlite::ErrorCode::DiskFull) => Failure::Full(error.to_string()),
                    _ => Failure::Telemetry(error.to_string()),
                }
            });
            for (write, reply) in writes {
                drop(reply.send(kept.clone()));
                if kept.is_ok() {
                    // Nobody following is no mistake.
                    drop(fresh.send(write.job()));
                }
            }
        }
        for read in reads {
            read(&store);
        }
    }
    store.close();
}
