//! Sweeps.

use std::collections::BTreeMap;

use unimse_core::id::{Step, TrialId};
use unimse_core::time::Timestamp;
use unimse_core::view::{SweepView, TrialView};

use super::{Malformed, all, every, from_json, parse, parse_some, to_json};
use crate::wire;

impl From<SweepView> for wire::SweepView {
    fn from(view: SweepView) -> Self {
        Self {
            id: view.id.to_string(),
            name: view.name,
            status: view.status,
            method: view.method,
            metric: view.metric,
            goal: view.goal,
            trials_total: view.trials_total,
            trials_ended: view.trials_ended,
            best_trial: view.best_trial.map(|trial| trial.0),
            best_job: view.best_job.map(|job| job.to_string()),
            best_value: view.best_value,
            submitted_ms: view.submitted.0,
            trials: every(view.trials),
        }
    }
}

impl TryFrom<wire::SweepView> for SweepView {
    type Error = Malformed;

    fn try_from(view: wire::SweepView) -> Result<Self, Malformed> {
        Ok(Self {
            id: parse(&view.id, "sweep.id")?,
            name: view.name,
            status: view.status,
            method: view.method,
            metric: view.metric,
            goal: view.goal,
            trials_total: view.trials_total,
            trials_ended: view.trials_ended,
            best_trial: view.best_trial.map(TrialId),
            best_job: parse_some(view.best_job.as_ref(), "sweep.best_job")?,
            best_value: view.best_value,
            submitted: Timestamp(view.submitted_ms),
            trials: all(view.trials)?,
        })
    }
}

impl From<TrialView> for wire::TrialView {
    fn from(view: TrialView) -> Self {
        Self {
            trial: view.trial.0,
            job: view.job.map(|job| job.to_string()),
            state: view.state,
            parameters: view.parameters.into_iter().map(|(path, value)| (path, to_json(&value))).collect(),
            rungs: view.rungs,
            step: view.step.0,
            value: view.value,
            reason: view.reason,
        }
    }
}

impl TryFrom<wire::TrialView> for TrialView {
    type Error = Malformed;

    fn try_from(view: wire::TrialView) -> Result<Self, Malformed> {
        let parameter = |(path, text): (String, String)| Ok((path, from_json(&text, "trial.parameters")?));
        Ok(Self {
            trial: TrialId(view.trial),
            job: parse_some(view.job.as_ref(), "trial.job")?,
            state: view.state,
            parameters: view.parameters.into_iter().map(parameter).collect::<Result<BTreeMap<_, _>, Malformed>>()?,
            rungs: view.rungs,
            step: Step(view.step),
            value: view.value,
            reason: view.reason,
        })
    }
}
