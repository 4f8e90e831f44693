//! The agent: keeps one session with the coordinator, obeys its orders and reports what trainers do.
//!
//! One loop owns everything: it waits for the coordinator, for trainers or for time, hands what it heard to the pure
//! [`Lifecycle`] and carries out the effects. While the coordinator is away trainers go on, and
//! what they say is kept, until the grace is over.

mod oom;
mod outbox;
mod process;
mod session;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;
use unimse_core::id::WorkerId;
use unimse_core::time::{Timestamp, humane};
use unimse_core::worker::{Slot, WorkerInfo};
use unimse_proto::session::{FromAgent, Hello, LogLine, Logs, StepRecord, Steps, ToAgent};

use crate::lifecycle::{Effect, Exit, Input, Launch, Lifecycle, TrainerSteps};
use crate::protocol::ToTrainer;
pub use outbox::Limits;
use outbox::Outbox;
pub use process::Program;
use process::{Heard as FromProcess, Process};
use session::{Heard as FromSession, Session};

/// What an agent is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the coordinator, as `http://host:7800`.
    pub coordinator: String,
    /// Name of this worker, unique in the cluster.
    pub node: String,
    /// Host name or address at which trainers of other workers reach those of this one.
    pub host: String,
    pub slots: Vec<Slot>,
    /// How long trainers go on without word from the coordinator.
    pub grace: Duration,
    /// How long trainers may take to save when the agent is told to end.
    pub stop_timeout: Duration,
    pub trainer: Program,
    pub limits: Limits,
}

impl Config {
    /// How long trainers go on without the coordinator, unless told otherwise.
    pub const GRACE: Duration = Duration::from_mins(10);
    /// How long trainers may take to save, unless told otherwise.
    pub const STOP_TIMEOUT: Duration = Duration::from_mins(5);
}

/// Heartbeats are never sent faster than this.
const FASTEST_HEARTBEAT: Duration = Duration::from_millis(200);
/// How long an agent that ends waits for the coordinator to hear of its trainers' ends.
const FAREWELL: Duration = Duration::from_secs(3);
/// Messages of trainers that may wait for the loop; then their pipes fill up.
const HEARD: usize = 1024;

/// Runs an agent until `shutdown` is cancelled and its trainers have saved, or `kill` is and they are gone.
///
/// Must run on a thread that lives as long as it does: trainers die with the thread that started them.
pub async fn run(config: Config, shutdown: CancellationToken, kill: CancellationToken) {
    let (sender, heard) = mpsc::channel(HEARD);
    let mut agent = Agent::new(config, sender);
    agent.run(heard, shutdown, kill).await;
}

struct Agent {
    config: Config,
    lifecycle: Lifecycle,
    outbox: Outbox,
    processes: BTreeMap<Launch, Process>,
    /// Numbers the log lines of each process.
    lines: BTreeMap<Launch, u64>,
    heard: mpsc::Sender<FromProcess>,
    identity: Identity,
    session: Session,
    /// Whether the coordinator has welcomed this session.
    welcomed: bool,
    failures: u32,
    /// The last reason for being without a coordinator, to say it once.
    last_reason: String,
    /// Since when there is no coordinator; none while there is one, and after the grace.
    away_since: Option<Instant>,
    /// When the end began, and trainers that still save are killed.
    stop_by: Option<Instant>,
}

/// Who this agent is to the coordinator.
#[derive(Debug)]
struct Identity {
    incarnation: String,
    worker: Option<WorkerId>,
    cluster: Option<String>,
    /// The highest coordinator epoch seen: an older coordinator is not obeyed.
    epoch: u64,
    heartbeat: Duration,
}

impl Identity {
    fn fresh() -> Self {
        let incarnation = uuid::Uuid::new_v4().simple().to_string();
        Self { incarnation, worker: None, cluster: None, epoch: 0, heartbeat: Duration::from_secs(1) }
    }
}

/// What the loop waits for.
enum Event {
    Session(FromSession),
    Process(FromProcess),
    Heartbeat,
    RoomToSend,
    GraceOver,
    Stop,
    StopOver,
    Kill,
}

impl Agent {
    fn new(config: Config, heard: mpsc::Sender<FromProcess>) -> Self {
        let lifecycle = Lifecycle::new(config.host.clone(), config.slots.clone());
        let identity = Identity::fresh();
        let session = Session::dial(&config.coordinator, hello(&config, &lifecycle, &identity), Duration::ZERO);
        Self {
            outbox: Outbox::new(config.limits),
            config,
            lifecycle,
            processes: BTreeMap::new(),
            lines: BTreeMap::new(),
            heard,
            identity,
            session,
            welcomed: false,
            failures: 0,
            last_reason: String::new(),
            away_since: Some(Instant::now()),
            stop_by: None,
        }
    }

