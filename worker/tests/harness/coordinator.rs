//! The coordinator's end of a session, played by the test over a real connection, and an agent as a real process.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use unimse_core::id::{Generation, JobId, Rank, Step, SweepId, WorkerId};
use unimse_core::job::{ExitCause, Readiness};
use unimse_core::machine::{Assign, Form, Order, Report, ReportKind, Seated};
use unimse_core::spec::JobSpec;
use unimse_core::sweep::SweepSpec;
use unimse_core::view::{CheckpointView, JobDetail, JobView, NodeView, SweepView};
use unimse_proto::client::{Info, JobFilter, LogEntry, MetricPoint, SweepCommand};
use unimse_proto::server::{Api, FromAgents, JobCommand, LogQuery, MetricQuery, Sessions, routes};
use unimse_proto::session::{AgentReport, FromAgent, Hello, StepRecord, ToAgent};
use unimse_proto::{Error, Stream};

use super::wait;

pub(crate) const JOB: JobId = JobId(9);

/// All that was heard; shared with the tasks that hear it.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) hellos: Vec<Hello>,
    pub(crate) events: Vec<Report>,
    pub(crate) steps: BTreeMap<Step, StepRecord>,
    pub(crate) lines: Vec<String>,
    /// What agents said of their own end.
    pub(crate) farewell: Vec<String>,
    /// The last number applied, by incarnation.
    pub(crate) applied: BTreeMap<String, u64>,
    to_agent: Option<mpsc::Sender<ToAgent>>,
    refuse: Option<(String, bool)>,
}

#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Heard>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().expect("no panic while holding it")
    }
}

impl Sessions for Shared {
    async fn open(&self, hello: Hello, mut words: FromAgents) -> Result<Stream<ToAgent>, Error> {
        let (sender, queue) = mpsc::channel(256);
        let incarnation = hello.info.incarnation.clone();
        let first = {
            let mut heard = self.lock();
            heard.hellos.push(hello);
            if let Some((reason, register_anew)) = heard.refuse.take() {
                ToAgent::Refused { reason, register_anew }
            } else {
                heard.to_agent = Some(sender.clone());
                let lease = Duration::from_secs(2);
                ToAgent::Welcome { worker: WorkerId(1), cluster: "c".to_owned(), epoch: 1, lease }
            }
        };
        sender.send(first).await.expect("the queue is new");
        let shared = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(word)) = words.next().await {
                let FromAgent::Report { seq, report } = word else { continue };
                shared.apply(&incarnation, seq, report);
                let _ = sender.send(ToAgent::Ack { seq }).await;
            }
        });
        Ok(Box::pin(tokio_stream::StreamExt::map(ReceiverStream::new(queue), Ok)))
    }
}

impl Shared {
    fn apply(&self, incarnation: &str, seq: u64, report: AgentReport) {
        let mut heard = self.lock();
        let applied = heard.applied.entry(incarnation.to_owned()).or_default();
        if seq <= *applied {
            return;
        }
        *applied = seq;
        let events = heard.events.len();
        match report {
            AgentReport::Event(report) => heard.events.push(report),
            AgentReport::Leaving => heard.farewell.push(format!("leaving after {events} reports")),
            AgentReport::Left => heard.farewell.push(format!("left after {events} reports")),
            AgentReport::Steps(steps) => {
                heard.steps.extend(steps.records.into_iter().map(|record| (record.step, record)));
            }
            AgentReport::Logs(logs) => heard.lines.extend(logs.lines.into_iter().map(|line| line.text)),
        }
    }
}

/// Answers sessions on a port until it is dropped.
#[derive(Debug)]
pub(crate) struct Coordinator {
    runtime: Option<Runtime>,
    port: u16,
    shared: Shared,
}

impl Coordinator {
    pub(crate) fn start() -> Self {
        let mut coordinator = Self { runtime: None, port: 0, shared: Shared::default() };
        coordinator.come_back();
        coordinator
    }

    /// Breaks all connections and answers nobody any more.
    pub(crate) fn go_away(&mut self) {
        self.shared.lock().to_agent = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }

    /// Answers again, on the same port and with its memory.
    pub(crate) fn come_back(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", self.port))).expect("the port is free");
        self.port = listener.local_addr().expect("a bound address").port();
        let server = tonic::transport::Server::builder().add_routes(routes(Nobody, self.shared.clone()));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        self.runtime = Some(runtime);
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.shared.lock()
    }

    /// Refuses the next hello.
    pub(crate) fn refuse(&self, reason: &str, register_anew: bool) {
        let mut heard = self.heard();
        heard.refuse = Some((reason.to_owned(), register_anew));
        heard.to_agent = None;
    }

    #[track_caller]
    pub(crate) fn order(&self, order: Order) {
        let to_agent = self.heard().to_agent.clone().expect("an agent is connected");
        to_agent.try_send(ToAgent::Order(order)).expect("the session is open");
    }

    pub(crate) fn wait_for_agent(&self, hellos: usize) {
        wait("the agent says hello", || {
            let heard = self.heard();
            heard.hellos.len() >= hellos && heard.to_agent.is_some()
        });
    }

    /// Seats all ranks on the slots of the same number.
    pub(crate) fn assign(&self, spec: &Arc<JobSpec>, store: &Path, generation: u64, world: u32) {
        self.order(Order::Assign(Assign {
            job: JOB,
            generation: Generation(generation),
            ranks: (0..world).map(|rank| Seated { rank: Rank(rank), slot: rank }).collect(),
            world_size: world,
            spec: Arc::clone(spec),
            checkpoint_uri: store.display().to_string(),
        }));
    }

