//! What a coordinator implements: [`Api`] for people and [`Sessions`] for agents, both in types of core; [`routes`] serves them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use unimse_core::id::{JobId, Rank, Step, SweepId};
use unimse_core::spec::JobSpec;
use unimse_core::sweep::SweepSpec;
use unimse_core::view::{CheckpointView, JobDetail, JobView, NodeView, SweepView};

use crate::client::{Info, JobFilter, LogEntry, MetricPoint, SweepCommand};
use crate::convert::{every, from_json};
use crate::session::{FromAgent, Hello, ToAgent};
use crate::wire::coordinator_service_server::{CoordinatorService, CoordinatorServiceServer};
use crate::wire::worker_service_server::{WorkerService, WorkerServiceServer};
use crate::{Error, MAX_MESSAGE, Stream, wire};

/// How long an agent may take to say hello once its stream is open.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Encoded `FileDescriptorSet` of the services, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
/// Names of the services, for health checks.
pub const SERVICES: [&str; 2] = ["unimse.v1.CoordinatorService", "unimse.v1.WorkerService"];

/// Views, points and the like in one chunk of a long answer; a chunk stays well below a megabyte.
const CHUNK: usize = 500;

/// Which curves to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricQuery {
    /// Names, or beginnings that end with `/`; empty means all.
    pub names: Vec<String>,
    pub since: Step,
    pub max_points: Option<u32>,
}

/// Which lines to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogQuery {
    pub rank: Option<Rank>,
    pub from_offset: u64,
    pub follow: bool,
}

/// A command to a job that needs no more words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobCommand {
    Cancel,
    Pause,
    Retry,
}

/// What people may ask; a `&str` names a job, sweep or node in any form that the coordinator resolves.
pub trait Api: Send + Sync + 'static {
    fn submit(&self, key: Option<String>, spec: JobSpec) -> impl Future<Output = Result<(JobId, bool), Error>> + Send;
    fn jobs(&self, filter: JobFilter) -> impl Future<Output = Result<Vec<JobView>, Error>> + Send;
    fn job(&self, job: &str) -> impl Future<Output = Result<JobDetail, Error>> + Send;
    fn watch(&self, job: &str) -> impl Future<Output = Result<Stream<JobView>, Error>> + Send;
    fn command(&self, job: &str, command: JobCommand) -> impl Future<Output = Result<(), Error>> + Send;
    fn resume(
        &self,
        job: &str,
        from: Option<String>,
        spec: Option<JobSpec>,
    ) -> impl Future<Output = Result<(), Error>> + Send;
    fn explain(&self, job: &str) -> impl Future<Output = Result<Vec<String>, Error>> + Send;
    /// Chunks of less than a megabyte.
    fn logs(&self, job: &str, query: LogQuery) -> impl Future<Output = Result<Stream<Vec<LogEntry>>, Error>> + Send;
    fn metrics(&self, job: &str, query: MetricQuery) -> impl Future<Output = Result<Vec<MetricPoint>, Error>> + Send;
    fn digests(&self, job: &str) -> impl Future<Output = Result<Vec<(Step, String)>, Error>> + Send;
    fn checkpoints(&self, job: &str) -> impl Future<Output = Result<Vec<CheckpointView>, Error>> + Send;
    fn remove_checkpoint(&self, job: &str, step: Step, force: bool) -> impl Future<Output = Result<(), Error>> + Send;
    fn sweep_run(
        &self,
        key: Option<String>,
        spec: SweepSpec,
    ) -> impl Future<Output = Result<(SweepId, bool), Error>> + Send;
    fn sweeps(&self) -> impl Future<Output = Result<Vec<SweepView>, Error>> + Send;
    fn sweep(&self, sweep: &str) -> impl Future<Output = Result<SweepView, Error>> + Send;
    fn sweep_command(&self, sweep: &str, command: SweepCommand) -> impl Future<Output = Result<(), Error>> + Send;
    fn nodes(&self) -> impl Future<Output = Result<Vec<NodeView>, Error>> + Send;
    fn drain(&self, node: &str, drained: bool) -> impl Future<Output = Result<(), Error>> + Send;
    fn info(&self) -> impl Future<Output = Result<Info, Error>> + Send;
}

/// What agents may ask.
pub trait Sessions: Send + Sync + 'static {
    /// Answers a hello; the stream begins with Welcome or Refused and ends when the session does.
    fn open(&self, hello: Hello, words: FromAgents) -> impl Future<Output = Result<Stream<ToAgent>, Error>> + Send;
}

/// The words of one agent after its hello.
#[derive(Debug)]
pub struct FromAgents {
    words: Streaming<wire::SessionRequest>,
}

impl FromAgents {
    /// The next word; none when the agent has ended the session.
    pub async fn next(&mut self) -> Result<Option<FromAgent>, Error> {
        match self.words.message().await {
            Ok(Some(word)) => Ok(Some(word.try_into()?)),
            Ok(None) => Ok(None),
            Err(status) => Err(Error::from_status(&status, "the agent")),
        }
    }
}

