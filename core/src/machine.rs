//! The coordinator's brain: everything it knows, and [`Machine::step`], the only way in which that changes.
//!
//! An [`Event`] is something that happened or was asked for; the shell makes it durable before anybody hears of the outcome.
//! [`Effect`]s are what the shell has to do; each may be lost with the process, because [`Machine::recover`] and a worker's
//! registration bring about again whatever is still wanted. Replaying the events with their times gives the same state.
//!
//! What is not durable is only *when* a worker was last heard of: [`Machine::heard`] notes it, and [`Machine::due`] turns
//! silence and passed deadlines into events.

mod agent;
mod checkpoints;
mod client;
mod deadlines;
mod departure;
mod effect;
mod event;
mod explain;
mod gang;
mod place;
mod standing;
mod sweeps;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use client::named_checkpoint;
pub use effect::{Assign, Effect, Form, Order, Seated};
pub use event::{Answer, Event, Refusal, Report, ReportKind, ResumeFrom, Submission, TrainerStatus};
pub use sweeps::SweepRecord;

use crate::id::{JobId, SweepId, WorkerId};
use crate::job::Job;
use crate::time::Timestamp;
use crate::worker::Worker;
use standing::Standing;

/// How long trainers may take from assignment until all are ready.
pub const FORM_TIMEOUT: Duration = Duration::from_mins(3);
/// How long ranks may take to save and stop when asked to.
pub const STOP_TIMEOUT: Duration = Duration::from_mins(5);
/// How long ranks that lost a peer wait for news of who died before they are formed anew as they are.
pub const DISRUPTION_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a generation runs before it may be formed anew only to give it more slots.
pub const GROW_AFTER: Duration = Duration::from_secs(30);

/// Everything that is durable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub jobs: BTreeMap<JobId, Job>,
    pub workers: BTreeMap<WorkerId, Worker>,
    pub sweeps: BTreeMap<SweepId, SweepRecord>,
    /// The job that a client's key stands for, for ever.
    pub job_keys: BTreeMap<String, JobId>,
    /// The sweep that a client's key stands for, for ever.
    pub sweep_keys: BTreeMap<String, SweepId>,
    /// Deadlines up to here have been acted on.
    woken: Timestamp,
    next_job: u32,
    next_sweep: u32,
    next_worker: u32,
}

/// The state and what moves it.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    state: State,
    /// The jobs that have not ended; follows from the state and spares walks over years of ended jobs.
    standing: Standing,
    last_heard: BTreeMap<WorkerId, Timestamp>,
}

/// The outcome of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// For whoever caused the event. A refusal means that nothing changed.
    pub answer: Result<Answer, Refusal>,
    pub effects: Vec<Effect>,
}

/// What the parts of one step share: its time and the effects collected so far.
struct Turn {
    now: Timestamp,
    effects: Vec<Effect>,
    changed: BTreeSet<JobId>,
}

impl Turn {
    fn send(&mut self, worker: WorkerId, order: Order) {
        self.effects.push(Effect::Send { worker, order });
    }

    fn changed(&mut self, job: JobId) {
        self.changed.insert(job);
    }
}

impl Machine {
    /// Goes on from a snapshot.
    pub fn from_state(state: State) -> Self {
        let mut machine = Self { state, ..Self::default() };
        machine.standing.update(&machine.state.jobs, machine.state.jobs.keys());
        machine
    }

    /// What is known; views are made from it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Applies one event. Deterministic: the same state, time and event give the same outcome.
    pub fn step(&mut self, now: Timestamp, event: Event) -> Step {
        let mut turn = Turn { now, effects: Vec::new(), changed: BTreeSet::new() };
        let moves_workers = event.moves_workers();
        let answer = self.apply(&mut turn, event);
        let moved = self.standing.update(&self.state.jobs, &turn.changed);
        if answer.is_ok() && (moves_workers || !moved.is_empty()) {
            let hopeless = match (&answer, moved.as_slice()) {
                (Ok(Answer::Job { job, new: true }), [only]) if only == job => self.hopeless(now, *job),
                _ => None,
            };
            match (hopeless, &answer) {
                // A new job that cannot start and cannot displace anybody changes nothing for the thousands before it.
                (Some(why), Ok(Answer::Job { job, .. })) => self.set_reason(&mut turn, *job, why),
                _ => self.reschedule(&mut turn),
            }
            self.standing.update(&self.state.jobs, &turn.changed);
        }
        turn.effects.extend(turn.changed.into_iter().map(Effect::JobChanged));
        Step { answer, effects: turn.effects }
    }

    fn apply(&mut self, turn: &mut Turn, event: Event) -> Result<Answer, Refusal> {
        match event {
            Event::Submit(submission) => self.submit(turn, submission),
            Event::Cancel { job } => self.cancel(turn, job),
            Event::Pause { job } => self.pause(turn, job, "paused by request"),
            Event::Resume { job, from, spec } => self.resume(turn, job, from.as_ref(), spec),
            Event::Retry { job } => self.retry(turn, job),
            Event::RemoveCheckpoint { job, step, force } => self.remove_checkpoint(turn, job, step, force),
            Event::CheckpointDeleted { job, manifest } => Ok(self.checkpoint_deleted(turn, job, &manifest)),
            Event::Drain { worker } => self.drain(turn, worker, true),
            Event::Undrain { worker } => self.drain(turn, worker, false),
            Event::SweepRun { key, spec, checkpoint_uri } => self.sweep_run(turn, key, *spec, checkpoint_uri),
            Event::SweepPause { sweep } => self.sweep_pause(turn, sweep),
            Event::SweepResume { sweep } => self.sweep_resume(turn, sweep),
            Event::SweepStop { sweep } => self.sweep_stop(turn, sweep),
            Event::Register { info, trainers } => self.register(turn, info, &trainers),
            Event::Report { worker, seq, report } => self.report(turn, worker, seq, report),
            Event::WorkerLeaves { worker } => Ok(self.worker_leaves(turn, worker)),
            Event::WorkerLeft { worker } => Ok(self.worker_left(turn, worker)),
            Event::WorkerLost { worker, reason } => Ok(self.worker_lost(turn, worker, &reason)),
            Event::Wake => Ok(self.wake(turn)),
        }
    }

    /// Says again what a shell that has just started must do: deletions that were decided but may not have happened.
    pub fn recover(&mut self, now: Timestamp) -> Vec<Effect> {
        for worker in self.state.workers.values().filter(|worker| worker.alive()) {
            self.last_heard.insert(worker.id, now);
        }
        self.pending_deletions()
    }
}

#[cfg(test)]
mod tests;
