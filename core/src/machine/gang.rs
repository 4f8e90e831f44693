//! Generations: forming one, forming it anew after a loss, stopping it, and ending a job.

use std::collections::BTreeMap;

use super::effect::{Assign, Form, Order, Seated};
use super::{Machine, Turn};
use crate::backoff::Backoff;
use crate::id::{JobId, Rank, Step, WorkerId};
use crate::job::{AfterStop, ExitCause, Gang, Job, Phase, Seat};
use crate::worker::{Worker, WorkerState};

impl Machine {
    /// Begins the next generation of a job on these seats.
    pub(super) fn assign(&mut self, turn: &mut Turn, job: JobId, seats: Vec<Seat>, why: &str) {
        let record = self.state.jobs.get_mut(&job).expect("callers have looked it up");
        let before = record.phase.gang().map(|gang| gang.seats.clone()).unwrap_or_default();
        record.generation = record.generation.next();
        let gang = Gang::assigned(seats, turn.now);
        let count = gang.seats.len();
        record.note(turn.now, format!("{why}: world size {count}"));
        record.phase = Phase::Starting { gang };
        let record = &self.state.jobs[&job];
        for worker in before.iter().map(|seat| seat.worker).collect::<std::collections::BTreeSet<_>>() {
            if !record.phase.gang().is_some_and(|gang| gang.seats.iter().any(|seat| seat.worker == worker)) {
                turn.send(worker, Order::Kill { job, generation: record.generation });
            }
        }
        for (worker, order) in assignments(record) {
            turn.send(worker, order);
        }
        turn.changed(job);
    }

    /// All trainers are ready: tells them of each other.
    pub(super) fn form_if_ready(&mut self, turn: &mut Turn, job: JobId) {
        let record = self.state.jobs.get_mut(&job).expect("callers have looked it up");
        let Phase::Starting { gang } = &record.phase else { return };
        if gang.ready.len() < gang.seats.len() {
            return;
        }
        let mut gang = gang.clone();
        gang.formed = Some(turn.now);
        record.phase = Phase::Running { gang };
        let form = formation(record).expect("it was formed in the line above");
        let begins = match (&form.source, &form.resume) {
            (Some((rank, step)), _) => format!("formed; state of step {step} from rank {rank}'s memory"),
            (None, Some(at)) => format!("formed; resumes from checkpoint of step {}", at.step),
            (None, None) => "formed; starts from scratch".to_owned(),
        };
        record.note(turn.now, begins);
        for worker in workers_of(record) {
            turn.send(worker, Order::Form(form.clone()));
        }
        turn.changed(job);
    }

    /// Forms the next generation from the seats that are left and free ones; without enough of them the job waits again.
    pub(super) fn regenerate(&mut self, turn: &mut Turn, job: JobId, why: &str) {
        let record = &self.state.jobs[&job];
        let Some(gang) = record.phase.gang() else { return };
        if let Phase::Stopping { then, .. } = &record.phase {
            // It was about to stop anyway; what was not yet saved is lost with the rank that died.
            let then = then.clone();
            self.kill(turn, job);
            self.stopped(turn, job, &then);
            return;
        }
        let usable = |seat: &&Seat| self.state.workers.get(&seat.worker).is_some_and(Worker::takes_ranks);
        let mut seats: Vec<Seat> = gang.seats.iter().filter(usable).copied().collect();
        let resources = &record.spec.resources;
        let (min, max) = (resources.min_slots as usize, resources.slots as usize);
        if seats.len() < max {
            let free = self.free_seats();
            seats.extend(free.into_iter().take(max - seats.len()));
        }
        if seats.len() >= min {
            self.assign(turn, job, seats, why);
        } else {
            self.kill(turn, job);
            let record = self.state.jobs.get_mut(&job).expect("looked up above");
            record.note(turn.now, format!("{why}: {} of at least {min} slots are left, waits for more", seats.len()));
            record.phase = Phase::Queued { since: turn.now, not_before: None, reason: why.to_owned() };
            turn.changed(job);
        }
    }