    /// The trainers of a generation that are ready, by rank.
    pub(crate) fn ready(&self, generation: u64) -> BTreeMap<Rank, Readiness> {
        let ready = |report: &Report| match &report.kind {
            ReportKind::Ready(ready) if report.generation.0 == generation => Some((report.rank, ready.clone())),
            _ => None,
        };
        self.heard().events.iter().filter_map(ready).collect()
    }

    /// Waits until all are ready and tells them of each other.
    pub(crate) fn form(&self, generation: u64, world: usize) {
        wait("all trainers are ready", || self.ready(generation).len() == world);
        let ready = self.ready(generation);
        let newest = ready.iter().filter_map(|(rank, ready)| Some((ready.holds?, *rank)));
        self.order(Order::Form(Form {
            job: JOB,
            generation: Generation(generation),
            peers: ready.values().map(|ready| ready.address.clone()).collect(),
            nccl_id: None,
            source: newest.max_by_key(|&(step, rank)| (step, std::cmp::Reverse(rank))).map(|(step, rank)| (rank, step)),
            resume: None,
        }));
    }

    pub(crate) fn last_step(&self) -> Step {
        self.heard().steps.keys().next_back().copied().unwrap_or_default()
    }

    pub(crate) fn wait_for_step(&self, step: u64) {
        wait(&format!("step {step} is told"), || self.last_step() >= Step(step));
    }

    /// Why trainers of a generation ended, by rank.
    pub(crate) fn exits(&self, generation: u64) -> Vec<(Rank, ExitCause)> {
        let exit = |report: &Report| match &report.kind {
            ReportKind::Exited { cause, .. } if report.generation.0 == generation => Some((report.rank, cause.clone())),
            _ => None,
        };
        self.heard().events.iter().filter_map(exit).collect()
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.go_away();
    }
}

/// An agent with counting trainers; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) child: Child,
}

impl Agent {
    pub(crate) fn start(coordinator: &Coordinator, slots: u32, more: &[&str]) -> Self {
        let more: Vec<&str> = more.iter().copied().chain(["--fake-trainers"]).collect();
        Self::start_real(coordinator, slots, &more)
    }

    /// Starts an agent whose trainers train.
    pub(crate) fn start_real(coordinator: &Coordinator, slots: u32, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_unimse-worker"));
        command.args(["agent", "--coordinator", &coordinator.endpoint(), "--name", "node"]);
        command.args(["--slots", &slots.to_string(), "--threads", "1"]).args(more);
        let child = command.stdin(Stdio::piped()).spawn().expect("the worker starts");
        let agent = Self { child };
        coordinator.wait_for_agent(1);
        agent
    }

    /// The process ids of its trainers.
    pub(crate) fn trainers(&self) -> Vec<u32> {
        children(self.child.id())
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        send(self.child.id(), signal);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn send(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process id"));
    nix::sys::signal::kill(pid, signal).expect("the process is there");
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let mut found: Vec<u32> =
        lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
    found.sort_unstable();
    found
}

/// Whether a process is there and not a zombie.
pub(crate) fn alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit_once(')').and_then(|(_, rest)| rest.trim().chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// People are not served here.
struct Nobody;

fn no<T>() -> Result<T, Error> {
    Err(Error::Unavailable { reason: "this coordinator only knows agents".to_owned() })
}

impl Api for Nobody {
    async fn submit(&self, _: Option<String>, _: JobSpec) -> Result<(JobId, bool), Error> {
        no()
    }
    async fn jobs(&self, _: JobFilter) -> Result<Vec<JobView>, Error> {
        no()
    }
    async fn job(&self, _: &str) -> Result<JobDetail, Error> {
        no()
    }
    async fn watch(&self, _: &str) -> Result<Stream<JobView>, Error> {
        no()
    }
    async fn command(&self, _: &str, _: JobCommand) -> Result<(), Error> {
        no()
    }
    async fn resume(&self, _: &str, _: Option<String>, _: Option<JobSpec>) -> Result<(), Error> {
        no()
    }
    async fn explain(&self, _: &str) -> Result<Vec<String>, Error> {
        no()
    }
    async fn logs(&self, _: &str, _: LogQuery) -> Result<Stream<Vec<LogEntry>>, Error> {
        no()
    }
    async fn metrics(&self, _: &str, _: MetricQuery) -> Result<Vec<MetricPoint>, Error> {
        no()
    }
    async fn digests(&self, _: &str) -> Result<Vec<(Step, String)>, Error> {
        no()
    }
    async fn checkpoints(&self, _: &str) -> Result<Vec<CheckpointView>, Error> {
        no()
    }
    async fn remove_checkpoint(&self, _: &str, _: Step, _: bool) -> Result<(), Error> {
        no()
    }
    async fn sweep_run(&self, _: Option<String>, _: SweepSpec) -> Result<(SweepId, bool), Error> {
        no()
    }
    async fn sweeps(&self) -> Result<Vec<SweepView>, Error> {
        no()
    }
    async fn sweep(&self, _: &str) -> Result<SweepView, Error> {
        no()
    }
    async fn sweep_command(&self, _: &str, _: SweepCommand) -> Result<(), Error> {
        no()
    }
    async fn nodes(&self) -> Result<Vec<NodeView>, Error> {
        no()
    }
    async fn drain(&self, _: &str, _: bool) -> Result<(), Error> {
        no()
    }
    async fn info(&self) -> Result<Info, Error> {
        no()
    }
}
