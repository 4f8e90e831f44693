//! Workers that go: in order, or without a word.

use super::event::Answer;
use super::{Machine, Turn};
use crate::id::{JobId, Rank, WorkerId};
use crate::job::{AfterStop, Gang, Phase};
use crate::worker::WorkerState;

impl Machine {
    /// Its agent was asked to end. What trains saves and stops, so that the job goes on elsewhere without losing a step, even when
    /// every worker leaves at once; what is still being formed has nothing to save and is formed without it.
    pub(super) fn worker_leaves(&mut self, turn: &mut Turn, worker: WorkerId) -> Answer {
        let alive = self.state.workers.get_mut(&worker).filter(|record| record.state == WorkerState::Alive);
        let Some(record) = alive else { return Answer::Done };
        record.state = WorkerState::Leaving;
        let why = format!("worker {} leaves", record.info.node);
        for job in self.jobs_on(worker) {
            match &self.state.jobs[&job].phase {
                Phase::Running { gang } if gang.disrupted.is_none() => {
                    self.stop(turn, job, AfterStop::Queued { reason: why.clone() }, &why);
                }
                // It saves and stops already.
                Phase::Stopping { .. } => {}
                _ => self.regenerate(turn, job, &why),
            }
        }
        Answer::Done
    }

    /// Its last trainer has ended, and so does the agent.
    pub(super) fn worker_left(&mut self, turn: &mut Turn, worker: WorkerId) -> Answer {
        self.depart(turn, worker, WorkerState::Left { at: turn.now }, |node| format!("worker {node} left"))
    }

    /// It is gone, and with it whatever its trainers had not said.
    pub(super) fn worker_lost(&mut self, turn: &mut Turn, worker: WorkerId, reason: &str) -> Answer {
        let state = WorkerState::Lost { at: turn.now, reason: reason.to_owned() };
        self.depart(turn, worker, state, |node| format!("worker {node} is lost ({reason})"))
    }

    fn depart(
        &mut self,
        turn: &mut Turn,
        worker: WorkerId,
        state: WorkerState,
        why: impl Fn(&str) -> String,
    ) -> Answer {
        let Some(record) = self.state.workers.get_mut(&worker).filter(|record| record.alive()) else {
            return Answer::Done;
        };
        record.state = state;
        let why = why(&record.info.node);
        self.last_heard.remove(&worker);
        for job in self.jobs_on(worker) {
            // Ranks that have saved and stopped are not missed: the others may still be writing their part.
            if !self.all_stopped_on(worker, job) {
                self.regenerate(turn, job, &why);
            }
        }
        Answer::Done
    }

    fn all_stopped_on(&self, worker: WorkerId, job: JobId) -> bool {
        let Phase::Stopping { gang, .. } = &self.state.jobs[&job].phase else { return false };
        ranks_on(gang, worker).all(|rank| gang.finished.contains(&rank))
    }
}

fn ranks_on(gang: &Gang, worker: WorkerId) -> impl Iterator<Item = Rank> {
    let seats = (0..).zip(&gang.seats);
    seats.filter(move |(_, seat)| seat.worker == worker).map(|(rank, _)| Rank(rank))
}
