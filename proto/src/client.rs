//! The side of people: submit, watch, command and read.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures::stream::try_unfold;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};
use unimse_core::id::{Generation, JobId, Rank, Step, SweepId};
use unimse_core::spec::JobSpec;
use unimse_core::sweep::SweepSpec;
use unimse_core::time::Timestamp;
use unimse_core::view::{CheckpointView, JobDetail, JobView, NodeView, SweepView};

use crate::connect::within_cap;
use crate::convert::{all, need, parse, to_json};
use crate::session::LogLine;
use crate::wire::coordinator_service_client::CoordinatorServiceClient;
use crate::{Error, MAX_MESSAGE, Malformed, Stream, connect, wire};

/// Which jobs to list; the default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Any of these; empty means every state.
    pub states: Vec<String>,
    /// Each must be equal.
    pub labels: BTreeMap<String, String>,
    /// Only trials of that sweep, in any form that names one.
    pub sweep: Option<String>,
    /// The newest so many.
    pub limit: Option<u32>,
}

/// A line of a job's log and its place there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Grows along the log of a job; read on from the last one + 1.
    pub offset: u64,
    pub generation: Generation,
    pub rank: Rank,
    pub line: LogLine,
}

/// One point of a curve.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricPoint {
    pub name: String,
    pub step: Step,
    pub value: f64,
    pub generation: Generation,
    pub at: Timestamp,
}

/// What there is to say of a coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Names the cluster for ever; made at the first start of its state folder.
    pub cluster: String,
    /// Grows by one at each start.
    pub epoch: u64,
    pub version: String,
    pub state_dir: String,
    /// The store for checkpoints of jobs that name none.
    pub checkpoint_uri: String,
    pub started: Timestamp,
    /// How many jobs are in each state.
    pub jobs: BTreeMap<String, u32>,
    /// Silence of a worker for that long means lost.
    pub lease: Duration,
    /// Live workers.
    pub workers: u32,
    pub slots_total: u32,
    pub slots_used: u32,
}

/// A command to a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepCommand {
    Pause,
    Resume,
    Stop,
}

/// A connection to a coordinator; clones share it. It connects again by itself at the next call after it broke.
///
/// A `job` or `sweep` is an id, a unique beginning of one, a name (the newest of that name) or `@last`.
#[derive(Clone, Debug)]
pub struct Client {
    inner: CoordinatorServiceClient<Channel>,
    endpoint: String,
}

impl Client {
    /// Connects to `http://host:port`, or `host:port`.
    pub async fn connect(endpoint: &str) -> Result<Self, Error> {
        let channel = connect::dial(endpoint).await?;
        let inner = CoordinatorServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Ok(Self { inner, endpoint: endpoint.to_owned() })
    }

    /// The address as it was given.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Hands in a job. The same key stands for the same job, for ever: false means that it was known.
    pub async fn submit(&self, key: Option<String>, spec: &JobSpec) -> Result<(JobId, bool), Error> {
        let request = within_cap(wire::SubmitJobRequest { key, spec_json: to_json(spec) })?;
        let answer = self.answer(self.inner.clone().submit_job(request).await)?;
        Ok((parse(&answer.job, "job")?, answer.new))
    }

    /// Lists jobs, the newest first.
    pub async fn jobs(&self, filter: JobFilter) -> Result<Vec<JobView>, Error> {
        let request = wire::ListJobsRequest::from(filter);
        let chunks = self.answer(self.inner.clone().list_jobs(request).await)?;
        self.gather(chunks, |chunk| all(chunk.jobs)).await
    }

    /// Shows one job with all that belongs to it.
    pub async fn job(&self, job: &str) -> Result<JobDetail, Error> {
        let request = wire::GetJobRequest { job: job.to_owned() };
        let answer = self.answer(self.inner.clone().get_job(request).await)?;
        Ok(need(answer.detail, "detail")?.try_into()?)
    }

    /// Gives the present state of a job, then each change; ends when the job has ended.
    pub async fn watch(&self, job: &str) -> Result<Stream<JobView>, Error> {
        let request = wire::WatchJobRequest { job: job.to_owned() };
        let words = self.answer(self.inner.clone().watch_job(request).await)?;
        Ok(self.flatten(words, |word| Ok(vec![need(word.job, "job")?.try_into()?])))
    }

