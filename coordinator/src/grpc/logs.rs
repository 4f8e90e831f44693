//! The log of a job: page by page, and on while the job lives.

use std::time::Duration;

use futures::stream::try_unfold;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use unimse_core::id::JobId;
use unimse_proto::client::LogEntry;
use unimse_proto::server::LogQuery;
use unimse_proto::{Error, Stream};

use super::jobs;
use crate::handle::Handle;
use crate::service::Failure;

/// After its end a job's last words may still be on their way from the agent.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often somebody who follows looks whether the job has ended.
const LOOK: Duration = Duration::from_secs(1);

struct Place {
    handle: Handle,
    fresh: Receiver<JobId>,
    next: u64,
    /// When the job was first seen to have ended.
    ended: Option<tokio::time::Instant>,
}

pub(super) async fn read(handle: &Handle, job: &str, query: LogQuery) -> Result<Stream<Vec<LogEntry>>, Error> {
    let job = jobs::resolve(handle, job).await?;
    let start =
        Place { handle: handle.clone(), fresh: handle.telemetry().fresh(), next: query.from_offset, ended: None };
    let pages = try_unfold(start, move |mut place| async move {
        loop {
            let page = place.handle.telemetry().log(job, query.rank, place.next).await?;
            if let Some(last) = page.last() {
                place.next = last.offset + 1;
                return Ok(Some((page, place)));
            }
            if !query.follow || place.ended.is_some_and(|since| since.elapsed() >= LAST_WORDS) {
                return Ok(None);
            }
            place.wait(job).await?;
        }
    });
    Ok(Box::pin(pages))
}

impl Place {
    /// Waits for new lines, or for a while.
    async fn wait(&mut self, job: JobId) -> Result<(), Error> {
        let look = move |present: &crate::service::Present<'_>| {
            present.machine.state().jobs.get(&job).is_none_or(|job| job.phase.ended())
        };
        let ended = self.handle.query(look).await?;
        self.ended = ended.then(|| self.ended.unwrap_or_else(tokio::time::Instant::now));
        let fresh = async {
            loop {
                match self.fresh.recv().await {
                    Ok(other) if other != job => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => return Ok(()),
                    Err(RecvError::Closed) => return Err(Failure::Stopped.into()),
                }
            }
        };
        tokio::time::timeout(LOOK, fresh).await.unwrap_or(Ok(()))
    }
}
