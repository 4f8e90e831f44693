//! Hyper-parameter sweeps: which trials there are, which go on, and which is best.
//!
//! [`Sweep`] is a machine without I/O: events in, actions out, its state is a snapshot. What trial `k` tries is a pure function of
//! the seed and `k` (`grid`, `random`); who is promoted is a pure function of the trials' results (`asha`), never of the order
//! in which they arrive. So a sweep that was killed a hundred times ends with the same promotions and the same best trial.

mod asha;
pub(crate) mod grid;
mod machine;
mod parameters;
mod random;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::id::TrialId;
use crate::spec::MetricSpec;

pub use machine::{Sweep, SweepAction, SweepEvent, SweepOutcome, SweepStatus};
pub use parameters::{Parameter, Range, Scale};
pub use trial::{TrialResult, TrialRow, TrialStatus};

/// What a trial's variant is called beside its parameters.
pub const VARIANT: &str = "variant";

/// No sweep has more trials.
pub const MAX_TRIALS: u32 = 10_000;

/// A valid sweep. Its JSON form is a sweep file with its job in place and every default spelled out; reading it validates.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SweepSpec {
    pub name: String,
    /// The job as written, its defaults still open: some of them depend on what a trial overrides.
    pub job: Value,
    pub method: Method,
    pub metric: MetricSpec,
    /// What is varied, by dotted path.
    pub parameters: BTreeMap<String, Parameter>,
    /// Ways of the job; each is tried with every point of the parameters. Empty: the job as it is.
    pub variants: Vec<Variant>,
    pub early_stop: Option<AshaSpec>,
    /// Trials in all.
    pub max_trials: u32,
    /// Trials that run at the same time.
    pub parallel: u32,
    pub seed: u64,
    pub on_failure: FailureSpec,
}

/// Fields that change together, under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    pub name: String,
    /// New values by dotted path.
    pub set: BTreeMap<String, Value>,
}

/// How parameters are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Every combination, the last path in alphabetical order varying fastest.
    Grid,
    /// Independent draws.
    Random,
}

impl Method {
    /// The word of the file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Grid => "grid",
            Self::Random => "random",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Settings of successive halving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AshaSpec {
    /// Step of the first rung.
    pub min_steps: u64,
    /// One in so many is promoted; each rung has so many times the steps of the one before.
    pub factor: u32,
    /// There is no rung at or beyond this step.
    pub max_steps: Option<u64>,
}

/// What happens when trials fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureSpec {
    /// How often a failed trial is tried again.
    pub retry: u32,
    /// The sweep fails when more trials than this have failed for good; without it, when all have.
    pub max_failed: Option<u32>,
}

impl SweepSpec {
    /// Trials in all.
    pub fn trial_count(&self) -> u32 {
        self.max_trials
    }

    /// What `trial` tries: a pure function of the specification and the trial's number.
    pub fn overrides(&self, trial: TrialId) -> BTreeMap<String, Value> {
        let mut overrides = self.point(trial);
        if let Some(variant) = self.variant(trial) {
            overrides.extend(self.variants[variant].set.clone());
        }
        overrides
    }

    /// The same for people: the name of the variant stands for what it sets.
    pub fn shown(&self, trial: TrialId) -> BTreeMap<String, Value> {
        let mut shown = self.point(trial);
        shown.extend(self.variant(trial).map(|at| (VARIANT.to_owned(), self.variants[at].name.as_str().into())));
        shown
    }

    /// The place of the trial's variant in the list. All variants of a point come before the next point: whoever stops early has
    /// compared like with like.
    pub(crate) fn variant(&self, trial: TrialId) -> Option<usize> {
        (trial.0 as usize).checked_rem(self.variants.len())
    }

    fn point(&self, trial: TrialId) -> BTreeMap<String, Value> {
        let place = trial.0 / (self.variants.len().max(1) as u32);
        match self.method {
            Method::Grid => grid::point(&self.parameters, place.into()),
            Method::Random => random::point(&self.parameters, self.seed, TrialId(place)),
        }
    }
}