/// Serves both services, with the size limits of the protocol.
pub fn routes(api: impl Api, sessions: impl Sessions) -> Routes {
    let people = CoordinatorServiceServer::new(People(Arc::new(api)))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let agents = WorkerServiceServer::new(Agents(sessions))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    Routes::new(people).add_service(agents)
}

struct Agents<S>(S);

#[tonic::async_trait]
impl<S: Sessions> WorkerService for Agents<S> {
    type SessionStream = Answers<wire::SessionResponse>;

    async fn session(
        &self,
        request: Request<Streaming<wire::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut words = FromAgents { words: request.into_inner() };
        let first = tokio::time::timeout(HELLO_TIMEOUT, words.next()).await;
        let Ok(first) = first else {
            let reason = format!("no hello within {} s", HELLO_TIMEOUT.as_secs());
            return Err(Error::Invalid { reason }.into());
        };
        let Some(FromAgent::Hello(hello)) = first? else {
            return Err(Error::Invalid { reason: "a session begins with hello".to_owned() }.into());
        };
        let answers = self.0.open(hello, words).await?;
        Ok(Response::new(Box::pin(answers.map_ok(Into::into).map_err(Into::into))))
    }
}

struct People<A>(Arc<A>);

type Answers<T> = std::pin::Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

/// One long answer as a stream of chunks.
fn chunks<T, W>(list: Vec<T>, wrap: impl Fn(Vec<T>) -> W + Send + 'static) -> Response<Answers<W>>
where
    T: Send + 'static,
    W: Send + 'static,
{
    let mut list = list.into_iter();
    let parts = std::iter::from_fn(move || {
        let part: Vec<T> = list.by_ref().take(CHUNK).collect();
        (!part.is_empty()).then(|| Ok(wrap(part)))
    });
    Response::new(Box::pin(futures::stream::iter(parts)))
}

#[tonic::async_trait]
impl<A: Api> CoordinatorService for People<A> {
    type ListJobsStream = Answers<wire::ListJobsResponse>;
    type WatchJobStream = Answers<wire::WatchJobResponse>;
    type ReadLogsStream = Answers<wire::ReadLogsResponse>;
    type ReadMetricsStream = Answers<wire::ReadMetricsResponse>;
    type ReadDigestsStream = Answers<wire::ReadDigestsResponse>;

    async fn submit_job(&self, request: Request<wire::SubmitJobRequest>) -> Answer<wire::SubmitJobResponse> {
        let wire::SubmitJobRequest { key, spec_json } = request.into_inner();
        let spec = from_json(&spec_json, "spec_json").map_err(Error::from)?;
        let (job, new) = self.0.submit(key, spec).await?;
        Ok(Response::new(wire::SubmitJobResponse { job: job.to_string(), new }))
    }

    async fn list_jobs(&self, request: Request<wire::ListJobsRequest>) -> Answer<Self::ListJobsStream> {
        let jobs = self.0.jobs(request.into_inner().into()).await?;
        Ok(chunks(jobs, |jobs| wire::ListJobsResponse { jobs: every(jobs) }))
    }

    async fn get_job(&self, request: Request<wire::GetJobRequest>) -> Answer<wire::GetJobResponse> {
        let detail = self.0.job(&request.into_inner().job).await?;
        Ok(Response::new(wire::GetJobResponse { detail: Some(detail.into()) }))
    }

    async fn watch_job(&self, request: Request<wire::WatchJobRequest>) -> Answer<Self::WatchJobStream> {
        let views = self.0.watch(&request.into_inner().job).await?;
        let words = views.map(|view| Ok(wire::WatchJobResponse { job: Some(view?.into()) }));
        Ok(Response::new(Box::pin(words)))
    }

    async fn command_job(&self, request: Request<wire::CommandJobRequest>) -> Answer<wire::CommandJobResponse> {
        let request = request.into_inner();
        let command = match request.command() {
            wire::JobCommand::Cancel => JobCommand::Cancel,
            wire::JobCommand::Pause => JobCommand::Pause,
            wire::JobCommand::Retry => JobCommand::Retry,
            wire::JobCommand::Unspecified => return Err(unknown_command(request.command)),
        };
        self.0.command(&request.job, command).await?;
        Ok(Response::new(wire::CommandJobResponse {}))
    }

    async fn resume_job(&self, request: Request<wire::ResumeJobRequest>) -> Answer<wire::ResumeJobResponse> {
        let wire::ResumeJobRequest { job, from, spec_json } = request.into_inner();
        let spec = spec_json.map(|text| from_json(&text, "spec_json")).transpose().map_err(Error::from)?;
        self.0.resume(&job, from, spec).await?;
        Ok(Response::new(wire::ResumeJobResponse {}))
    }

    async fn explain_job(&self, request: Request<wire::ExplainJobRequest>) -> Answer<wire::ExplainJobResponse> {
        let lines = self.0.explain(&request.into_inner().job).await?;
        Ok(Response::new(wire::ExplainJobResponse { lines }))
    }

    async fn read_logs(&self, request: Request<wire::ReadLogsRequest>) -> Answer<Self::ReadLogsStream> {
        let wire::ReadLogsRequest { job, rank, from_offset, follow } = request.into_inner();
        let query = LogQuery { rank: rank.map(Rank), from_offset, follow };
        let parts = self.0.logs(&job, query).await?;
        let words = parts.map(|part| Ok(wire::ReadLogsResponse { entries: every(part?) }));
        Ok(Response::new(Box::pin(words)))
    }

    async fn read_metrics(&self, request: Request<wire::ReadMetricsRequest>) -> Answer<Self::ReadMetricsStream> {
        let wire::ReadMetricsRequest { job, names, since, max_points } = request.into_inner();
        let points = self.0.metrics(&job, MetricQuery { names, since: Step(since), max_points }).await?;
        Ok(chunks(points, |points| wire::ReadMetricsResponse { points: every(points) }))
    }

    async fn read_digests(&self, request: Request<wire::ReadDigestsRequest>) -> Answer<Self::ReadDigestsStream> {
        let digests = self.0.digests(&request.into_inner().job).await?;
        let digest = |(step, digest): (Step, String)| wire::StepDigest { step: step.0, digest };
        Ok(chunks(digests, move |part| wire::ReadDigestsResponse { digests: part.into_iter().map(digest).collect() }))
    }

    async fn list_checkpoints(
        &self,
        request: Request<wire::ListCheckpointsRequest>,
    ) -> Answer<wire::ListCheckpointsResponse> {
        let checkpoints = self.0.checkpoints(&request.into_inner().job).await?;
        Ok(Response::new(wire::ListCheckpointsResponse { checkpoints: every(checkpoints) }))
    }

    async fn remove_checkpoint(
        &self,
        request: Request<wire::RemoveCheckpointRequest>,
    ) -> Answer<wire::RemoveCheckpointResponse> {
        let wire::RemoveCheckpointRequest { job, step, force } = request.into_inner();
        self.0.remove_checkpoint(&job, Step(step), force).await?;
        Ok(Response::new(wire::RemoveCheckpointResponse {}))
    }

    async fn run_sweep(&self, request: Request<wire::RunSweepRequest>) -> Answer<wire::RunSweepResponse> {
        let wire::RunSweepRequest { key, spec_json } = request.into_inner();
        let spec = from_json(&spec_json, "spec_json").map_err(Error::from)?;
        let (sweep, new) = self.0.sweep_run(key, spec).await?;
        Ok(Response::new(wire::RunSweepResponse { sweep: sweep.to_string(), new }))
    }

    async fn list_sweeps(&self, _: Request<wire::ListSweepsRequest>) -> Answer<wire::ListSweepsResponse> {
        let sweeps = self.0.sweeps().await?;
        Ok(Response::new(wire::ListSweepsResponse { sweeps: every(sweeps) }))
    }

    async fn get_sweep(&self, request: Request<wire::GetSweepRequest>) -> Answer<wire::GetSweepResponse> {
        let sweep = self.0.sweep(&request.into_inner().sweep).await?;
        Ok(Response::new(wire::GetSweepResponse { sweep: Some(sweep.into()) }))
    }

    async fn command_sweep(&self, request: Request<wire::CommandSweepRequest>) -> Answer<wire::CommandSweepResponse> {
        let request = request.into_inner();
        let command = match request.command() {
            wire::SweepCommand::Pause => SweepCommand::Pause,
            wire::SweepCommand::Resume => SweepCommand::Resume,
            wire::SweepCommand::Stop => SweepCommand::Stop,
            wire::SweepCommand::Unspecified => return Err(unknown_command(request.command)),
        };
        self.0.sweep_command(&request.sweep, command).await?;
        Ok(Response::new(wire::CommandSweepResponse {}))
    }

    async fn list_nodes(&self, _: Request<wire::ListNodesRequest>) -> Answer<wire::ListNodesResponse> {
        let nodes = self.0.nodes().await?;
        Ok(Response::new(wire::ListNodesResponse { nodes: every(nodes) }))
    }

    async fn drain_node(&self, request: Request<wire::DrainNodeRequest>) -> Answer<wire::DrainNodeResponse> {
        let wire::DrainNodeRequest { node, drained } = request.into_inner();
        self.0.drain(&node, drained).await?;
        Ok(Response::new(wire::DrainNodeResponse {}))
    }

    async fn get_info(&self, _: Request<wire::GetInfoRequest>) -> Answer<wire::GetInfoResponse> {
        let info = self.0.info().await?;
        Ok(Response::new(info.into()))
    }
}

fn unknown_command(number: i32) -> Status {
    Error::Incompatible { reason: format!("command {number} is unknown here") }.into()
}
