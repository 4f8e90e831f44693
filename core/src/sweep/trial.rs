//! One trial: a job with some fields overridden.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::asha::Outcome;
use crate::id::{Step, TrialId};

/// Where a trial is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrialStatus {
    /// Not started, or to be tried again.
    Pending,
    /// Its job may use the cluster.
    Running,
    /// Its job has saved its state and given its slots back.
    Paused,
    /// Its job ran to its end.
    Finished,
    /// It failed for good.
    Failed,
    /// Ended by the sweep or by a person.
    Stopped,
}

impl TrialStatus {
    /// The status in one word, as people read it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }

    /// Whether nothing will happen to it any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Stopped)
    }
}

impl fmt::Display for TrialStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What the sweep remembers of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trial {
    pub status: TrialStatus,
    /// Failures so far.
    pub failures: u32,
    /// The newest report that was a number.
    pub latest: Option<(Step, f64)>,
    /// What its job ended with.
    pub result: Option<f64>,
    /// The rung that it may run to; past the last rung means to its end.
    pub rung: usize,
    /// What it reported at each rung it has passed, those of rungs it has not entered yet included.
    pub passed: Vec<Outcome>,
    /// Why it is in its status, for people.
    pub reason: String,
}

impl Trial {
    pub(crate) fn new() -> Self {
        Self {
            status: TrialStatus::Pending,
            failures: 0,
            latest: None,
            result: None,
            rung: 0,
            passed: Vec::new(),
            reason: "waits for its turn".into(),
        }
    }

    /// Whether it does not run and has work left that it is allowed to do.
    pub(crate) fn may_run(&self) -> bool {
        matches!(self.status, TrialStatus::Pending | TrialStatus::Paused) && self.passed.len() <= self.rung
    }
}

/// A trial and its value, for "the best".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialResult {
    pub trial: TrialId,
    pub value: f64,
    /// Whether it ran to its end; before any did, the best is a preliminary one.
    pub finished: bool,
    pub overrides: BTreeMap<String, Value>,
}

/// A line of the sweep's table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialRow {
    pub trial: TrialId,
    pub status: TrialStatus,
    pub failures: u32,
    /// Rungs that it entered and passed; 0 without early stop.
    pub rungs: u32,
    /// The newest report.
    pub latest: Option<(Step, f64)>,
    /// What it ended with.
    pub result: Option<f64>,
    /// What it tries, as people see it.
    pub shown: BTreeMap<String, Value>,
    /// Why it is in its status.
    pub reason: String,
}