    async fn run(
        &mut self,
        mut heard: mpsc::Receiver<FromProcess>,
        shutdown: CancellationToken,
        kill: CancellationToken,
    ) {
        let mut heartbeat = self.identity.heartbeat;
        let mut beats = interval_at(Instant::now() + heartbeat, heartbeat);
        let mut killed = false;
        loop {
            if self.identity.heartbeat != heartbeat {
                heartbeat = self.identity.heartbeat;
                beats = interval_at(Instant::now() + heartbeat, heartbeat);
                beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            }
            let grace_over = self.away_since.map(|since| since + self.config.grace);
            let event = tokio::select! {
                Some(heard) = self.session.incoming.recv() => Event::Session(heard),
                Some(heard) = heard.recv() => Event::Process(heard),
                _ = beats.tick(), if self.welcomed => Event::Heartbeat,
                Ok(_) = self.session.outgoing.reserve(), if self.welcomed && self.outbox.has_unsent() => Event::RoomToSend,
                () = at(grace_over), if grace_over.is_some() => Event::GraceOver,
                () = shutdown.cancelled(), if self.stop_by.is_none() => Event::Stop,
                () = at(self.stop_by), if self.stop_by.is_some() && !killed => Event::StopOver,
                () = kill.cancelled(), if !killed => Event::Kill,
            };
            match event {
                Event::Session(FromSession::Message(message)) => self.obey(message),
                Event::Session(FromSession::Closed { reason }) => self.closed(&reason),
                Event::Process(heard) => self.listen(heard),
                // A full queue says the same: this agent lives and has much to say.
                Event::Heartbeat => drop(self.session.outgoing.try_send(FromAgent::Heartbeat)),
                Event::RoomToSend => {}
                Event::GraceOver => self.grace_over(),
                Event::Stop => {
                    tracing::info!("stopping: trainers save and exit");
                    self.leave_by(Instant::now() + self.config.stop_timeout);
                    self.step(Input::StopAll);
                }
                Event::StopOver | Event::Kill => {
                    killed = true;
                    self.leave_by(Instant::now());
                    let reason = "its agent ended before it had saved".to_owned();
                    self.step(Input::KillAll { reason: Some(reason) });
                }
            }
            self.flush();
            if self.stop_by.is_some() && self.lifecycle.is_idle() {
                break;
            }
        }
        self.outbox.left();
        self.flush();
        self.farewell().await;
    }

    /// Begins to end, unless it has begun already. The coordinator hears of it first, so that it counts on none of what ends.
    fn leave_by(&mut self, deadline: Instant) {
        if self.stop_by.is_none() {
            self.stop_by = Some(deadline);
            self.outbox.leaving();
        }
    }

    /// Waits a little for the coordinator to hear how the trainers ended, and that this agent does.
    async fn farewell(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        while self.welcomed && !self.outbox.is_empty() {
            tokio::select! {
                heard = self.session.incoming.recv() => match heard {
                    Some(FromSession::Message(ToAgent::Ack { seq })) => self.outbox.acknowledged(seq),
                    Some(FromSession::Message(_)) => {}
                    Some(FromSession::Closed { .. }) | None => return,
                },
                () = sleep_until(deadline) => return,
            }
            self.flush();
        }
    }

    fn obey(&mut self, message: ToAgent) {
        match message {
            ToAgent::Welcome { worker, cluster, epoch, lease } => {
                if epoch < self.identity.epoch {
                    self.closed(&format!("it is an older coordinator (epoch {epoch}, seen {})", self.identity.epoch));
                    return;
                }
                tracing::info!(%worker, cluster, epoch, "joined");
                self.lifecycle.joined(&cluster);
                self.identity.worker = Some(worker);
                self.identity.cluster = Some(cluster);
                self.identity.epoch = epoch;
                self.identity.heartbeat = (lease / 5).max(FASTEST_HEARTBEAT);
                self.welcomed = true;
                self.failures = 0;
                self.last_reason.clear();
                self.away_since = None;
                self.outbox.resend();
                let outbox::Dropped { records, lines } = self.outbox.dropped();
                if records + lines > 0 {
                    tracing::warn!(records, lines, "telemetry was dropped while the coordinator was away");
                }
            }
            ToAgent::Refused { reason, register_anew } => {
                if register_anew {
                    tracing::warn!(reason, "the coordinator has given up this worker; starting over as a new one");
                    self.step(Input::KillAll { reason: None });
                    self.outbox.reset();
                    self.identity = Identity::fresh();
                    if self.stop_by.is_some() {
                        self.outbox.leaving();
                    }
                }
                self.closed(&reason);
            }
            ToAgent::Order(order) => self.step(Input::Order(order)),
            ToAgent::Ack { seq } => self.outbox.acknowledged(seq),
        }
    }

