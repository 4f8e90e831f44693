//! Confidence intervals by resampling (Efron and Tibshirani 1993, the percentile method).

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::task_metrics;
use crate::labels::{Labels, Task};

/// The share of resamples that lies inside of an interval.
pub const CONFIDENCE: f64 = 0.95;

/// Returns for each metric the interval in which [`CONFIDENCE`] of its values lie when the samples are drawn anew, with
/// replacement, `resamples` times; the same seed gives the same intervals.
///
/// # Panics
///
/// If the slices differ in length.
pub fn intervals(
    task: Task,
    truths: &[Labels],
    predictions: &[Labels],
    resamples: usize,
    seed: u64,
) -> BTreeMap<String, [f64; 2]> {
    assert_eq!(truths.len(), predictions.len(), "one prediction for each truth");
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut values: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut drawn = (Vec::with_capacity(truths.len()), Vec::with_capacity(truths.len()));
    for _ in 0..if truths.is_empty() { 0 } else { resamples } {
        drawn.0.clear();
        drawn.1.clear();
        for _ in 0..truths.len() {
            let sample = generator.random_range(0..truths.len());
            drawn.0.push(truths[sample].clone());
            drawn.1.push(predictions[sample].clone());
        }
        for (metric, value) in task_metrics(task, &drawn.0, &drawn.1) {
            values.entry(metric).or_default().push(value);
        }
    }
    let interval = |mut values: Vec<f64>| {
        values.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
        [at((1.0 - CONFIDENCE) / 2.0), at(f64::midpoint(1.0, CONFIDENCE))]
    };
    values.into_iter().map(|(metric, values)| (metric, interval(values))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(score: f64) -> Labels {
        Labels { score: Some(score), ..Labels::default() }
    }

    #[test]
    fn the_interval_of_a_mean_is_that_of_the_central_limit() {
        // Errors of 0 and 2 in equal shares: mean 1, deviation 1, so the mean of 400 has a deviation of 0.05.
        let truths = vec![scored(0.0); 400];
        let predictions: Vec<Labels> = (0..400).map(|place| scored(f64::from(place % 2 * 2))).collect();
        let found = intervals(Task::Sentiment, &truths, &predictions, 2000, 7)["mae"];
        assert!((found[0] - (1.0 - 1.96 * 0.05)).abs() < 0.01, "{found:?}");
        assert!((found[1] - (1.0 + 1.96 * 0.05)).abs() < 0.01, "{found:?}");
        assert_eq!(found, intervals(Task::Sentiment, &truths, &predictions, 2000, 7)["mae"]);
    }

    #[test]
    fn nothing_has_no_intervals() {
        assert!(intervals(Task::Sentiment, &[], &[], 10, 1).is_empty());
    }
}
