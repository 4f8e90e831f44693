//! `/metrics` in Prometheus' text format.

use unimse_core::worker::{Worker, WorkerState};

use crate::handle::Handle;
use crate::meters::Text;
use crate::service::{Failure, Present};

/// Every state a job can be in, so that each has a line from the start.
const STATES: [&str; 8] = ["queued", "starting", "running", "stopping", "paused", "completed", "failed", "cancelled"];

pub(super) async fn render(handle: &Handle) -> Result<String, Failure> {
    let about = handle.about().clone();
    let look = move |present: &Present<'_>| {
        let mut text = Text::default();
        text.head("unimse_info", "gauge", "What runs here.");
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("cluster", about.identity.cluster.as_str())];
        text.line("unimse_info", &labels, 1.0);
        text.gauge("unimse_epoch", "Grows by one at each start.", about.identity.epoch as f64);
        let up = present.now.since(about.started).as_secs_f64();
        text.gauge("unimse_uptime_seconds", "Time since the start.", up);
        let counts = present.job_counts();
        text.head("unimse_jobs", "gauge", "Jobs by state.");
        for state in STATES {
            text.line("unimse_jobs", &[("state", state)], f64::from(counts.get(state).copied().unwrap_or_default()));
        }
        let state = present.machine.state();
        let count = |wanted: fn(&Worker) -> bool| state.workers.values().filter(|worker| wanted(worker)).count();
        let alive = count(Worker::alive);
        let left = count(|worker| matches!(worker.state, WorkerState::Left { .. }));
        let lost = state.workers.len() - alive - left;
        text.head("unimse_workers", "gauge", "Workers by state.");
        text.line("unimse_workers", &[("state", "alive")], alive as f64);
        text.line("unimse_workers", &[("state", "left")], left as f64);
        text.line("unimse_workers", &[("state", "lost")], lost as f64);
        let (total, used) = present.slots();
        text.gauge("unimse_slots", "Slots of live workers.", f64::from(total));
        text.gauge("unimse_slots_used", "Slots that jobs hold.", f64::from(used));
        text.gauge("unimse_sessions", "Agents that are connected.", present.sessions as f64);
        text.gauge("unimse_sweeps", "Sweeps.", state.sweeps.len() as f64);
        let restarts: u32 = state.jobs.values().map(|job| job.restarts).sum();
        text.gauge("unimse_restarts", "Counted failures of all jobs.", f64::from(restarts));
        text.head("unimse_job_step", "gauge", "Newest step of jobs that hold slots.");
        for job in state.jobs.values().filter(|job| job.phase.gang().is_some()) {
            let step = present.progress(job.id).map_or_else(|| job.durable_step(), |progress| progress.step);
            let id = job.id.to_string();
            text.line("unimse_job_step", &[("job", &id), ("name", &job.spec.name)], step.0 as f64);
        }
        text
    };
    let mut text = handle.query(look).await?;
    handle.meters().render(&mut text);
    Ok(text.into_string())
}
