//! The numbers that papers on sentiment and emotion print, in `f64` and without tensors.
//!
//! Names: `mae`, `corr`, `acc2_has0`, `acc2_non0`, `f1_has0`, `f1_non0`, `acc5`, `acc7` for sentiment and `acc`, `wf1`,
//! `macro_f1` for emotion. The maths is that of MMSA's `metricsTop.py` and of scikit-learn, against which it is tested.

pub mod bootstrap;
pub mod classification;
pub mod sentiment;

use std::collections::BTreeMap;

use crate::labels::{Labels, Task};

/// Measures predictions of one task against the truth, sample by sample.
///
/// Samples whose truth lacks the field are left out. A prediction without it counts as score 0 for sentiment and as a
/// wrong class for emotion; decoding for the task never gives one. A metric without any sample is not in the map.
///
/// # Panics
///
/// If the slices differ in length.
pub fn task_metrics(task: Task, truths: &[Labels], predictions: &[Labels]) -> BTreeMap<String, f64> {
    assert_eq!(truths.len(), predictions.len(), "one prediction for each truth");
    let pairs = truths.iter().zip(predictions);
    let named = match task {
        Task::Sentiment => {
            let (truths, predictions): (Vec<f64>, Vec<f64>) = pairs
                .filter_map(|(truth, prediction)| Some((truth.score?, prediction.score.unwrap_or_default())))
                .unzip();
            sentiment::metrics(&truths, &predictions)
        }
        Task::Emotion(vocabulary) => {
            let class = |labels: &Labels| labels.emotions.get(vocabulary).copied().flatten();
            let (truths, predictions): (Vec<usize>, Vec<Option<usize>>) =
                pairs.filter_map(|(truth, prediction)| Some((class(truth)?, class(prediction)))).unzip();
            classification::metrics(&truths, &predictions)
        }
    };
    named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests;
