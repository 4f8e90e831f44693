//! News of one job from the coordinator, going on after every broken connection where it stopped.

use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use unimse_core::id::JobId;
use unimse_core::job::HistoryEntry;
use unimse_core::view::JobView;
use unimse_proto::Error as RemoteError;
use unimse_proto::client::{Client, LogEntry};

use super::LogRequest;
use crate::error::Error;
use crate::render::job::has_ended;

/// Between two tries to reach a coordinator that is gone.
const RETRY: Duration = Duration::from_millis(500);
/// How long the last lines of a log may be late before the end of the job is told without them.
const LAST_LINES: Duration = Duration::from_secs(3);

/// What is new.
#[derive(Debug)]
pub(super) enum News {
    /// The job has changed; the history comes along when it may have changed, too.
    Job { view: Box<JobView>, history: Vec<HistoryEntry> },
    /// A line of its log.
    Log(LogEntry),
    /// The coordinator cannot be reached for now.
    Lost,
    /// It can be reached again.
    Back,
    /// Trying again would not help.
    Failed(Error),
}

/// Two tasks that listen; they end with the job, or when this is dropped.
#[derive(Debug)]
pub(super) struct Feed {
    watch: JoinHandle<()>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        // The task that reads the log ends by itself when nobody takes its lines.
        self.watch.abort();
    }
}

impl Feed {
    /// Begins to listen.
    pub(super) fn start(client: &Client, job: JobId, logs: Option<LogRequest>, news: mpsc::Sender<News>) -> Self {
        let log = logs.map(|request| tokio::spawn(read_log(client.clone(), job, request, news.clone())));
        Self { watch: tokio::spawn(watch(client.clone(), job, news, log)) }
    }
}

/// Whether the same call may succeed later.
fn is_transient(error: &RemoteError) -> bool {
    matches!(error, RemoteError::Unreachable { .. } | RemoteError::Unavailable { .. })
}

/// Tells a broken connection, or ends; true means to try again.
async fn broken(error: RemoteError, news: &mpsc::Sender<News>) -> bool {
    if !is_transient(&error) {
        let _ = news.send(News::Failed(error.into())).await;
        return false;
    }
    if news.send(News::Lost).await.is_err() {
        return false;
    }
    tokio::time::sleep(RETRY).await;
    true
}

async fn watch(client: Client, job: JobId, news: mpsc::Sender<News>, mut log: Option<JoinHandle<()>>) {
    let name = job.to_string();
    let mut before: Option<JobView> = None;
    loop {
        let outcome = watch_once(&client, &name, &mut before, &news, &mut log).await;
        match outcome {
            Ok(true) => return,
            // The stream ended while the job lives on: the coordinator is going down.
            Ok(false) => tokio::time::sleep(RETRY).await,
            Err(error) => {
                if !broken(error, &news).await {
                    return;
                }
            }
        }
    }
}

/// Listens until the stream breaks; true when the job has ended, or nobody listens any more.
async fn watch_once(
    client: &Client,
    name: &str,
    before: &mut Option<JobView>,
    news: &mpsc::Sender<News>,
    log: &mut Option<JoinHandle<()>>,
) -> Result<bool, RemoteError> {
    let mut views = client.watch(name).await?;
    if before.is_some() && news.send(News::Back).await.is_err() {
        return Ok(true);
    }
    while let Some(view) = views.next().await {
        let view = view?;
        let history = match before {
            Some(before) if same_life(before, &view) => Vec::new(),
            _ => client.job(name).await?.history,
        };
        let ended = has_ended(&view.state);
        if ended && let Some(log) = log.take() {
            // What the job said last should stand above the news of its end.
            let _ = tokio::time::timeout(LAST_LINES, log).await;
        }
        *before = Some(view.clone());
        if news.send(News::Job { view: Box::new(view), history }).await.is_err() || ended {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether only numbers have moved, so that the history cannot have grown.
fn same_life(before: &JobView, view: &JobView) -> bool {
    before.state == view.state
        && before.generation == view.generation
        && before.slots_held == view.slots_held
        && before.restarts == view.restarts
        && before.reason == view.reason
}

async fn read_log(client: Client, job: JobId, request: LogRequest, news: mpsc::Sender<News>) {
    let name = job.to_string();
    let mut next = request.from;
    loop {
        match read_log_once(&client, &name, request, &mut next, &news).await {
            Ok(()) => return,
            // The task that watches the job tells about the connection; once is enough.
            Err(error) if is_transient(&error) && !news.is_closed() => tokio::time::sleep(RETRY).await,
            Err(error) => {
                let _ = news.send(News::Failed(error.into())).await;
                return;
            }
        }
    }
}

async fn read_log_once(
    client: &Client,
    name: &str,
    request: LogRequest,
    next: &mut u64,
    news: &mpsc::Sender<News>,
) -> Result<(), RemoteError> {
    let mut entries = client.logs(name, request.rank, *next, true).await?;
    while let Some(entry) = entries.next().await {
        let entry = entry?;
        // Lines that were printed before the connection broke are not printed again.
        if entry.offset < *next {
            continue;
        }
        *next = entry.offset + 1;
        if news.send(News::Log(entry)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
