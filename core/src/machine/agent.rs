//! Words of agents: registration and reports.

use std::collections::BTreeMap;

use super::effect::Order;
use super::event::{Answer, Refusal, Report, ReportKind, TrainerStatus};
use super::gang::{assignments, formation};
use super::{Machine, Turn};
use crate::id::{Generation, JobId, Rank, WorkerId};
use crate::job::{AfterStop, Evaluation, ExitCause, Phase};
use crate::worker::{Worker, WorkerInfo, WorkerState};

impl Machine {
    pub(super) fn register(
        &mut self,
        turn: &mut Turn,
        info: WorkerInfo,
        trainers: &[TrainerStatus],
    ) -> Result<Answer, Refusal> {
        let known = self.state.workers.values().rev().find(|worker| worker.info.incarnation == info.incarnation);
        if let Some(worker) = known {
            let id = worker.id;
            if let Some(reason) = worker.gone() {
                return Err(Refusal::WorkerGone { worker: id, reason: reason.to_owned() });
            }
            self.last_heard.insert(id, turn.now);
            self.reconcile(turn, id, trainers);
            return Ok(Answer::Worker(id));
        }
        let namesake = self.state.workers.values().find(|worker| worker.alive() && worker.info.node == info.node);
        if let Some(namesake) = namesake.map(|worker| worker.id) {
            // An agent that was killed and started again comes back under its name before its old lease has run out.
            self.worker_lost(turn, namesake, "its agent was started again");
        }
        let id = WorkerId(self.state.next_worker);
        self.state.next_worker += 1;
        let worker = Worker { id, info, state: WorkerState::Alive, drained: false, joined: turn.now, applied: 0 };
        self.state.workers.insert(id, worker);
        self.last_heard.insert(id, turn.now);
        self.reconcile(turn, id, trainers);
        Ok(Answer::Worker(id))
    }

    /// Whether an agent of that name is alive under another incarnation; the shell knows whether it is connected.
    pub fn namesake(&self, info: &WorkerInfo) -> Option<WorkerId> {
        let other = |worker: &&Worker| worker.info.node == info.node && worker.info.incarnation != info.incarnation;
        self.state.workers.values().filter(|worker| worker.alive()).find(other).map(|worker| worker.id)
    }

    /// Compares what an agent has with what it should have, and sends the difference.
    fn reconcile(&mut self, turn: &mut Turn, worker: WorkerId, trainers: &[TrainerStatus]) {
        let mut stale: BTreeMap<JobId, Generation> = BTreeMap::new();
        for trainer in trainers {
            let wanted = self.state.jobs.get(&trainer.job).is_some_and(|job| {
                let seats = job.phase.gang().map(|gang| gang.seats.as_slice()).unwrap_or_default();
                let seat = seats.get(trainer.rank.0 as usize);
                job.generation == trainer.generation && seat.is_some_and(|seat| seat.worker == worker)
            });
            if !wanted {
                let newest = stale.entry(trainer.job).or_default();
                *newest = trainer.generation.max(*newest);
            }
        }
        for (&job, &generation) in &stale {
            turn.send(worker, Order::Kill { job, generation });
        }
        for job in self.jobs_on(worker) {
            let record = &self.state.jobs[&job];
            let has = |trainer: &&TrainerStatus| trainer.job == job && trainer.generation == record.generation;
            let here: Vec<&TrainerStatus> = trainers.iter().filter(has).collect();
            if here.is_empty()
                && let Some(order) = assignments(record).remove(&worker)
            {
                turn.send(worker, order);
            }
            if here.iter().any(|trainer| !trainer.formed)
                && let Some(form) = formation(record)
            {
                turn.send(worker, Order::Form(form));
            }
            if matches!(record.phase, Phase::Stopping { .. }) {
                turn.send(worker, Order::Stop { job, generation: record.generation });
            }
        }
    }

