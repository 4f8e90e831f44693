//! THE loop: waits for messages, applies all that have queued up as one turn of the machine, commits it once, then lets the outcome out.
//!
//! Nothing else changes the machine. An answer, an order or a view leaves only after the turn behind it is durable, so nobody ever hears
//! of something that a crash could take back. While a commit waits for the disk the next turn queues up: the busier, the larger.
//!
//! When the disk is full the turn is forgotten by reading the journal back, everybody who asked is told, and nothing is stepped until a
//! trial write finds room again; training goes on meanwhile. Any other failure of the journal ends the loop, and with it the process.

mod message;
mod present;
mod sessions;

use std::time::{Duration, Instant};

use tokio::sync::{broadcast, mpsc, oneshot};
use unimse_core::id::JobId;
use unimse_core::machine::{Answer, Effect, Event, Machine, Refusal, Report, ReportKind, Step};
use unimse_core::time::Timestamp;
use unimse_core::view::Progress;
use unimse_proto::session::{Hello, StepRecord, Steps, ToAgent};

pub use message::Failure;
pub(crate) use message::{Link, Message, Query, Rejection, Reply, SessionKey, Word};
pub use present::Present;

use crate::clock::Clock;
use crate::dispatch::Deletion;
use crate::journal::{self, Encoded, Identity, Journal, Turn};
use crate::meters::{Count, Meters};
use crate::telemetry::{Telemetry, Write};
use present::{Fenced, Newest, fence};
use sessions::Sessions;

/// Messages that wait for the loop before their senders do.
pub(crate) const INBOX: usize = 4096;
/// Messages in one turn.
const LARGEST_TURN: usize = 1024;
/// How often a full disk is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// A loop that wakes that much too late was stopped itself; the silence it finds is its own.
const STALL: Duration = Duration::from_secs(1);

/// What the loop needs besides the machine.
pub(crate) struct Parts {
    pub(crate) journal: Box<dyn Journal>,
    pub(crate) identity: Identity,
    pub(crate) lease: Duration,
    pub(crate) snapshot_turns: u64,
    pub(crate) snapshot_bytes: u64,
    pub(crate) inbox: mpsc::Receiver<Message>,
    pub(crate) telemetry: Telemetry,
    pub(crate) changes: broadcast::Sender<JobId>,
    pub(crate) deletions: mpsc::UnboundedSender<Deletion>,
    pub(crate) meters: std::sync::Arc<Meters>,
}

pub(crate) struct Service {
    machine: Machine,
    clock: Clock,
    parts: Parts,
    sessions: Sessions,
    newest: Newest,
    /// Turns and bytes since the last snapshot.
    since_snapshot: (u64, u64),
    /// When the journal found no room, the time of the next trial.
    full_until: Option<(Timestamp, String)>,
    deadline: Option<Timestamp>,
}

/// A validation is an event, because it decides; its metrics are curves as well.
fn evaluation(now: Timestamp, event: &Event) -> Option<Steps> {
    let Event::Report { report: Report { job, generation, rank, kind }, .. } = event else { return None };
    let ReportKind::Evaluated { step, metrics } = kind else { return None };
    let record = StepRecord { step: *step, at: now, digest: String::new(), values: metrics.clone() };
    let (progress, records) = (Progress::default(), vec![record]);
    Some(Steps { job: *job, generation: *generation, rank: *rank, progress, records })
}

/// Who waits for the outcome of an event.
enum Asker {
    /// Time itself.
    Nobody,
    Client(Reply<Answer>),
    Agent(SessionKey, Reply<()>),
    Newcomer(Box<Hello>, Link, oneshot::Sender<Result<SessionKey, Rejection>>),
}

/// What waits until the turn is durable.
enum Later {
    Query(Query),
    Word(SessionKey, Word, Reply<()>),
    /// The points of curves that an event brought along.
    Points(Steps),
}

#[derive(Default)]
struct Gathered {
    events: Vec<Event>,
    encoded: Vec<Encoded>,
    askers: Vec<Asker>,
    later: Vec<Later>,
    stop: Option<bool>,
}

impl Gathered {
    fn push(&mut self, event: Event, encoded: Encoded, asker: Asker) {
        self.events.push(event);
        self.encoded.push(encoded);
        self.askers.push(asker);
    }
}

