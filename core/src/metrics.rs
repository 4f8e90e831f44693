//! Rules that judge reported metrics: which value is better, which is best, and whether a series is still healthy.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// Whether small or large values are good. There is no default: a silent "minimise" is a trap for every F1 score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Smaller is better: losses, MAE.
    Minimize,
    /// Larger is better: accuracy, F1, correlation, `valid/score`.
    Maximize,
}

impl Goal {
    /// Orders two values by merit: `Greater` means that `a` is better. NaN is worse than everything and equal to itself.
    pub fn compare(self, a: f64, b: f64) -> Ordering {
        match (a.is_nan(), b.is_nan()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => {
                // 0.0 and -0.0 are the same merit, so partial_cmp rather than total_cmp.
                let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
                if self == Self::Maximize { order } else { order.reverse() }
            }
        }
    }

    /// Whether `a` is strictly better than `b`.
    pub fn is_better(self, a: f64, b: f64) -> bool {
        self.compare(a, b) == Ordering::Greater
    }

    /// The best item by its value, the first among equals; items that are NaN never win.
    pub fn best_by<T>(self, items: impl IntoIterator<Item = T>, value: impl Fn(&T) -> f64) -> Option<T> {
        let mut best: Option<T> = None;
        for item in items {
            if value(&item).is_nan() {
                continue;
            }
            if best.as_ref().is_none_or(|best| self.is_better(value(&item), value(best))) {
                best = Some(item);
            }
        }
        best
    }

    /// The best value, if one is not NaN.
    pub fn best_of(self, values: impl IntoIterator<Item = f64>) -> Option<f64> {
        self.best_by(values, |value| *value)
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Minimize { "minimize" } else { "maximize" })
    }
}

/// Reads an f64 that JSON may hold as null, because it was not finite when it was written.
pub fn nan_if_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Option::<f64>::deserialize(deserializer).map(|value| value.unwrap_or(f64::NAN))
}

/// What a value means for a series that should fall, such as the training loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing unusual, or too early to tell.
    Healthy,
    /// NaN or infinite: the run is lost from this step on.
    NotFinite,
    /// Far above what the last values make likely, in standard deviations.
    Spike { deviations: f64 },
}

/// Summarises the last values of a series and judges the next one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moving {
    window: usize,
    values: VecDeque<f64>,
}

impl Moving {
    /// Remembers the last `window` finite values, at least two.
    pub fn new(window: usize) -> Self {
        Self { window: window.max(2), values: VecDeque::new() }
    }

    /// Judges `value` by those before it, then remembers it when it is finite.
    pub fn judge(&mut self, value: f64) -> Verdict {
        if !value.is_finite() {
            return Verdict::NotFinite;
        }
        let verdict = self.spike(value).map_or(Verdict::Healthy, |deviations| Verdict::Spike { deviations });
        if self.values.len() == self.window {
            self.values.pop_front();
        }
        self.values.push_back(value);
        verdict
    }

    /// Six standard deviations: a healthy loss of thousands of steps stays inside, a diverging one leaves within a few.
    fn spike(&self, value: f64) -> Option<f64> {
        const THRESHOLD: f64 = 6.0;
        if self.values.len() < self.window {
            return None;
        }
        let mean = self.mean()?;
        // A flat series has no deviation; a hundredth of the mean keeps rounding noise from looking like a spike.
        let deviation = self.deviation()?.max(mean.abs() * 0.01).max(f64::MIN_POSITIVE);
        let deviations = (value - mean) / deviation;
        (deviations > THRESHOLD).then_some(deviations)
    }

    /// Mean of the remembered values.
    pub fn mean(&self) -> Option<f64> {
        let count = self.values.len();
        (count > 0).then(|| self.values.iter().sum::<f64>() / count as f64)
    }

    /// Standard deviation of the remembered values.
    pub fn deviation(&self) -> Option<f64> {
        let mean = self.mean()?;
        let sum: f64 = self.values.iter().map(|value| (value - mean).powi(2)).sum();
        Some((sum / self.values.len() as f64).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_always_the_worst() {
        for goal in [Goal::Minimize, Goal::Maximize] {
            for value in [0.0, -1e300, 1e300, f64::INFINITY, f64::NEG_INFINITY] {
                assert!(goal.is_better(value, f64::NAN));
                assert!(!goal.is_better(f64::NAN, value));
            }
            assert_eq!(goal.compare(f64::NAN, f64::NAN), Ordering::Equal);
            assert_eq!(goal.best_of([f64::NAN, f64::NAN]), None);
        }
    }

    #[test]
    fn the_goal_decides_and_the_first_among_equals_wins() {
        assert_eq!(Goal::Minimize.best_of([0.7, f64::NAN, 0.5, 0.6]), Some(0.5));
        assert_eq!(Goal::Maximize.best_of([0.7, f64::NAN, 0.5, 0.6]), Some(0.7));
        let items = [("a", 1.0), ("b", 2.0), ("c", 2.0)];
        assert_eq!(Goal::Maximize.best_by(items, |item| item.1), Some(("b", 2.0)));
        assert_eq!(Goal::Maximize.compare(0.0, -0.0), Ordering::Equal);
    }

    #[test]
    fn a_diverging_loss_is_told_from_a_noisy_one() {
        let mut moving = Moving::new(20);
        for step in 0..200_u32 {
            let noise = f64::from(step * 7919 % 13) / 13.0;
            assert_eq!(moving.judge(2.0 + noise), Verdict::Healthy, "step {step}");
        }
        assert!(matches!(moving.judge(9.0), Verdict::Spike { deviations } if deviations > 6.0));
        assert_eq!(moving.judge(f64::NAN), Verdict::NotFinite);
        assert!(moving.mean().is_some_and(f64::is_finite), "a NaN is judged, not remembered");
    }

    #[test]
    fn the_first_values_are_never_a_spike() {
        let mut moving = Moving::new(10);
        assert_eq!(moving.judge(1.0), Verdict::Healthy);
        assert_eq!(moving.judge(1000.0), Verdict::Healthy);
    }
}
