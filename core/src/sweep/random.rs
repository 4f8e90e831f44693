//! Independent draws.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Parameter;
use crate::draw;
use crate::id::TrialId;

/// What `trial` tries. Each parameter is drawn by its own path, so adding one leaves the others as they were.
pub(crate) fn point(parameters: &BTreeMap<String, Parameter>, seed: u64, trial: TrialId) -> BTreeMap<String, Value> {
    let draw = |path: &str| {
        draw::unit("unimse random sweep v1", &[&seed.to_le_bytes(), &trial.0.to_le_bytes(), path.as_bytes()])
    };
    parameters.iter().map(|(path, parameter)| (path.clone(), parameter.draw(draw(path)))).collect()
}
