//! Which jobs have not ended, which hold slots, and when something is due: an index that follows from the state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::deadlines::deadlines_of;
use crate::id::JobId;
use crate::job::{Job, Phase};
use crate::time::Timestamp;

/// How a job stands towards the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stands {
    holds: u32,
    waits: bool,
    stopping: bool,
    generation: u64,
}

/// All jobs that have not ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    live: BTreeMap<JobId, Stands>,
    seated: BTreeSet<JobId>,
    /// Every deadline of theirs: thousands that wait must not be asked each time whether theirs has come.
    deadlines: BTreeSet<(Timestamp, JobId)>,
    due: BTreeMap<JobId, Vec<Timestamp>>,
}

impl Standing {
    /// Looks again at these jobs; gives those that stand differently than before.
    pub(super) fn update<'a>(
        &mut self,
        jobs: &BTreeMap<JobId, Job>,
        changed: impl IntoIterator<Item = &'a JobId>,
    ) -> Vec<JobId> {
        let mut moved = Vec::new();
        for id in changed {
            let now = jobs.get(id).filter(|job| !job.phase.ended()).map(|job| Stands {
                holds: job.phase.gang().map_or(0, crate::job::Gang::world_size),
                waits: matches!(job.phase, Phase::Queued { .. }),
                stopping: matches!(job.phase, Phase::Stopping { .. }),
                generation: job.generation.0,
            });
            let before = match now {
                Some(now) => self.live.insert(*id, now),
                None => self.live.remove(id),
            };
            if now.is_some_and(|now| now.holds > 0) {
                self.seated.insert(*id);
            } else {
                self.seated.remove(id);
            }
            if before != now {
                moved.push(*id);
            }
            self.set_deadlines(*id, jobs.get(id).map(|job| deadlines_of(job).collect()).unwrap_or_default());
        }
        moved
    }

    fn set_deadlines(&mut self, job: JobId, now: Vec<Timestamp>) {
        let before = if now.is_empty() { self.due.remove(&job) } else { self.due.insert(job, now.clone()) };
        for at in before.unwrap_or_default() {
            self.deadlines.remove(&(at, job));
        }
        self.deadlines.extend(now.into_iter().map(|at| (at, job)));
    }

    /// The first deadline after `woken`.
    pub(super) fn next_deadline(&self, woken: Timestamp) -> Option<Timestamp> {
        self.deadlines.range((woken + Duration::from_millis(1), JobId(0))..).next().map(|&(at, _)| at)
    }

    /// The jobs with a deadline after `woken` and not after `now`, oldest first.
    pub(super) fn overdue(&self, woken: Timestamp, now: Timestamp) -> BTreeSet<JobId> {
        let passed = self.deadlines.range((woken + Duration::from_millis(1), JobId(0))..);
        passed.take_while(|&&(at, _)| at <= now).map(|&(_, job)| job).collect()
    }

    /// The jobs that have not ended, oldest first.
    pub(super) fn live(&self) -> impl Iterator<Item = JobId> + Clone {
        self.live.keys().copied()
    }

    /// The jobs that hold slots, oldest first.
    pub(super) fn seated(&self) -> impl Iterator<Item = JobId> {
        self.seated.iter().copied()
    }
}