    pub async fn cancel(&self, job: &str) -> Result<(), Error> {
        self.command(job, wire::JobCommand::Cancel).await
    }

    /// Saves a checkpoint, stops and gives the slots back.
    pub async fn pause(&self, job: &str) -> Result<(), Error> {
        self.command(job, wire::JobCommand::Pause).await
    }

    /// Gives a failed or cancelled job a fresh budget.
    pub async fn retry(&self, job: &str) -> Result<(), Error> {
        self.command(job, wire::JobCommand::Retry).await
    }

    /// Lets a paused or ended job go on; `from` is `j-7k2m`, `j-7k2m:best`, `j-7k2m:1200` or the key of a manifest.
    pub async fn resume(&self, job: &str, from: Option<String>, spec: Option<&JobSpec>) -> Result<(), Error> {
        let request = within_cap(wire::ResumeJobRequest { job: job.to_owned(), from, spec_json: spec.map(to_json) })?;
        self.answer(self.inner.clone().resume_job(request).await)?;
        Ok(())
    }

    /// Says why a job is where it is, the most important line first.
    pub async fn explain(&self, job: &str) -> Result<Vec<String>, Error> {
        let request = wire::ExplainJobRequest { job: job.to_owned() };
        Ok(self.answer(self.inner.clone().explain_job(request).await)?.lines)
    }

    /// Reads the log of a job, of all ranks or one. With `follow` it goes on until the job has ended.
    pub async fn logs(
        &self,
        job: &str,
        rank: Option<Rank>,
        from_offset: u64,
        follow: bool,
    ) -> Result<Stream<LogEntry>, Error> {
        let request = wire::ReadLogsRequest { job: job.to_owned(), rank: rank.map(|rank| rank.0), from_offset, follow };
        let chunks = self.answer(self.inner.clone().read_logs(request).await)?;
        Ok(self.flatten(chunks, |chunk| all(chunk.entries)))
    }

    /// Reads curves from step `since` on. A name that ends with `/` stands for all that begin with it; no name for all.
    pub async fn metrics(&self, job: &str, names: &[String], since: Step) -> Result<Vec<MetricPoint>, Error> {
        self.read_metrics(job, names, since, None).await
    }

    /// The same, with each curve thinned to about that many points; its extremes stay.
    pub async fn metrics_sampled(
        &self,
        job: &str,
        names: &[String],
        since: Step,
        max_points: u32,
    ) -> Result<Vec<MetricPoint>, Error> {
        self.read_metrics(job, names, since, Some(max_points)).await
    }

    async fn read_metrics(
        &self,
        job: &str,
        names: &[String],
        since: Step,
        max_points: Option<u32>,
    ) -> Result<Vec<MetricPoint>, Error> {
        let request =
            wire::ReadMetricsRequest { job: job.to_owned(), names: names.to_vec(), since: since.0, max_points };
        let chunks = self.answer(self.inner.clone().read_metrics(request).await)?;
        self.gather(chunks, |chunk| Ok(chunk.points.into_iter().map(MetricPoint::from).collect())).await
    }

    /// Reads which samples each step consumed, as digests.
    pub async fn digests(&self, job: &str) -> Result<Vec<(Step, String)>, Error> {
        let request = wire::ReadDigestsRequest { job: job.to_owned() };
        let chunks = self.answer(self.inner.clone().read_digests(request).await)?;
        let pair = |one: wire::StepDigest| (Step(one.step), one.digest);
        self.gather(chunks, |chunk| Ok(chunk.digests.into_iter().map(pair).collect())).await
    }

    /// Lists the checkpoints of a job, oldest first.
    pub async fn checkpoints(&self, job: &str) -> Result<Vec<CheckpointView>, Error> {
        let request = wire::ListCheckpointsRequest { job: job.to_owned() };
        Ok(all(self.answer(self.inner.clone().list_checkpoints(request).await)?.checkpoints)?)
    }

    /// Removes a checkpoint that nothing needs; the newest and the best of a job only with `force`.
    pub async fn remove_checkpoint(&self, job: &str, step: Step, force: bool) -> Result<(), Error> {
        let request = wire::RemoveCheckpointRequest { job: job.to_owned(), step: step.0, force };
        self.answer(self.inner.clone().remove_checkpoint(request).await)?;
        Ok(())
    }

