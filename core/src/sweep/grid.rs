//! Every combination of the parameters' values.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Parameter;

/// Number of points; `None` when it exceeds `u64` or a parameter has no countable values. Nothing is expanded.
pub(crate) fn size(parameters: &BTreeMap<String, Parameter>) -> Option<u64> {
    parameters.values().try_fold(1_u64, |product, parameter| product.checked_mul(parameter.len()?))
}

/// Point number `index`, below [`size`]: a number whose digits are the parameters, the last path varying fastest.
pub(crate) fn point(parameters: &BTreeMap<String, Parameter>, index: u64) -> BTreeMap<String, Value> {
    let mut rest = index;
    let digits = parameters.iter().rev().map(|(path, parameter)| {
        let len = parameter.len().unwrap_or(1).max(1);
        let digit = rest % len;
        rest /= len;
        (path.clone(), parameter.value(digit))
    });
    digits.collect()
}
