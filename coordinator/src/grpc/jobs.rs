//! Jobs: submit, look, watch, command.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::try_unfold;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use unimse_core::id::{JobId, Step};
use unimse_core::machine::{Answer, Event, Machine, Submission, named_checkpoint};
use unimse_core::spec::JobSpec;
use unimse_core::view::{CheckpointView, JobDetail, JobView};
use unimse_proto::client::JobFilter;
use unimse_proto::server::JobCommand;
use unimse_proto::{Error, Stream};

use super::{check_key, unexpected};
use crate::handle::Handle;
use crate::resolve;
use crate::service::Failure;

/// The shortest time between two looks at a watched job, however often it changes.
const PACE: Duration = Duration::from_millis(100);

pub(super) async fn resolve(handle: &Handle, job: &str) -> Result<JobId, Error> {
    let text = job.to_owned();
    handle.query(move |present| resolve::job(present.machine.state(), &text)).await?
}

pub(super) async fn submit(handle: &Handle, key: Option<String>, spec: JobSpec) -> Result<(JobId, bool), Error> {
    check_key(key.as_ref())?;
    let checkpoint_uri = handle.about().checkpoint_uri.clone();
    match handle.apply(Event::Submit(Submission { key, spec: Arc::new(spec), checkpoint_uri })).await? {
        Answer::Job { job, new } => Ok((job, new)),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn list(handle: &Handle, filter: JobFilter) -> Result<Vec<JobView>, Error> {
    let look = move |present: &crate::service::Present<'_>| {
        let state = present.machine.state();
        let sweep = filter.sweep.as_deref().map(|sweep| resolve::sweep(state, sweep)).transpose()?;
        let wanted = |job: &&unimse_core::job::Job| {
            let labels = &job.spec.labels;
            (filter.states.is_empty() || filter.states.iter().any(|state| state == job.phase.word()))
                && filter.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
                && (sweep.is_none() || job.origin.map(|origin| origin.sweep) == sweep)
        };
        let most = filter.limit.map_or(usize::MAX, |limit| limit as usize);
        Ok(state.jobs.values().rev().filter(wanted).take(most).map(|job| present.job_view(job)).collect())
    };
    handle.query(look).await?
}

pub(super) async fn detail(handle: &Handle, job: &str) -> Result<JobDetail, Error> {
    let text = job.to_owned();
    let look = move |present: &crate::service::Present<'_>| {
        let state = present.machine.state();
        Ok(present.job_detail(&state.jobs[&resolve::job(state, &text)?]))
    };
    handle.query(look).await?
}

/// The present view, then each that differs from the one before, until the job has ended.
pub(super) async fn watch(handle: &Handle, job: &str) -> Result<Stream<JobView>, Error> {
    // Subscribed before the first look, so that no change falls between.
    let changes = handle.changes();
    let job = resolve(handle, job).await?;
    let start = (handle.clone(), changes, None::<JobView>);
    let views = try_unfold(start, move |(handle, mut changes, last)| async move {
        if last.as_ref().is_some_and(|last| last.ended.is_some()) {
            return Ok(None);
        }
        loop {
            if last.is_some() {
                tokio::time::sleep(PACE).await;
                changed(&mut changes, job).await?;
            }
            let look = move |present: &crate::service::Present<'_>| {
                present.machine.state().jobs.get(&job).map(|job| present.job_view(job))
            };
            let Some(view) = handle.query(look).await? else { return Ok(None) };
            if last.as_ref() != Some(&view) {
                return Ok(Some((view.clone(), (handle, changes, Some(view)))));
            }
        }
    });
    Ok(Box::pin(views))
}

/// Waits for a change of that job; a receiver that was too slow has missed one, for all it knows.
async fn changed(changes: &mut Receiver<JobId>, job: JobId) -> Result<(), Error> {
    loop {
        match changes.recv().await {
            Ok(other) if other != job => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return Ok(()),
            Err(RecvError::Closed) => return Err(Failure::Stopped.into()),
        }
    }
}

pub(super) async fn command(handle: &Handle, job: &str, command: JobCommand) -> Result<(), Error> {
    let job = resolve(handle, job).await?;
    let event = match command {
        JobCommand::Cancel => Event::Cancel { job },
        JobCommand::Pause => Event::Pause { job },
        JobCommand::Retry => Event::Retry { job },
    };
    handle.apply(event).await?;
    Ok(())
}

pub(super) async fn resume(
    handle: &Handle,
    job: &str,
    from: Option<String>,
    spec: Option<JobSpec>,
) -> Result<(), Error> {
    let job = resolve(handle, job).await?;
    let look = move |present: &crate::service::Present<'_>| {
        present.machine.state().jobs.get(&job).map(|job| job.checkpoint_uri.clone()).unwrap_or_default()
    };
    let uri = handle.query(look).await?;
    let from = from.map(|text| named_checkpoint(&text, &uri));
    handle.apply(Event::Resume { job, from, spec: spec.map(Arc::new) }).await?;
    Ok(())
}

pub(super) async fn explain(handle: &Handle, job: &str) -> Result<Vec<String>, Error> {
    let text = job.to_owned();
    let look = move |present: &crate::service::Present<'_>| {
        let job = resolve::job(present.machine.state(), &text)?;
        Ok(present.machine.explain(present.now, job).unwrap_or_default())
    };
    handle.query(look).await?
}

pub(super) async fn checkpoints(handle: &Handle, job: &str) -> Result<Vec<CheckpointView>, Error> {
    let text = job.to_owned();
    let look = move |present: &crate::service::Present<'_>| {
        let state = present.machine.state();
        Ok(Machine::checkpoint_views(&state.jobs[&resolve::job(state, &text)?]))
    };
    handle.query(look).await?
}

pub(super) async fn remove_checkpoint(handle: &Handle, job: &str, step: Step, force: bool) -> Result<(), Error> {
    let job = resolve(handle, job).await?;
    handle.apply(Event::RemoveCheckpoint { job, step, force }).await?;
    Ok(())
}
