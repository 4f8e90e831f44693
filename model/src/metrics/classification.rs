//! Metrics of a class, as in scikit-learn's `classification_report`.
//!
//! A prediction of `None` is a word outside the vocabulary: it is wrong, and it is a class without support, so it
//! lowers recall but is not averaged over.

/// Returns all emotion metrics by name; empty for no samples.
pub fn metrics(truths: &[usize], predictions: &[Option<usize>]) -> Vec<(&'static str, f64)> {
    if truths.is_empty() {
        return Vec::new();
    }
    vec![
        ("acc", accuracy(truths, predictions)),
        ("wf1", weighted_f1(truths, predictions)),
        ("macro_f1", macro_f1(truths, predictions)),
    ]
}

/// Returns the share of right predictions.
pub fn accuracy(truths: &[usize], predictions: &[Option<usize>]) -> f64 {
    let right = truths.iter().zip(predictions).filter(|(truth, prediction)| Some(**truth) == **prediction);
    right.count() as f64 / truths.len() as f64
}

/// Returns the mean of the classes' F1, each weighted with its number of true samples.
pub fn weighted_f1(truths: &[usize], predictions: &[Option<usize>]) -> f64 {
    let classes = per_class(truths, predictions);
    classes.iter().map(|class| class.f1() * class.support as f64).sum::<f64>() / truths.len() as f64
}

/// Returns the plain mean of the F1 of those classes that occur among truths or predictions; one that occurs only in
/// predictions counts as 0.
pub fn macro_f1(truths: &[usize], predictions: &[Option<usize>]) -> f64 {
    let classes = per_class(truths, predictions);
    let occurring: Vec<f64> =
        classes.iter().filter(|class| class.support + class.predicted > 0).map(ClassCounts::f1).collect();
    occurring.iter().sum::<f64>() / occurring.len() as f64
}

/// Returns counts `[truth][prediction]` for `classes` classes, with one more column for words outside the vocabulary.
///
/// # Panics
///
/// If a class is not below `classes`.
pub fn confusion_matrix(truths: &[usize], predictions: &[Option<usize>], classes: usize) -> Vec<Vec<u64>> {
    let mut matrix = vec![vec![0; classes + 1]; classes];
    for (&truth, prediction) in truths.iter().zip(predictions) {
        matrix[truth][prediction.unwrap_or(classes)] += 1;
    }
    matrix
}

#[derive(Debug, Clone, Copy, Default)]
struct ClassCounts {
    right: usize,
    support: usize,
    predicted: usize,
}

impl ClassCounts {
    /// The harmonic mean of precision and recall, `2 right / (support + predicted)`; 0 if nothing is right.
    fn f1(&self) -> f64 {
        if self.right == 0 { 0.0 } else { 2.0 * self.right as f64 / (self.support + self.predicted) as f64 }
    }
}

fn per_class(truths: &[usize], predictions: &[Option<usize>]) -> Vec<ClassCounts> {
    let classes = truths.iter().chain(predictions.iter().flatten()).max().map_or(0, |largest| largest + 1);
    let mut counts = vec![ClassCounts::default(); classes];
    for (&truth, &prediction) in truths.iter().zip(predictions) {
        counts[truth].support += 1;
        if let Some(prediction) = prediction {
            counts[prediction].predicted += 1;
            counts[prediction].right += usize::from(prediction == truth);
        }
    }
    counts
}
