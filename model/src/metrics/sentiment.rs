//! Metrics of a sentiment score from -3 to 3.

use super::classification::{accuracy, weighted_f1};

/// Returns all sentiment metrics by name; empty for no samples, without the `non0` ones if all truths are 0.
pub fn metrics(truths: &[f64], predictions: &[f64]) -> Vec<(&'static str, f64)> {
    if truths.is_empty() {
        return Vec::new();
    }
    let mut named = vec![
        ("mae", mae(truths, predictions)),
        ("corr", correlation(truths, predictions)),
        ("acc5", class_accuracy(truths, predictions, 2.0)),
        ("acc7", class_accuracy(truths, predictions, 3.0)),
    ];
    let (truth, prediction) = has0(truths, predictions);
    named.extend([("acc2_has0", accuracy(&truth, &prediction)), ("f1_has0", weighted_f1(&truth, &prediction))]);
    let (truth, prediction) = non0(truths, predictions);
    if !truth.is_empty() {
        named.extend([("acc2_non0", accuracy(&truth, &prediction)), ("f1_non0", weighted_f1(&truth, &prediction))]);
    }
    named
}

/// Returns the mean absolute error; nothing is clamped.
pub fn mae(truths: &[f64], predictions: &[f64]) -> f64 {
    let total: f64 = truths.iter().zip(predictions).map(|(truth, prediction)| (truth - prediction).abs()).sum();
    total / truths.len() as f64
}

/// Returns Pearson's correlation, and 0 where it is not defined (constant truths or predictions; numpy gives NaN).
pub fn correlation(truths: &[f64], predictions: &[f64]) -> f64 {
    let count = truths.len() as f64;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / count;
    let (mean_truth, mean_prediction) = (mean(truths), mean(predictions));
    let (mut covariance, mut variance_truth, mut variance_prediction) = (0.0, 0.0, 0.0);
    for (truth, prediction) in truths.iter().zip(predictions) {
        let (x, y) = (truth - mean_truth, prediction - mean_prediction);
        covariance += x * y;
        variance_truth += x * x;
        variance_prediction += y * y;
    }
    let correlation = covariance / (variance_truth.sqrt() * variance_prediction.sqrt());
    if correlation.is_finite() { correlation.clamp(-1.0, 1.0) } else { 0.0 }
}

/// Returns the share of samples whose score falls into the right whole number after clamping both to `[-limit, limit]`:
/// Acc-7 for 3, Acc-5 for 2. A half goes to the even number, as numpy rounds.
pub fn class_accuracy(truths: &[f64], predictions: &[f64], limit: f64) -> f64 {
    let class = |score: f64| score.clamp(-limit, limit).round_ties_even();
    let right = truths.iter().zip(predictions).filter(|(truth, prediction)| class(**truth) == class(**prediction));
    right.count() as f64 / truths.len() as f64
}

/// Binarises as the "has0" convention does: on all samples, a score of 0 is positive on both sides.
pub fn has0(truths: &[f64], predictions: &[f64]) -> (Vec<usize>, Vec<Option<usize>>) {
    let side = |score: f64| usize::from(score >= 0.0);
    truths.iter().zip(predictions).map(|(truth, prediction)| (side(*truth), Some(side(*prediction)))).unzip()
}

/// Binarises as the "non0" convention does: samples with truth 0 are dropped, and a prediction of 0 is negative.
pub fn non0(truths: &[f64], predictions: &[f64]) -> (Vec<usize>, Vec<Option<usize>>) {
    let side = |score: f64| usize::from(score > 0.0);
    truths
        .iter()
        .zip(predictions)
        .filter(|(truth, _)| **truth != 0.0)
        .map(|(truth, prediction)| (side(*truth), Some(side(*prediction))))
        .unzip()
}
