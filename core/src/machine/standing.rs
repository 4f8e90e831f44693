//! Which jobs have not ended, and which hold slots: an index that follows from the state.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::JobId;
use crate::job::{Job, Phase};

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
        }
        moved
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
