//! The state as queries see it: the machine, and what is only known while the process lives.

use std::collections::BTreeMap;

use unimse_core::id::{Generation, JobId, Step};
use unimse_core::job::Job;
use unimse_core::machine::Machine;
use unimse_core::time::Timestamp;
use unimse_core::view::{JobDetail, JobView, Progress};
use unimse_proto::session::Steps;

/// What the loop lets a query look at.
#[derive(Debug)]
pub struct Present<'a> {
    pub machine: &'a Machine,
    pub now: Timestamp,
    /// Agents that have a session.
    pub sessions: usize,
    pub(super) progress: &'a Newest,
}

impl Present<'_> {
    pub fn progress(&self, job: JobId) -> Option<&Progress> {
        self.progress.of(job)
    }

    pub fn job_view(&self, job: &Job) -> JobView {
        self.machine.job_view(job, self.progress(job.id))
    }

    pub fn job_detail(&self, job: &Job) -> JobDetail {
        self.machine.job_detail(job, self.progress(job.id))
    }

    /// How many slots of live workers there are, and how many of them jobs hold.
    pub fn slots(&self) -> (u32, u32) {
        let state = self.machine.state();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let total = state.workers.values().filter(|worker| worker.alive()).map(|worker| worker.info.slots.len()).sum();
        let used = state.jobs.values().filter_map(|job| job.phase.gang()).map(|gang| gang.seats.len()).sum();
        (count(total), count(used))
    }

    /// How many jobs are in each state.
    pub fn job_counts(&self) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        for job in self.machine.state().jobs.values() {
            *counts.entry(job.phase.word().to_owned()).or_default() += 1;
        }
        counts
    }
}

/// The newest progress of each job.
#[derive(Debug, Default)]
pub(super) struct Newest(BTreeMap<JobId, (Generation, Progress)>);

impl Newest {
    fn of(&self, job: JobId) -> Option<&Progress> {
        self.0.get(&job).map(|(_, progress)| progress)
    }

    /// Notes progress, unless newer is known; a new generation may begin at an earlier step than the one before had reached.
    pub(super) fn note(&mut self, steps: &Steps) {
        let newer = self.0.get(&steps.job).is_none_or(|(generation, progress)| {
            steps.generation > *generation || steps.generation == *generation && steps.progress.step >= progress.step
        });
        if newer {
            self.0.insert(steps.job, (steps.generation, steps.progress.clone()));
        }
    }
}

/// What the fence makes of reported steps.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fenced {
    /// Of the current generation.
    Current,
    /// Of an older one, and some of them part of what the current one goes on from.
    TakenOver,
    /// Of no consequence.
    Stale,
}

/// Keeps of `steps` what belongs to the line of generations that leads to the current one.
///
/// A report of steps may arrive after the generation that made them has ended. Steps that the current generation began from were
/// really made and are never made again, so they count; later ones are made again, and only the new ones count. Until the
/// current generation has formed nobody knows which those are: all are kept, and what is made again replaces them.
pub(super) fn fence(machine: &Machine, steps: &mut Steps) -> Fenced {
    let Some(job) = machine.state().jobs.get(&steps.job) else { return Fenced::Stale };
    if steps.generation == job.generation {
        return Fenced::Current;
    }
    if steps.generation > job.generation {
        return Fenced::Stale;
    }
    if let Some(taken_over) = taken_over(job) {
        steps.records.retain(|record| record.step <= taken_over);
    }
    if steps.records.is_empty() { Fenced::Stale } else { Fenced::TakenOver }
}

/// The newest step that the current generation did not make itself, once it has formed.
fn taken_over(job: &Job) -> Option<Step> {
    let gang = job.phase.gang().filter(|gang| gang.formed.is_some())?;
    let held = gang.newest().map(|(_, step)| step).unwrap_or_default();
    Some(held.max(job.resume_point().map(|at| at.step).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use unimse_core::id::Rank;

    fn steps(generation: u64, step: u64) -> Steps {
        let progress = Progress { step: Step(step), ..Progress::default() };
        Steps { job: JobId(1), generation: Generation(generation), rank: Rank(0), progress, records: Vec::new() }
    }

    #[test]
    fn progress_goes_back_only_with_a_new_generation() {
        let mut newest = Newest::default();
        let step = |newest: &Newest| newest.of(JobId(1)).unwrap().step;
        newest.note(&steps(1, 10));
        newest.note(&steps(1, 9));
        assert_eq!(step(&newest), Step(10));
        newest.note(&steps(2, 5));
        assert_eq!(step(&newest), Step(5));
        newest.note(&steps(1, 11));
        assert_eq!(step(&newest), Step(5));
    }
}
