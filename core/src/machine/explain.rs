//! Why a job is where it is, and what would move it.

use super::Machine;
use crate::id::JobId;
use crate::job::{AfterStop, Phase};
use crate::time::{Timestamp, humane};

impl Machine {
    /// One line a fact, the most important first; none for a job that does not exist.
    pub fn explain(&self, now: Timestamp, job: JobId) -> Option<Vec<String>> {
        let record = self.state.jobs.get(&job)?;
        let mut lines = Vec::new();
        match &record.phase {
            Phase::Queued { since, not_before, reason } => {
                lines.push(format!("queued for {}: {reason}", humane(now.since(*since))));
                if let Some(until) = not_before.filter(|&until| until > now) {
                    lines.push(format!("next try in {}", humane(until.since(now))));
                }
                let resources = &record.spec.resources;
                lines.push(format!(
                    "it asks for {} to {} slots with priority {}",
                    resources.min_slots, resources.slots, resources.priority
                ));
                let (problem, workers) = self.problem(now);
                for (node, worker) in problem.nodes.iter().zip(&workers) {
                    let name = &self.state.workers[worker].info.node;
                    lines.push(format!("worker {name}: {} of {} slots free", node.free.len(), node.total));
                }
                if problem.nodes.is_empty() {
                    lines.push("no worker is alive: start one with `unimse worker` or `unimse up`".to_owned());
                }
            }
            Phase::Starting { gang } => {
                let waited = humane(now.since(gang.assigned));
                lines.push(format!(
                    "starting for {waited}: {} of {} ranks are ready",
                    gang.ready.len(),
                    gang.seats.len()
                ));
            }
            Phase::Running { gang } => {
                lines.push(format!("running on {} slots, generation {}", gang.seats.len(), record.generation));
                if gang.disrupted.is_some() {
                    lines.push(
                        "ranks have lost a peer; a new generation follows as soon as it is known who died".to_owned(),
                    );
                }
            }
            Phase::Stopping { since, then, .. } => {
                let then = match then {
                    AfterStop::Paused => "will pause".to_owned(),
                    AfterStop::Queued { reason } => format!("will wait for slots again: {reason}"),
                };
                lines.push(format!("saving and stopping for {}; {then}", humane(now.since(*since))));
            }
            Phase::Paused { since } => {
                lines.push(format!("paused for {}; go on with `unimse resume {job}`", humane(now.since(*since))));
            }
            Phase::Completed { at } => lines.push(format!("completed {} ago", humane(now.since(*at)))),
            Phase::Failed { reason, .. } => {
                lines.push(format!("failed: {reason}"));
                lines.push(format!("after mending the cause: `unimse retry {job}`"));
            }
            Phase::Cancelled { at } => lines.push(format!("cancelled {} ago", humane(now.since(*at)))),
        }
        if record.restarts > 0 && !record.phase.ended() {
            lines.push(format!("{} of {} restarts are used", record.restarts, record.spec.restart.max));
        }
        if let Some(latest) = record.latest() {
            lines.push(format!("newest checkpoint: step {}", latest.at.step));
        }
        Some(lines)
    }
}
