//! Successive halving without barriers, and without a memory of who came first.
//!
//! Asynchronous successive halving (ASHA; Li et al., "A System for Massively Parallel Hyperparameter Tuning", `MLSys` 2020) promotes
//! from a rung whatever is among the best 1/factor of the results *that have arrived*. So its promotions depend on timing: the same
//! sweep on a slower machine, or after a crash, ends elsewhere. Here the results of a rung are judged in the order in which its
//! trials *entered* it: at the first rung by trial number, higher up by order of promotion. A result that arrives early waits for
//! those before it; each time the judged prefix grows by one, every trial among the best `prefix / factor` that is not promoted yet
//! is promoted, exactly as ASHA would if results arrived in that order. By induction over the rungs, who is promoted, and in which
//! order, depends on the results alone.
//!
//! What it costs: a promotion may come later than in ASHA, when a trial with a smaller number is slow. Nobody idles meanwhile,
//! because new trials start first-come; and unlike synchronous halving, no rung waits for its last trial.

use serde::{Deserialize, Serialize};

use super::AshaSpec;
use crate::id::{Step, TrialId};
use crate::metrics::Goal;

/// What a rung knows of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// It has not got to the rung's step yet.
    Pending,
    /// What it reported there.
    Value(f64),
    /// It failed for good, or reported something that is not a number; it is never promoted.
    Lost,
}

impl Outcome {
    /// A report that is not finite says nothing about merit.
    pub(crate) fn of(value: f64) -> Self {
        if value.is_finite() { Self::Value(value) } else { Self::Lost }
    }
}

/// The trials at one rung.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Rung {
    step: Step,
    /// In the order of entry.
    entrants: Vec<Entrant>,
    /// Length of the prefix that has been judged.
    judged: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entrant {
    trial: TrialId,
    outcome: Outcome,
    promoted: bool,
}

/// A trial may go on to the next rung, or to its end when `rung` is [`Ladder::len`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Promotion {
    pub trial: TrialId,
    /// The rung it goes to.
    pub rung: usize,
}

/// All rungs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ladder {
    factor: u32,
    goal: Goal,
    rungs: Vec<Rung>,
}

/// 2^20 times the first rung's steps is beyond every job; more rungs would only be empty.
const MAX_RUNGS: u32 = 20;

impl Ladder {
    /// Puts trials 0 to `trials` - 1 on the first rung.
    pub(crate) fn new(spec: AshaSpec, goal: Goal, trials: u32) -> Self {
        let steps = (0..MAX_RUNGS).map_while(|rung| {
            let step = spec.min_steps.checked_mul(u64::from(spec.factor).checked_pow(rung)?)?;
            spec.max_steps.is_none_or(|max| step < max).then_some(Step(step))
        });
        let mut rungs: Vec<Rung> = steps.map(|step| Rung { step, entrants: Vec::new(), judged: 0 }).collect();
        if let Some(first) = rungs.first_mut() {
            first.entrants = (0..trials).map(|trial| Entrant::new(TrialId(trial))).collect();
        }
        Self { factor: spec.factor, goal, rungs }
    }

    /// Number of rungs.
    pub(crate) fn len(&self) -> usize {
        self.rungs.len()
    }

    /// The step of a rung; `None` past the last.
    pub(crate) fn step(&self, rung: usize) -> Option<Step> {
        self.rungs.get(rung).map(|rung| rung.step)
    }

    /// Records what a trial did at a rung that it has entered; the first record stays.
    pub(crate) fn record(&mut self, trial: TrialId, rung: usize, outcome: Outcome) {
        let entrant = self.rungs.get_mut(rung).and_then(|rung| rung.entrants.iter_mut().find(|e| e.trial == trial));
        if let Some(entrant) = entrant
            && entrant.outcome == Outcome::Pending
        {
            entrant.outcome = outcome;
        }
    }

    /// Judges the next result that can be judged, lowest rung first; `None` when all wait.
    ///
    /// Returns the promotions it causes, best first; the trials have entered their next rungs already.
    pub(crate) fn judge(&mut self) -> Option<Vec<Promotion>> {
        let ready = |rung: &Rung| rung.entrants.get(rung.judged).is_some_and(|next| next.outcome != Outcome::Pending);
        let at = self.rungs.iter().position(ready)?;
        let rung = &mut self.rungs[at];
        rung.judged += 1;
        let prefix = &rung.entrants[..rung.judged];
        let quota = prefix.len() / self.factor as usize;
        let mut order: Vec<usize> = (0..prefix.len()).filter(|&at| prefix[at].value().is_some()).collect();
        let value = |at: usize| prefix[at].value().unwrap_or(f64::NAN);
        // A stable sort: among equals the one that entered first.
        order.sort_by(|&a, &b| self.goal.compare(value(b), value(a)));
        order.truncate(quota);
        order.retain(|&at| !prefix[at].promoted);
        let promoted: Vec<TrialId> = order.iter().map(|&at| prefix[at].trial).collect();
        for at in order {
            rung.entrants[at].promoted = true;
        }
        if let Some(next) = self.rungs.get_mut(at + 1) {
            next.entrants.extend(promoted.iter().map(|&trial| Entrant::new(trial)));
        }
        Some(promoted.into_iter().map(|trial| Promotion { trial, rung: at + 1 }).collect())
    }

    /// The best trial of the highest rung that has one which `eligible` accepts, for a sweep that would end without a finished trial.
    pub(crate) fn strongest(&self, eligible: impl Fn(TrialId) -> bool) -> Option<TrialId> {
        self.rungs.iter().rev().find_map(|rung| {
            let waiting = rung.entrants.iter().filter(|e| !e.promoted && e.value().is_some() && eligible(e.trial));
            self.goal.best_by(waiting, |entrant| entrant.value().unwrap_or(f64::NAN)).map(|entrant| entrant.trial)
        })
    }
}

impl Entrant {
    fn new(trial: TrialId) -> Self {
        Self { trial, outcome: Outcome::Pending, promoted: false }
    }

    fn value(&self) -> Option<f64> {
        match self.outcome {
            Outcome::Value(value) => Some(value),
            Outcome::Pending | Outcome::Lost => None,
        }
    }
}