impl Service {
    /// Goes on where a journal left off; `replayed` turns make the next snapshot due earlier.
    pub(crate) fn new(machine: Machine, newest: Timestamp, replayed: u64, parts: Parts) -> Self {
        let mut service = Self {
            machine,
            clock: Clock::start(newest),
            parts,
            sessions: Sessions::default(),
            newest: Newest::default(),
            since_snapshot: (replayed, 0),
            full_until: None,
            deadline: None,
        };
        let now = service.clock.now();
        let effects = service.machine.recover(now);
        service.perform(effects);
        service.deadline = service.machine.next_deadline(service.parts.lease);
        service
    }

    /// Runs until it is told to stop, or until the journal fails.
    pub(crate) async fn run(mut self) -> Result<(), journal::Error> {
        let mut batch = Vec::with_capacity(LARGEST_TURN);
        loop {
            let wake = tokio::time::Instant::from_std(self.wake());
            let received = tokio::time::timeout_at(wake, self.parts.inbox.recv_many(&mut batch, LARGEST_TURN)).await;
            let orphaned = received == Ok(0);
            let stop = self.turn(std::mem::take(&mut batch))?;
            if let Some(snapshot) = stop.or_else(|| orphaned.then_some(true)) {
                if snapshot {
                    self.snapshot()?;
                }
                return Ok(());
            }
        }
    }

    fn wake(&self) -> Instant {
        let far = Duration::from_hours(1);
        let trial = self.full_until.as_ref().map(|(until, _)| *until);
        let due = if trial.is_some() { trial } else { self.deadline };
        let due = due.map_or_else(|| Instant::now() + far, |due| self.clock.instant(due));
        // A deadline that stays in the past for whatever reason must not make the loop spin.
        due.max(Instant::now() + Duration::from_millis(1))
    }

    /// One turn; gives back whether and how to stop.
    fn turn(&mut self, batch: Vec<Message>) -> Result<Option<bool>, journal::Error> {
        let now = self.clock.now();
        self.forgive_own_stall(now);
        let mut gathered = self.gather(now, batch);
        if self.has_room(now)? {
            let passed = self.deadline.is_some_and(|deadline| deadline <= now);
            if passed {
                for event in self.machine.due(now, self.parts.lease) {
                    let encoded = Encoded::event(&event);
                    gathered.push(event, encoded, Asker::Nobody);
                }
            }
            // Signs of life only put deadlines off: what is known is at most too early.
            let stepped = !gathered.events.is_empty();
            if stepped {
                self.apply(now, &mut gathered)?;
            }
            if passed || stepped {
                self.deadline = self.machine.next_deadline(self.parts.lease);
            }
        } else {
            let reason = self.full_until.as_ref().map(|(_, reason)| reason.clone()).unwrap_or_default();
            self.refuse_all(now, std::mem::take(&mut gathered.askers), &reason);
        }
        for later in gathered.later {
            match later {
                Later::Query(query) => query(&self.present(now)),
                Later::Word(session, word, reply) => self.forward(session, word, reply),
                Later::Points(mut steps) => {
                    if fence(&self.machine, &mut steps) != Fenced::Stale {
                        // The agent waits for its event, not for these: written again they would change nothing.
                        self.parts.telemetry.write(Write::Steps(steps), oneshot::channel().0);
                    }
                }
            }
        }
        Ok(gathered.stop)
    }

