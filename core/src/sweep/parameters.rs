//! One parameter: a list of values or a range.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Method;

/// What one field of the job may be.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// One of these.
    Values(Vec<Value>),
    /// Something between two bounds, both included.
    Range(Range),
}

/// Numbers between two bounds, both included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub min: f64,
    pub max: f64,
    pub scale: Scale,
    /// Distance between neighbours; whole numbers on a linear scale have 1 without it.
    pub step: Option<f64>,
    /// Whether the field takes whole numbers only; the job's schema says so, not the way the bounds are written.
    pub integer: bool,
}

/// What "evenly spread" means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// By distance.
    Lin,
    /// By ratio, as for learning rates.
    Log,
}

impl Parameter {
    /// Number of values, if there are finitely many and `u64` can count them.
    pub fn len(&self) -> Option<u64> {
        match self {
            Self::Values(values) => Some(values.len() as u64),
            Self::Range(range) => range.len(),
        }
    }

    /// Whether there is nothing to choose from.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Value number `index`, below [`Self::len`].
    pub(crate) fn value(&self, index: u64) -> Value {
        match self {
            Self::Values(values) => values[index as usize].clone(),
            Self::Range(range) => range.number(range.min + index as f64 * range.stride().unwrap_or(1.0)),
        }
    }

    /// The value at `unit` in [0, 1).
    pub(crate) fn draw(&self, unit: f64) -> Value {
        match (self, self.len()) {
            (_, Some(len)) => self.value(((unit * len as f64) as u64).min(len.saturating_sub(1))),
            (Self::Range(range), None) => range.draw(unit),
            (Self::Values(_), None) => Value::Null,
        }
    }
}

impl Range {
    fn stride(&self) -> Option<f64> {
        self.step.or_else(|| (self.integer && self.scale == Scale::Lin).then_some(1.0))
    }

    fn len(&self) -> Option<u64> {
        // A hair more, so that 0.1 to 0.3 by 0.1 has its last value in spite of binary fractions.
        let count = ((self.max - self.min) / self.stride()? + 1e-9).floor() + 1.0;
        (count < 9e15).then_some(count as u64)
    }

    fn draw(&self, unit: f64) -> Value {
        if self.scale == Scale::Lin {
            return self.number(tidy(self.min + unit * (self.max - self.min)));
        }
        // Half a unit more on both sides gives the outermost whole numbers their fair share.
        let margin = if self.integer { 0.5 } else { 0.0 };
        let [low, high] = [(self.min - margin).ln(), (self.max + margin).ln()];
        self.number(tidy((low + unit * (high - low)).exp()))
    }

    fn number(&self, value: f64) -> Value {
        let value = value.clamp(self.min, self.max);
        if self.integer { Value::from(value.round() as i64) } else { Value::from(precise(value)) }
    }

    /// Says which field makes the range senseless, and why.
    pub(crate) fn check(&self, method: Method) -> Result<(), (&'static str, String)> {
        if self.min >= self.max {
            return Err(("max", format!("must be above `min`, which is {}", self.min)));
        }
        if self.step.is_some() && self.scale == Scale::Log {
            return Err(("step", "a logarithmic range has no `step`; use `values`".into()));
        }
        if self.scale == Scale::Log && self.min <= 0.0 {
            return Err(("min", "a logarithmic range begins above 0".into()));
        }
        if let Some(step) = self.step {
            if self.integer && step.fract() != 0.0 {
                return Err(("step", "the field takes whole numbers only".into()));
            }
            if step > self.max - self.min {
                return Err(("step", "leaves a single value".into()));
            }
        }
        if method == Method::Grid && self.stride().is_none() {
            return Err(("min", "a grid needs `values`, or a `step` on a linear scale".into()));
        }
        Ok(())
    }
}

/// Six significant digits: what people want to read and repeat, and no trace of the last bit of a logarithm.
fn tidy(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

/// Twelve significant digits: 0.1 + 2 * 0.1 is 0.3.
fn precise(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}
