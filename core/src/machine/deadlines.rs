//! Silence and passed deadlines become events.

use std::time::Duration;

use super::event::{Answer, Event};
use super::{DISRUPTION_TIMEOUT, FORM_TIMEOUT, GROW_AFTER, Machine, STOP_TIMEOUT, Turn};
use crate::id::{JobId, WorkerId};
use crate::job::{Job, Phase};
use crate::schedule::PATIENCE;
use crate::time::{Timestamp, humane};

impl Machine {
    /// Notes a sign of life. Not durable: after a restart every worker gets a full lease.
    pub fn heard(&mut self, now: Timestamp, worker: WorkerId) {
        if let Some(last) = self.last_heard.get_mut(&worker) {
            *last = now.max(*last);
        }
    }

    /// When the worker was last heard of by this process.
    pub fn last_heard(&self, worker: WorkerId) -> Option<Timestamp> {
        self.last_heard.get(&worker).copied()
    }

    /// The events that time alone has brought about.
    pub fn due(&self, now: Timestamp, lease: Duration) -> Vec<Event> {
        let mut events: Vec<Event> = self
            .last_heard
            .iter()
            .filter(|&(_, &heard)| now.since(heard) >= lease)
            .map(|(&worker, &heard)| {
                let reason = format!("not heard of for {}", humane(now.since(heard)));
                Event::WorkerLost { worker, reason }
            })
            .collect();
        if self.standing.next_deadline(self.state.woken).is_some_and(|deadline| deadline <= now) {
            events.push(Event::Wake);
        }
        events
    }

    /// When [`Machine::due`] will next have something to say, if nothing happens before.
    pub fn next_deadline(&self, lease: Duration) -> Option<Timestamp> {
        let leases = self.last_heard.values().map(|&heard| heard + lease);
        leases.chain(self.standing.next_deadline(self.state.woken)).min()
    }

    /// Acts on every deadline that has passed since the last time.
    pub(super) fn wake(&mut self, turn: &mut Turn) -> Answer {
        let woken = std::mem::replace(&mut self.state.woken, turn.now);
        for job in self.standing.overdue(woken, turn.now) {
            self.act_on_deadline(turn, job);
            turn.changed(job);
        }
        Answer::Done
    }

    fn act_on_deadline(&mut self, turn: &mut Turn, job: JobId) {
        let now = turn.now;
        let record = self.state.jobs.get_mut(&job).expect("listed by the caller");
        let limit = record.spec.limits.time;
        match &mut record.phase {
            Phase::Queued { not_before, .. } => *not_before = None,
            Phase::Starting { gang } => {
                let missing: Vec<String> = (0..gang.world_size())
                    .filter(|rank| !gang.ready.contains_key(&crate::id::Rank(*rank)))
                    .map(|rank| rank.to_string())
                    .collect();
                let missing = missing.join(", ");
                let cause = crate::job::ExitCause::NotStarted {
                    message: format!("rank {missing} was not ready within {}", humane(FORM_TIMEOUT)),
                };
                let first = missing.split(',').next().and_then(|rank| rank.parse().ok()).unwrap_or_default();
                self.kill(turn, job);
                self.failed(turn, job, first, &cause, None);
            }
            Phase::Running { .. } if limit.is_some_and(|limit| now.since(record.submitted) >= limit) => {
                let limit = humane(limit.unwrap_or_default());
                self.fail(turn, job, &format!("ran into its time limit of {limit} (limits.time)"));
            }
            Phase::Running { gang } if gang.disrupted.is_some_and(|since| now.since(since) >= DISRUPTION_TIMEOUT) => {
                self.regenerate(turn, job, "ranks lost sight of each other though all are alive");
            }
            Phase::Stopping { then, .. } => {
                let then = then.clone();
                self.kill(turn, job);
                self.stopped(turn, job, &then);
            }
            // Growth is the scheduler's, which runs after every event.
            _ => {}
        }
    }
}

/// When something has to happen to a job if nothing else does before.
pub(super) fn deadlines_of(job: &Job) -> impl Iterator<Item = Timestamp> {
    let deadlines = match &job.phase {
        Phase::Queued { not_before: Some(until), .. } => [Some(*until), None, None],
        Phase::Queued { since, .. } => [Some(*since + PATIENCE), None, None],
        Phase::Starting { gang } => [Some(gang.assigned + FORM_TIMEOUT), None, None],
        Phase::Running { gang } => {
            let disrupted = gang.disrupted.map(|since| since + DISRUPTION_TIMEOUT);
            let wants_more = gang.world_size() < job.spec.resources.slots && job.spec.train.zero == 0;
            let grow = gang.formed.filter(|_| wants_more).map(|formed| formed + GROW_AFTER);
            let limit = job.spec.limits.time.map(|limit| job.submitted + limit);
            [disrupted, grow, limit]
        }
        Phase::Stopping { since, .. } => [Some(*since + STOP_TIMEOUT), None, None],
        _ => [None; 3],
    };
    deadlines.into_iter().flatten()
}