    /// Sorts a batch: what needs no durability happens at once, events wait for the turn, looks and telemetry for its end.
    fn gather(&mut self, now: Timestamp, batch: Vec<Message>) -> Gathered {
        let mut gathered = Gathered::default();
        for message in batch {
            match message {
                Message::Apply { event, encoded, reply } => gathered.push(event, encoded, Asker::Client(reply)),
                Message::Hello { hello, register, encoded, link, reply } => {
                    let workers = self.machine.state().workers.values().rev();
                    let known = workers.into_iter().find(|worker| worker.info.incarnation == hello.info.incarnation);
                    if let Some(known) = known.map(|worker| worker.id) {
                        self.machine.heard(now, known);
                    }
                    match self.sessions.admit(&self.machine, &self.parts.identity, &hello) {
                        Ok(()) => gathered.push(register, encoded, Asker::Newcomer(hello, link, reply)),
                        Err(rejection) => drop(reply.send(Err(rejection))),
                    }
                }
                Message::Word { session, word, reply } => {
                    if !self.sessions.is_current(session) {
                        drop(reply.send(Err(Failure::SessionOver)));
                        continue;
                    }
                    self.machine.heard(now, session.worker);
                    match word {
                        Word::Event(event, encoded) => {
                            gathered.later.extend(evaluation(now, &event).map(Later::Points));
                            gathered.push(event, encoded, Asker::Agent(session, reply));
                        }
                        word => gathered.later.push(Later::Word(session, word, reply)),
                    }
                }
                Message::Heartbeat(session) if self.sessions.is_current(session) => {
                    self.machine.heard(now, session.worker);
                }
                Message::Heartbeat(_) => {}
                Message::Closed(session) => self.sessions.close(session),
                Message::Query(query) => gathered.later.push(Later::Query(query)),
                Message::Stop { snapshot } => gathered.stop = Some(snapshot),
            }
        }
        gathered
    }