    /// A trainer died of itself: restarts the job, later when it makes no progress, or gives up when its budget is spent.
    pub(super) fn failed(&mut self, turn: &mut Turn, job: JobId, rank: Rank, cause: &ExitCause, step: Option<Step>) {
        let Some(seat) = self.state.jobs[&job].phase.gang().and_then(|gang| gang.seats.get(rank.0 as usize)).copied()
        else {
            return;
        };
        let worker = self.state.workers.get(&seat.worker);
        let node = worker.map_or("?", |worker| worker.info.node.as_str());
        let what = format!("rank {rank} on {node}/slot{}: {cause}", seat.slot);
        if worker.is_some_and(|worker| worker.state == WorkerState::Leaving) {
            // It was in the way of its agent's end, which is no mistake of the job.
            self.regenerate(turn, job, &what);
            return;
        }
        let record = self.state.jobs.get_mut(&job).expect("looked up above");
        if let ExitCause::Invalid { .. } = cause {
            self.fail(turn, job, &what);
            return;
        }
        record.restarts += 1;
        let reached = step.unwrap_or_default().max(record.durable_step());
        let progressed = record.failed_at.is_none_or(|before| reached > before);
        record.failures_without_progress = if progressed { 0 } else { record.failures_without_progress + 1 };
        record.failed_at = Some(reached);
        let budget = record.spec.restart.max;
        if record.restarts > budget {
            self.fail(
                turn,
                job,
                &format!("{what}; gave up after {budget} restart{}", if budget == 1 { "" } else { "s" }),
            );
        } else if record.failures_without_progress == 0 {
            self.regenerate(turn, job, &what);
        } else {
            let base = record.spec.restart.backoff;
            let backoff = Backoff { base, max: base * 16 };
            let seed = u64::from(job.0) << 32 | u64::from(record.restarts);
            let wait = backoff.delay(record.failures_without_progress - 1, seed);
            let why =
                format!("{what}; no progress since the failure before, next try in {}", crate::time::humane(wait));
            self.kill(turn, job);
            let record = self.state.jobs.get_mut(&job).expect("looked up above");
            record.note(turn.now, why.clone());
            record.phase = Phase::Queued { since: turn.now, not_before: Some(turn.now + wait), reason: why };
            turn.changed(job);
        }
    }

    /// Ends a job as failed.
    pub(super) fn fail(&mut self, turn: &mut Turn, job: JobId, reason: &str) {
        self.end(turn, job, Phase::Failed { at: turn.now, reason: reason.to_owned() }, reason);
        self.tell_sweep_failed(turn, job, reason);
    }

    /// Puts a job in a phase without ranks, killing those that are left.
    pub(super) fn end(&mut self, turn: &mut Turn, job: JobId, phase: Phase, what: &str) {
        self.kill(turn, job);
        let record = self.state.jobs.get_mut(&job).expect("callers have looked it up");
        record.phase = phase;
        record.note(turn.now, what);
        turn.changed(job);
    }

    /// Orders the death of every trainer of a job.
    pub(super) fn kill(&mut self, turn: &mut Turn, job: JobId) {
        let record = &self.state.jobs[&job];
        for worker in workers_of(record) {
            turn.send(worker, Order::Kill { job, generation: record.generation });
        }
    }

