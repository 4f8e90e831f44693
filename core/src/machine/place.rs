//! Between the machine's jobs and workers and the scheduler's dense problem.

use std::collections::BTreeSet;

use super::{GROW_AFTER, Machine, Turn};
use crate::id::{JobId, WorkerId};
use crate::job::{AfterStop, Job, Phase, Seat};
use crate::schedule::{Claim, Node, Problem, SlotOrd, Verdict, solve};
use crate::time::Timestamp;

impl Machine {
    /// Gives free slots to those who wait, and each of the others its reason.
    pub(super) fn reschedule(&mut self, turn: &mut Turn) {
        let (problem, workers) = self.problem(turn.now);
        if problem.claims.iter().all(|claim| claim.holds > 0 && !claim.may_grow) {
            return;
        }
        let seats = |slots: &[SlotOrd]| -> Vec<Seat> {
            slots.iter().map(|slot| Seat { worker: workers[slot.node], slot: slot.slot }).collect()
        };
        for (job, verdict) in solve(&problem).verdicts {
            match verdict {
                Verdict::Keep => {}
                Verdict::Start(slots) => self.assign(turn, job, seats(&slots), "starts"),
                Verdict::Grow(slots) => {
                    let mut all = self.state.jobs[&job].phase.gang().map(|gang| gang.seats.clone()).unwrap_or_default();
                    all.extend(seats(&slots));
                    self.assign(turn, job, all, "grows into free slots");
                }
                Verdict::Preempt { by } => {
                    let reason = format!("makes room for {by}, which has a higher priority");
                    self.stop(turn, job, AfterStop::Queued { reason: reason.clone() }, &reason);
                }
                Verdict::Wait { reason } => self.set_reason(turn, job, reason),
            }
        }
    }

    pub(super) fn set_reason(&mut self, turn: &mut Turn, job: JobId, new: String) {
        let record = self.state.jobs.get_mut(&job).expect("the problem names known jobs");
        if let Phase::Queued { reason, not_before, .. } = &mut record.phase
            && not_before.is_none_or(|until| until <= turn.now)
            && *reason != new
        {
            *reason = new;
            turn.changed(job);
        }
    }

    /// Why a job can neither start nor make anybody stop, whatever the other waiting jobs want; none if it might.
    pub(super) fn hopeless(&self, now: Timestamp, job: JobId) -> Option<String> {
        let ids: Vec<JobId> = self.standing.seated().chain([job]).collect();
        let (problem, _) = self.problem_of(now, ids.into_iter());
        crate::schedule::hopeless(&problem, job)
    }

    /// The problem as it stands, and which worker each of its nodes is.
    pub(super) fn problem(&self, now: Timestamp) -> (Problem, Vec<WorkerId>) {
        self.problem_of(now, self.standing.live())
    }

    fn problem_of(&self, now: Timestamp, jobs: impl Iterator<Item = JobId> + Clone) -> (Problem, Vec<WorkerId>) {
        let taken = self.taken(jobs.clone());
        let mut nodes = Vec::new();
        let mut workers = Vec::new();
        for worker in self.state.workers.values().filter(|worker| worker.takes_ranks()) {
            let total = u32::try_from(worker.info.slots.len()).expect("slots of one worker fit u32");
            let free = (0..total).filter(|&slot| !taken.contains(&Seat { worker: worker.id, slot })).collect();
            nodes.push(Node { free, total });
            workers.push(worker.id);
        }
        let claims = jobs.filter_map(|job| claim(self.state.jobs.get(&job)?, now)).collect();
        (Problem { nodes, claims }, workers)
    }

    pub(super) fn free_seats(&self) -> Vec<Seat> {
        let taken = self.taken(self.standing.live());
        let usable = self.state.workers.values().filter(|worker| worker.takes_ranks());
        let seats = usable.flat_map(|worker| {
            let total = u32::try_from(worker.info.slots.len()).expect("slots of one worker fit u32");
            (0..total).map(|slot| Seat { worker: worker.id, slot })
        });
        seats.filter(|seat| !taken.contains(seat)).collect()
    }

    /// The slots on which these jobs sit, as of this moment: within a step the index lags behind.
    fn taken(&self, jobs: impl Iterator<Item = JobId>) -> BTreeSet<Seat> {
        let known = jobs.filter_map(|job| self.state.jobs.get(&job));
        known.filter_map(|job| job.phase.gang()).flat_map(|gang| gang.seats.iter().copied()).collect()
    }
}

fn claim(job: &Job, now: Timestamp) -> Option<Claim> {
    let resources = &job.spec.resources;
    let base = Claim {
        job: job.id,
        min: resources.min_slots,
        max: resources.slots,
        priority: resources.priority,
        holds: 0,
        stopping: false,
        ready: true,
        waited: std::time::Duration::ZERO,
        cost: std::time::Duration::ZERO,
        may_grow: false,
    };
    match &job.phase {
        Phase::Queued { since, not_before, .. } => {
            let ready = not_before.is_none_or(|until| until <= now);
            Some(Claim { ready, waited: now.since(*since), ..base })
        }
        Phase::Starting { gang } | Phase::Running { gang } | Phase::Stopping { gang, .. } => {
            let committed = job.latest().map_or(Timestamp(0), |record| record.committed);
            // What was not saved since is what a stop without warning would lose; a younger gang has had less to lose.
            let unsaved_since = committed.max(gang.formed.unwrap_or(now));
            let running = matches!(job.phase, Phase::Running { .. });
            Some(Claim {
                holds: gang.world_size(),
                stopping: matches!(job.phase, Phase::Stopping { .. }),
                cost: now.since(unsaved_since),
                // Where moments are shared out, a new generation goes back to the last checkpoint.
                may_grow: running
                    && job.spec.train.zero == 0
                    && gang.formed.is_some_and(|formed| now.since(formed) >= GROW_AFTER),
                ..base
            })
        }
        _ => None,
    }
}