    /// Steps, commits, and lets the outcome out.
    fn apply(&mut self, now: Timestamp, gathered: &mut Gathered) -> Result<(), journal::Error> {
        let askers = std::mem::take(&mut gathered.askers);
        let events = std::mem::take(&mut gathered.events);
        let steps: Vec<Step> = events.into_iter().map(|event| self.machine.step(now, event)).collect();
        let accepted = steps.iter().zip(std::mem::take(&mut gathered.encoded)).filter(|(step, _)| step.answer.is_ok());
        let turn = Turn { at: now, events: accepted.map(|(_, encoded)| encoded).collect() };
        if !turn.events.is_empty() {
            let started = Instant::now();
            match self.parts.journal.append(&turn) {
                Ok(()) => {}
                Err(journal::Error::Full(reason)) => {
                    tracing::error!(reason, "the journal found no room; the turn is taken back");
                    self.full_until = Some((now + TRY_AGAIN, reason.clone()));
                    self.parts.meters.set_full(true);
                    (self.machine, _) = self.parts.journal.load()?.replay();
                    self.refuse_all(now, askers, &reason);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            self.parts.meters.committed(turn.events.len() as u64, started.elapsed());
            self.since_snapshot.0 += 1;
            self.since_snapshot.1 += turn.events.iter().map(|event| event.bytes().len() as u64).sum::<u64>();
        }
        for (asker, step) in askers.into_iter().zip(steps) {
            self.answer(asker, step);
        }
        self.sessions.dismiss_lost(&self.machine, &self.parts.meters);
        if self.since_snapshot.0 >= self.parts.snapshot_turns && self.since_snapshot.1 >= self.parts.snapshot_bytes {
            self.snapshot()?;
        }
        Ok(())
    }

    fn answer(&mut self, asker: Asker, step: Step) {
        let Step { answer, effects } = step;
        match asker {
            Asker::Nobody => {}
            Asker::Client(reply) => {
                if answer.is_err() {
                    self.parts.meters.count(Count::Refusal);
                }
                drop(reply.send(answer.map_err(Failure::Refused)));
            }
            Asker::Agent(_, reply) => {
                if matches!(answer, Ok(Answer::Stale { .. })) {
                    self.parts.meters.count(Count::Stale);
                }
                drop(reply.send(answer.map(drop).map_err(Failure::Refused)));
            }
            Asker::Newcomer(hello, link, reply) => drop(reply.send(self.welcome(&hello, link, answer))),
        }
        self.perform(effects);
    }

    fn welcome(&mut self, hello: &Hello, link: Link, answer: Result<Answer, Refusal>) -> Result<SessionKey, Rejection> {
        match answer {
            Ok(Answer::Worker(worker)) => {
                let Identity { cluster, epoch } = self.parts.identity.clone();
                let welcome = ToAgent::Welcome { worker, cluster, epoch, lease: self.parts.lease };
                tracing::info!(%worker, node = hello.info.node, slots = hello.info.slots.len(), "worker is here");
                self.parts.meters.count(Count::SessionOpened);
                Ok(self.sessions.install(worker, link, welcome))
            }
            Ok(other) => Err(Rejection { reason: format!("unexpected answer {other:?}"), register_anew: false }),
            Err(refusal) => {
                let register_anew = matches!(refusal, Refusal::WorkerGone { .. });
                Err(Rejection { reason: refusal.to_string(), register_anew })
            }
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { worker, order } => self.sessions.send(worker, order, &self.parts.meters),
                Effect::DeleteCheckpoint { job, at } => drop(self.parts.deletions.send(Deletion { job, at })),
                // Nobody watching is no mistake.
                Effect::JobChanged(job) => drop(self.parts.changes.send(job)),
                Effect::SweepChanged(_) => {}
            }
        }
    }

    /// Steps and logs: fenced here, kept elsewhere. The telemetry answers when it has them.
    fn forward(&mut self, session: SessionKey, word: Word, reply: Reply<()>) {
        let write = match word {
            Word::Steps(mut steps) => match fence(&self.machine, &mut steps) {
                Fenced::Stale => {
                    tracing::debug!(job = %steps.job, generation = %steps.generation, worker = %session.worker, "stale steps");
                    self.parts.meters.count(Count::Stale);
                    None
                }
                fenced => {
                    if fenced == Fenced::Current {
                        self.newest.note(&steps);
                        drop(self.parts.changes.send(steps.job));
                    }
                    Some(Write::Steps(steps))
                }
            },
            // The last words of a generation that is over are what people look for after a crash.
            Word::Logs(logs) => {
                let job = self.machine.state().jobs.get(&logs.job);
                job.is_some_and(|job| logs.generation <= job.generation).then_some(Write::Logs(logs))
            }
            Word::Event(..) => None,
        };
        match write {
            Some(write) => self.parts.telemetry.write(write, reply),
            None => drop(reply.send(Ok(()))),
        }
    }

    /// Whether the journal has room, as far as is known; tries now and then when it had none.
    fn has_room(&mut self, now: Timestamp) -> Result<bool, journal::Error> {
        let Some((until, _)) = &self.full_until else { return Ok(true) };
        if now < *until {
            return Ok(false);
        }
        match self.parts.journal.probe() {
            Ok(()) => {
                tracing::info!("the journal has room again");
                self.full_until = None;
                self.parts.meters.set_full(false);
                // Nobody could be declared lost meanwhile, and nobody is to blame for it now.
                drop(self.machine.recover(now));
                Ok(true)
            }
            Err(journal::Error::Full(reason)) => {
                self.full_until = Some((now + TRY_AGAIN, reason));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Nothing of the turn is durable. Agents lose their session, so that they repeat in order what they said.
    fn refuse_all(&mut self, now: Timestamp, askers: Vec<Asker>, reason: &str) {
        for asker in askers {
            match asker {
                Asker::Nobody => {}
                Asker::Client(reply) => drop(reply.send(Err(Failure::Full(reason.to_owned())))),
                Asker::Agent(session, reply) => {
                    self.sessions.close(session);
                    drop(reply.send(Err(Failure::Full(reason.to_owned()))));
                }
                Asker::Newcomer(_, _, reply) => {
                    let reason = Failure::Full(reason.to_owned()).to_string();
                    drop(reply.send(Err(Rejection { reason, register_anew: false })));
                }
            }
        }
        drop(self.machine.recover(now));
    }

    /// After a stop of its own (a paused machine, a disk that hung) the loop cannot tell who was silent.
    fn forgive_own_stall(&mut self, now: Timestamp) {
        if self.deadline.is_some_and(|deadline| now.since(deadline) > STALL.max(self.parts.lease / 2)) {
            tracing::warn!("the coordinator itself was stopped for a while; every worker gets a full lease");
            drop(self.machine.recover(now));
        }
    }

    fn snapshot(&mut self) -> Result<(), journal::Error> {
        if self.since_snapshot.0 == 0 {
            return Ok(());
        }
        let state = serde_json::to_vec(self.machine.state()).expect("the state is plain data with text keys");
        match self.parts.journal.snapshot(&state) {
            Ok(()) => {
                self.since_snapshot = (0, 0);
                self.parts.meters.count(Count::Snapshot);
                Ok(())
            }
            // The turns are still there; a snapshot only makes the next start shorter.
            Err(journal::Error::Full(reason)) => {
                tracing::warn!(reason, "no room for a snapshot");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn present(&self, now: Timestamp) -> Present<'_> {
        Present { machine: &self.machine, now, sessions: self.sessions.len(), progress: &self.newest }
    }
}