    /// Starts a sweep. The same key stands for the same sweep, for ever: false means that it was known.
    pub async fn sweep_run(&self, key: Option<String>, spec: &SweepSpec) -> Result<(SweepId, bool), Error> {
        let request = within_cap(wire::RunSweepRequest { key, spec_json: to_json(spec) })?;
        let answer = self.answer(self.inner.clone().run_sweep(request).await)?;
        Ok((parse(&answer.sweep, "sweep")?, answer.new))
    }

    /// Lists sweeps, the newest first.
    pub async fn sweeps(&self) -> Result<Vec<SweepView>, Error> {
        let answer = self.answer(self.inner.clone().list_sweeps(wire::ListSweepsRequest {}).await)?;
        Ok(all(answer.sweeps)?)
    }

    pub async fn sweep(&self, sweep: &str) -> Result<SweepView, Error> {
        let request = wire::GetSweepRequest { sweep: sweep.to_owned() };
        let answer = self.answer(self.inner.clone().get_sweep(request).await)?;
        Ok(need(answer.sweep, "sweep")?.try_into()?)
    }

    pub async fn sweep_command(&self, sweep: &str, command: SweepCommand) -> Result<(), Error> {
        let command = match command {
            SweepCommand::Pause => wire::SweepCommand::Pause,
            SweepCommand::Resume => wire::SweepCommand::Resume,
            SweepCommand::Stop => wire::SweepCommand::Stop,
        };
        let request = wire::CommandSweepRequest { sweep: sweep.to_owned(), command: command.into() };
        self.answer(self.inner.clone().command_sweep(request).await)?;
        Ok(())
    }

    /// Lists workers, the lost ones last.
    pub async fn nodes(&self) -> Result<Vec<NodeView>, Error> {
        Ok(all(self.answer(self.inner.clone().list_nodes(wire::ListNodesRequest {}).await)?.nodes)?)
    }

    /// Lets a node (by name or worker id) take no new ranks and moves running ones away, or takes that back.
    pub async fn drain(&self, node: &str, drained: bool) -> Result<(), Error> {
        let request = wire::DrainNodeRequest { node: node.to_owned(), drained };
        self.answer(self.inner.clone().drain_node(request).await)?;
        Ok(())
    }

    pub async fn info(&self) -> Result<Info, Error> {
        Ok(self.answer(self.inner.clone().get_info(wire::GetInfoRequest {}).await)?.into())
    }

    async fn command(&self, job: &str, command: wire::JobCommand) -> Result<(), Error> {
        let request = wire::CommandJobRequest { job: job.to_owned(), command: command.into() };
        self.answer(self.inner.clone().command_job(request).await)?;
        Ok(())
    }

    fn answer<T>(&self, answer: Result<Response<T>, Status>) -> Result<T, Error> {
        answer.map(Response::into_inner).map_err(|status| Error::from_status(&status, &self.endpoint))
    }

    async fn gather<W, T>(
        &self,
        mut chunks: Streaming<W>,
        read: impl Fn(W) -> Result<Vec<T>, Malformed>,
    ) -> Result<Vec<T>, Error> {
        let mut list = Vec::new();
        while let Some(chunk) = chunks.message().await.map_err(|status| Error::from_status(&status, &self.endpoint))? {
            list.extend(read(chunk)?);
        }
        Ok(list)
    }

    fn flatten<W, T, F>(&self, chunks: Streaming<W>, read: F) -> Stream<T>
    where
        W: Send + 'static,
        T: Send + 'static,
        F: Fn(W) -> Result<Vec<T>, Malformed> + Send + 'static,
    {
        let endpoint = self.endpoint.clone();
        Box::pin(try_unfold(
            (chunks, VecDeque::new(), read, endpoint),
            |(mut chunks, mut ready, read, endpoint)| async {
                loop {
                    if let Some(one) = ready.pop_front() {
                        return Ok(Some((one, (chunks, ready, read, endpoint))));
                    }
                    match chunks.message().await {
                        Ok(Some(chunk)) => ready.extend(read(chunk)?),
                        Ok(None) => return Ok(None),
                        Err(status) => return Err(Error::from_status(&status, &endpoint)),
                    }
                }
            },
        ))
    }
}