    pub(super) fn report(
        &mut self,
        turn: &mut Turn,
        worker: WorkerId,
        seq: u64,
        report: Report,
    ) -> Result<Answer, Refusal> {
        let record = self.state.workers.get_mut(&worker).ok_or(Refusal::UnknownWorker(worker))?;
        if let Some(reason) = record.gone() {
            return Err(Refusal::WorkerGone { worker, reason: reason.to_owned() });
        }
        if seq <= record.applied {
            return Ok(Answer::Done);
        }
        record.applied = seq;
        let Report { job, generation, rank, kind } = report;
        let Some(record) = self.state.jobs.get(&job) else { return Ok(Answer::Stale { current: Generation(0) }) };
        let seated = record
            .phase
            .gang()
            .and_then(|gang| gang.seats.get(rank.0 as usize))
            .is_some_and(|seat| seat.worker == worker);
        if generation != record.generation || !seated {
            return Ok(Answer::Stale { current: record.generation });
        }
        self.believe(turn, job, rank, kind);
        Ok(Answer::Done)
    }

    /// Applies a report of the current generation.
    fn believe(&mut self, turn: &mut Turn, job: JobId, rank: Rank, kind: ReportKind) {
        let record = self.state.jobs.get_mut(&job).expect("looked up by the caller");
        match kind {
            ReportKind::Ready(readiness) => {
                if let Phase::Starting { gang } = &mut record.phase {
                    gang.ready.insert(rank, readiness);
                    self.form_if_ready(turn, job);
                }
            }
            ReportKind::PeerLost { step, detail } => {
                if let Some(gang) = record.phase.gang_mut()
                    && gang.disrupted.is_none()
                {
                    gang.disrupted = Some(turn.now);
                    record.note(turn.now, format!("rank {rank} lost a peer after step {step}: {detail}"));
                    turn.changed(job);
                }
            }
            ReportKind::Evaluated { step, mut metrics } => {
                // JSON has no NaN; a metric that is not a number is as good as absent.
                metrics.retain(|_, value| value.is_finite());
                if record.evaluation.as_ref().is_none_or(|before| step > before.step) {
                    record.evaluation = Some(Evaluation { step, metrics });
                    turn.changed(job);
                    self.tell_sweep_reported(turn, job);
                }
            }
            ReportKind::Committed { at, bytes, world_size, metrics } => {
                self.commit(turn, job, at, bytes, world_size, metrics);
            }
            ReportKind::Finished { step } => {
                let Some(gang) = record.phase.gang_mut() else { return };
                gang.finished.push(rank);
                if rank == Rank(0) {
                    // The other ranks have nothing left to do but to exit.
                    record.phase = Phase::Completed { at: turn.now };
                    record.note(turn.now, format!("completed at step {step}"));
                    turn.changed(job);
                    self.tell_sweep_finished(turn, job);
                }
            }
            ReportKind::Exited { cause, step } => self.exited(turn, job, rank, &cause, step),
        }
    }

    fn exited(&mut self, turn: &mut Turn, job: JobId, rank: Rank, cause: &ExitCause, step: Option<crate::id::Step>) {
        let record = self.state.jobs.get_mut(&job).expect("looked up by the caller");
        match (cause, &mut record.phase) {
            (ExitCause::Finished, phase) => {
                let done = phase.gang().is_some_and(|gang| gang.finished.contains(&rank));
                if !done {
                    self.failed(turn, job, rank, cause, step);
                }
            }
            (ExitCause::Stopped, Phase::Stopping { gang, then, .. }) => {
                gang.finished.push(rank);
                if gang.finished.len() >= gang.seats.len() {
                    let then = then.clone();
                    self.stopped(turn, job, &then);
                }
            }
            (ExitCause::Stopped, Phase::Running { gang } | Phase::Starting { gang }) => {
                // Its agent is being stopped and let it save; the stop travels to all ranks with the gradients.
                let mut gang = gang.clone();
                gang.finished.push(rank);
                let alone = gang.finished.len() >= gang.seats.len();
                let then = AfterStop::Queued { reason: "its worker was stopped".to_owned() };
                record.note(turn.now, format!("rank {rank} saved and stopped because its worker was told to end"));
                record.phase = Phase::Stopping { gang, since: turn.now, then: then.clone() };
                turn.changed(job);
                if alone {
                    self.stopped(turn, job, &then);
                }
            }
            (ExitCause::CheckpointDamaged { manifest, message }, _) => {
                let (manifest, message) = (manifest.clone(), message.clone());
                self.damaged(turn, job, &manifest, &message);
            }
            _ => self.failed(turn, job, rank, cause, step),
        }
    }
}
