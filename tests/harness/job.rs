//! Jobs as the command line shows them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Cluster, wait};

/// What tests read of a job.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct View {
    pub(crate) state: String,
    pub(crate) reason: String,
    pub(crate) generation: u64,
    pub(crate) step: u64,
    pub(crate) durable_step: u64,
    pub(crate) slots_held: u32,
    pub(crate) restarts: u32,
    #[serde(default)]
    pub(crate) metrics: BTreeMap<String, f64>,
}

impl View {
    pub(crate) fn ended(&self) -> bool {
        ["completed", "failed", "cancelled"].contains(&self.state.as_str())
    }
}

/// One value of one metric.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Point {
    pub(crate) step: u64,
    pub(crate) value: f64,
    pub(crate) generation: u64,
}

fn read<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("cannot read {text}: {error}"))
}

impl Cluster {
    /// Submits a job given as YAML; gives its id.
    pub(crate) fn submit(&self, yaml: &str) -> String {
        let name = format!("job-{}.yaml", name_of(yaml));
        let file = self.write(&name, yaml);
        self.ok(&["submit", &file, "-o", "name"]).trim().to_owned()
    }

    pub(crate) fn view(&self, job: &str) -> View {
        #[derive(Deserialize)]
        struct Shown {
            job: View,
        }
        read::<Shown>(&self.ok(&["show", job, "-o", "json"])).job
    }

    /// Waits until the job is as wanted; a job that ended otherwise fails the test.
    pub(crate) fn wait_for(&self, job: &str, what: &str, happened: impl Fn(&View) -> bool) -> View {
        let mut last = None;
        wait(&format!("job {job} {what}"), || {
            let ran = self.unimse(&["show", job, "-o", "json"]);
            if ran.code != 0 {
                return false;
            }
            let view = self.view(job);
            let done = happened(&view);
            assert!(
                done || !view.ended(),
                "job {job} should have been seen when it {what}, but it ended: {view:?}\n{}",
                self.logs()
            );
            last = Some(view);
            done
        });
        last.expect("it happened")
    }

    /// Waits for the end and expects success.
    pub(crate) fn completes(&self, job: &str) -> View {
        let view = self.wait_for(job, "completes", View::ended);
        assert_eq!(view.state, "completed", "{}\n{}", view.reason, self.logs());
        view
    }

    /// The values of one metric, by step.
    pub(crate) fn metric(&self, job: &str, name: &str) -> Vec<Point> {
        let text = self.ok(&["metrics", job, name, "-o", "jsonl"]);
        let mut points: Vec<Point> = text.lines().map(read).collect();
        points.sort_by_key(|point| point.step);
        points
    }
}

fn name_of(text: &str) -> String {
    // Only to give different jobs different file names.
    let sum = text.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    format!("{sum:016x}")
}