    /// Dials again; trainers go on.
    fn closed(&mut self, reason: &str) {
        if self.last_reason != reason {
            tracing::warn!(
                reason,
                coordinator = self.config.coordinator,
                "no session with the coordinator, trying again"
            );
            reason.clone_into(&mut self.last_reason);
        }
        if self.welcomed {
            self.away_since = Some(Instant::now());
        }
        self.welcomed = false;
        self.failures += 1;
        let hello = hello(&self.config, &self.lifecycle, &self.identity);
        self.session = Session::dial(&self.config.coordinator, hello, session::pause(self.failures));
    }

    fn grace_over(&mut self) {
        self.away_since = None;
        if !self.lifecycle.is_idle() {
            let reason = format!("no word from the coordinator for {}", humane(self.config.grace));
            tracing::error!(reason, "ending all trainers");
            self.step(Input::KillAll { reason: Some(reason) });
        }
    }

    fn listen(&mut self, heard: FromProcess) {
        match heard {
            FromProcess::Said { launch, message } => self.step(Input::Said { launch, message: *message }),
            FromProcess::Line { launch, level, text } => {
                let Some((job, seat)) = self.lifecycle.seat_of(launch) else { return };
                let number = self.lines.entry(launch).or_default();
                let line = LogLine { number: *number, at: now(), level: level.to_owned(), text };
                *number += 1;
                let source = Logs { job, generation: seat.generation, rank: seat.rank, lines: Vec::new() };
                self.outbox.log(&source, line);
            }
            FromProcess::Exited { launch, exit } => {
                tracing::info!(launch = launch.0, code = exit.code, signal = exit.signal, "trainer exited");
                self.processes.remove(&launch);
                self.lines.remove(&launch);
                self.step(Input::Exited { launch, exit });
            }
        }
    }

    fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for effect in self.lifecycle.step(input) {
                if let Some(caused) = self.carry_out(effect) {
                    inputs.push(caused);
                }
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Start { launch, slot, begin } => {
                let (program, heard) = (&self.config.trainer, self.heard.clone());
                match Process::start(program, launch, &begin.slot, heard) {
                    Ok(process) => {
                        let (job, generation, rank) = (begin.job, begin.seat.generation, begin.seat.rank);
                        tracing::info!(%job, %generation, %rank, slot, pid = process.pid, launch = launch.0, "trainer started");
                        process.tell(&ToTrainer::Begin(begin));
                        self.processes.insert(launch, process);
                    }
                    Err(error) => {
                        let stderr = format!("cannot start {}: {error}", program.path.display());
                        return Some(Input::Exited {
                            launch,
                            exit: Exit { code: Some(127), stderr, ..Exit::default() },
                        });
                    }
                }
            }
            Effect::Tell { launch, message } => {
                if let Some(process) = self.processes.get(&launch) {
                    process.tell(&message);
                }
            }
            Effect::Kill { launch } => {
                if let Some(process) = self.processes.get_mut(&launch) {
                    process.kill();
                }
            }
            Effect::Report(report) => self.outbox.event(report),
            Effect::Steps(steps) => self.outbox.steps(telemetry(steps)),
        }
        None
    }

    /// Sends what waits, as far as there is room.
    fn flush(&mut self) {
        if !self.welcomed {
            return;
        }
        while self.outbox.has_unsent() {
            let Ok(permit) = self.session.outgoing.try_reserve() else { return };
            let Some((seq, report)) = self.outbox.next_unsent() else { return };
            permit.send(FromAgent::Report { seq, report });
        }
    }
}

fn hello(config: &Config, lifecycle: &Lifecycle, identity: &Identity) -> Hello {
    let info = WorkerInfo {
        node: config.node.clone(),
        incarnation: identity.incarnation.clone(),
        host: config.host.clone(),
        slots: config.slots.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Hello { info, trainers: lifecycle.trainers(), cluster: identity.cluster.clone(), epoch: identity.epoch }
}

fn telemetry(steps: TrainerSteps) -> Steps {
    let TrainerSteps { job, generation, rank, progress, records } = steps;
    let record = |record: crate::protocol::StepRecord| StepRecord {
        step: record.step,
        at: record.at,
        digest: record.digest,
        values: record.values,
    };
    Steps { job, generation, rank, progress, records: records.into_iter().map(record).collect() }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
