//! The gRPC face: each call looks at the state, or applies one event, through the [`Handle`]. The wire itself is `unimse-proto`'s.

mod jobs;
mod logs;
mod nodes;
mod session;
mod sweeps;

use unimse_core::id::{JobId, Step, SweepId};
use unimse_core::spec::JobSpec;
use unimse_core::sweep::SweepSpec;
use unimse_core::view::{CheckpointView, JobDetail, JobView, NodeView, SweepView};
use unimse_proto::client::{Info, JobFilter, LogEntry, MetricPoint, SweepCommand};
use unimse_proto::server::{Api, JobCommand, LogQuery, MetricQuery};
use unimse_proto::{Error, Stream};

use crate::handle::Handle;
pub(crate) use nodes::info;
pub(crate) use session::Agents;

/// Characters of a client's key; longer ones would bloat the state for ever.
const LONGEST_KEY: usize = 256;

/// Serves people.
#[derive(Debug)]
pub(crate) struct People(pub(crate) Handle);

fn check_key(key: Option<&String>) -> Result<(), Error> {
    match key {
        Some(key) if key.is_empty() || key.len() > LONGEST_KEY => {
            Err(Error::Invalid { reason: format!("a key has 1 to {LONGEST_KEY} characters, not {}", key.len()) })
        }
        _ => Ok(()),
    }
}

/// An answer of the machine that does not fit the event: a mistake of ours.
fn unexpected(answer: &unimse_core::machine::Answer) -> Error {
    Error::Internal { reason: format!("unexpected answer {answer:?}") }
}

impl Api for People {
    async fn submit(&self, key: Option<String>, spec: JobSpec) -> Result<(JobId, bool), Error> {
        jobs::submit(&self.0, key, spec).await
    }

    async fn jobs(&self, filter: JobFilter) -> Result<Vec<JobView>, Error> {
        jobs::list(&self.0, filter).await
    }

    async fn job(&self, job: &str) -> Result<JobDetail, Error> {
        jobs::detail(&self.0, job).await
    }

    async fn watch(&self, job: &str) -> Result<Stream<JobView>, Error> {
        jobs::watch(&self.0, job).await
    }

    async fn command(&self, job: &str, command: JobCommand) -> Result<(), Error> {
        jobs::command(&self.0, job, command).await
    }

    async fn resume(&self, job: &str, from: Option<String>, spec: Option<JobSpec>) -> Result<(), Error> {
        jobs::resume(&self.0, job, from, spec).await
    }

    async fn explain(&self, job: &str) -> Result<Vec<String>, Error> {
        jobs::explain(&self.0, job).await
    }

    async fn logs(&self, job: &str, query: LogQuery) -> Result<Stream<Vec<LogEntry>>, Error> {
        logs::read(&self.0, job, query).await
    }

    async fn metrics(&self, job: &str, query: MetricQuery) -> Result<Vec<MetricPoint>, Error> {
        let job = jobs::resolve(&self.0, job).await?;
        Ok(self.0.telemetry().metrics(job, query).await?)
    }

    async fn digests(&self, job: &str) -> Result<Vec<(Step, String)>, Error> {
        let job = jobs::resolve(&self.0, job).await?;
        Ok(self.0.telemetry().digests(job).await?)
    }

    async fn checkpoints(&self, job: &str) -> Result<Vec<CheckpointView>, Error> {
        jobs::checkpoints(&self.0, job).await
    }

    async fn remove_checkpoint(&self, job: &str, step: Step, force: bool) -> Result<(), Error> {
        jobs::remove_checkpoint(&self.0, job, step, force).await
    }

    async fn sweep_run(&self, key: Option<String>, spec: SweepSpec) -> Result<(SweepId, bool), Error> {
        sweeps::run(&self.0, key, spec).await
    }

    async fn sweeps(&self) -> Result<Vec<SweepView>, Error> {
        sweeps::list(&self.0).await
    }

    async fn sweep(&self, sweep: &str) -> Result<SweepView, Error> {
        sweeps::show(&self.0, sweep).await
    }

    async fn sweep_command(&self, sweep: &str, command: SweepCommand) -> Result<(), Error> {
        sweeps::command(&self.0, sweep, command).await
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, Error> {
        nodes::list(&self.0).await
    }

    async fn drain(&self, node: &str, drained: bool) -> Result<(), Error> {
        nodes::drain(&self.0, node, drained).await
    }

    async fn info(&self) -> Result<Info, Error> {
        info(&self.0).await
    }
}