    /// Asks a job's ranks to save and stop; a job whose ranks are not all up has nothing to save.
    pub(super) fn stop(&mut self, turn: &mut Turn, job: JobId, then: AfterStop, why: &str) {
        let record = self.state.jobs.get_mut(&job).expect("callers have looked it up");
        match &record.phase {
            Phase::Running { gang } => {
                let gang = gang.clone();
                record.phase = Phase::Stopping { gang, since: turn.now, then };
                record.note(turn.now, format!("asked to save and stop: {why}"));
                for worker in workers_of(record) {
                    turn.send(worker, Order::Stop { job, generation: record.generation });
                }
            }
            Phase::Stopping { gang, since, then: before } => {
                // A person's pause outweighs a move to other slots, never the other way round.
                let then = if *before == AfterStop::Paused { before.clone() } else { then };
                record.phase = Phase::Stopping { gang: gang.clone(), since: *since, then };
            }
            Phase::Starting { .. } => {
                record.note(turn.now, why);
                self.kill(turn, job);
                self.stopped(turn, job, &then);
            }
            _ => {}
        }
        turn.changed(job);
    }

    /// All ranks have stopped, or never will by themselves.
    pub(super) fn stopped(&mut self, turn: &mut Turn, job: JobId, then: &AfterStop) {
        let record = self.state.jobs.get_mut(&job).expect("callers have looked it up");
        let step = record.durable_step();
        match then {
            AfterStop::Paused => {
                record.phase = Phase::Paused { since: turn.now };
                record.note(turn.now, format!("paused at step {step}"));
            }
            AfterStop::Queued { reason } => {
                let reason = reason.clone();
                record.note(turn.now, format!("stopped at step {step}, waits for slots again"));
                record.phase = Phase::Queued { since: turn.now, not_before: None, reason };
            }
        }
        turn.changed(job);
    }

    pub(super) fn jobs_on(&self, worker: WorkerId) -> Vec<JobId> {
        let here =
            |job: &&Job| job.phase.gang().is_some_and(|gang| gang.seats.iter().any(|seat| seat.worker == worker));
        let live = self.standing.live().filter_map(|job| self.state.jobs.get(&job));
        live.filter(here).map(|job| job.id).collect()
    }
}

/// The workers on which a job has ranks, each once.
pub(super) fn workers_of(job: &Job) -> Vec<WorkerId> {
    let mut workers: Vec<WorkerId> =
        job.phase.gang().map(|gang| gang.seats.iter().map(|seat| seat.worker).collect()).unwrap_or_default();
    workers.sort_unstable();
    workers.dedup();
    workers
}

/// The orders that seat the current generation of a job, by worker.
pub(super) fn assignments(job: &Job) -> BTreeMap<WorkerId, Order> {
    let mut ranks: BTreeMap<WorkerId, Vec<Seated>> = BTreeMap::new();
    let seats = job.phase.gang().map(|gang| gang.seats.as_slice()).unwrap_or_default();
    for (rank, seat) in (0..).zip(seats) {
        ranks.entry(seat.worker).or_default().push(Seated { rank: Rank(rank), slot: seat.slot });
    }
    let world_size = u32::try_from(seats.len()).expect("a gang has at most a few thousand ranks");
    let order = |ranks| {
        Order::Assign(Assign {
            job: job.id,
            generation: job.generation,
            ranks,
            world_size,
            spec: job.spec.clone(),
            checkpoint_uri: job.checkpoint_uri.clone(),
        })
    };
    ranks.into_iter().map(|(worker, ranks)| (worker, order(ranks))).collect()
}

/// The message that forms the current generation, once all its trainers have been ready.
pub(super) fn formation(job: &Job) -> Option<Form> {
    let gang = job.phase.gang().filter(|gang| gang.formed.is_some())?;
    let resume = job.resume_point().cloned();
    // Memory is at least as new as any commit, except after a resume by hand from elsewhere, when no trainer was alive.
    let source = gang.newest().filter(|&(_, step)| resume.as_ref().is_none_or(|at| step >= at.step));
    Some(Form {
        job: job.id,
        generation: job.generation,
        peers: gang.ready.values().map(|ready| ready.address.clone()).collect(),
        nccl_id: gang.ready.get(&Rank(0)).and_then(|ready| ready.nccl_id.clone()),
        source,
        resume,
    })
}
