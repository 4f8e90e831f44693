//! What several tests need: specifications, patience, and a coordinator in miniature.

pub(crate) mod coordinator;
pub(crate) mod gang;

use std::sync::Arc;
use std::time::{Duration, Instant};

use unimse_core::spec::{JobSpec, parse_job};

/// How long anything may take that should take moments.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A job for counting trainers, with labels that steer them.
pub(crate) fn counting(labels: &str, steps: u64, more: &str) -> Arc<JobSpec> {
    let text = format!(
        "name: counting\nlabels: {{{labels}}}\nmodel: {{preset: tiny}}\n\
         data: {{train: [{{path: unused.arrow}}], valid: [{{path: unused.arrow}}]}}\n\
         train: {{max_steps: {steps}, global_batch: 24, micro_batch: 4, learning_rate: 1e-3, evaluate_every: 10}}\n\
         checkpoint: {{every: 10}}\nlog: {{every: 1}}\n{more}"
    );
    Arc::new(parse_job(&text, "counting.yaml").unwrap_or_else(|error| panic!("{error}")))
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn wait(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?}, but not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
