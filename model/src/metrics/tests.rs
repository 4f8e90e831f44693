use serde::Deserialize;

use super::classification::confusion_matrix;
use super::*;
use crate::labels::{EmotionVocabulary, LabelSchema};

/// Made by tests/golden/make_metrics.py with numpy and scikit-learn.
const GOLDEN: &str = include_str!("../../tests/golden/metrics.json");

#[derive(Deserialize)]
struct Golden {
    sentiment: Vec<SentimentCase>,
    emotion: Vec<EmotionCase>,
}

#[derive(Deserialize)]
struct SentimentCase {
    truths: Vec<f64>,
    predictions: Vec<f64>,
    metrics: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct EmotionCase {
    classes: usize,
    truths: Vec<usize>,
    predictions: Vec<i64>,
    metrics: BTreeMap<String, f64>,
    confusion: Vec<Vec<u64>>,
}

fn golden() -> Golden {
    serde_json::from_str(GOLDEN).unwrap()
}

#[track_caller]
fn same(found: &BTreeMap<String, f64>, expected: &BTreeMap<String, f64>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, value) in expected {
        assert!((found[name] - value).abs() < 1e-12, "{name}: found {}, expected {value}", found[name]);
    }
}

fn scored(scores: &[f64]) -> Vec<Labels> {
    let schema = LabelSchema::default();
    scores.iter().map(|&score| Labels::of_score(&schema, score)).collect()
}

fn classified(classes: &[Option<usize>]) -> Vec<Labels> {
    classes.iter().map(|&class| Labels { emotions: vec![None, class], ..Labels::default() }).collect()
}

#[test]
fn sentiment_metrics_are_numpys_and_sklearns() {
    let cases = golden().sentiment;
    assert_eq!(cases.len(), 3);
    for case in cases {
        same(&task_metrics(Task::Sentiment, &scored(&case.truths), &scored(&case.predictions)), &case.metrics);
    }
}

#[test]
fn emotion_metrics_are_sklearns_with_words_outside_the_vocabulary_counted_as_wrong() {
    let cases = golden().emotion;
    assert!(cases.iter().any(|case| case.predictions.contains(&-1)));
    for case in cases {
        let predictions: Vec<Option<usize>> =
            case.predictions.iter().map(|&class| usize::try_from(class).ok()).collect();
        let truths: Vec<Option<usize>> = case.truths.iter().map(|&class| Some(class)).collect();
        same(&task_metrics(Task::Emotion(1), &classified(&truths), &classified(&predictions)), &case.metrics);

        let matrix = confusion_matrix(&case.truths, &predictions, case.classes);
        let known: Vec<Vec<u64>> = matrix.iter().map(|row| row[..case.classes].to_vec()).collect();
        assert_eq!(known, case.confusion);
        assert_eq!(matrix.iter().flatten().sum::<u64>() as usize, case.truths.len());
    }
}

#[test]
fn a_score_of_exactly_zero_is_positive_with_has0_and_negative_with_non0() {
    let metrics = task_metrics(Task::Sentiment, &scored(&[1.0, -1.0, 0.0, 2.0]), &scored(&[0.0, 0.0, 0.0, 0.0]));
    assert_eq!(metrics["acc2_has0"], 0.75);
    assert_eq!(metrics["acc2_non0"], 1.0 / 3.0);
    // has0: three of four are positive and all are called so, F1 6/7 with weight 3/4. non0: one of three is negative
    // and all are called so, F1 1/2 with weight 1/3.
    assert!((metrics["f1_has0"] - 0.75 * 6.0 / 7.0).abs() < 1e-12);
    assert!((metrics["f1_non0"] - 1.0 / 6.0).abs() < 1e-12);
    assert_eq!(metrics["corr"], 0.0, "constant predictions have no correlation");
    assert_eq!(metrics["mae"], 1.0);
}

#[test]
fn halves_round_to_even_and_scores_beyond_the_scale_fall_into_its_last_class() {
    let check = |truth: f64, prediction: f64, acc5: f64, acc7: f64| {
        let metrics = task_metrics(Task::Sentiment, &scored(&[truth]), &scored(&[prediction]));
        assert_eq!((metrics["acc5"], metrics["acc7"]), (acc5, acc7), "{truth} and {prediction}");
    };
    check(0.5, 0.0, 1.0, 1.0);
    check(1.5, 2.0, 1.0, 1.0);
    check(-0.5, -1.0, 0.0, 0.0);
    check(2.5, 3.0, 1.0, 0.0);
    check(-2.6, -7.0, 1.0, 1.0);
}

#[test]
fn samples_without_the_asked_field_are_left_out() {
    let mut truths = scored(&[1.0, -2.0]);
    truths[1].score = None;
    let metrics = task_metrics(Task::Sentiment, &truths, &scored(&[1.5, 3.0]));
    assert_eq!(metrics["mae"], 0.5);
    assert_eq!(task_metrics(Task::Emotion(0), &truths, &truths), BTreeMap::new());
    let zeros = task_metrics(Task::Sentiment, &scored(&[0.0]), &scored(&[0.0]));
    assert!(!zeros.contains_key("acc2_non0") && zeros["acc2_has0"] == 1.0);
}

#[test]
fn always_guessing_the_largest_class_gives_the_known_baseline() {
    // MELD's test set: neutral 1256 of 2610, so answering neutral is right in 48.1 %.
    let support = [1256, 281, 50, 208, 402, 68, 345];
    let truths: Vec<Option<usize>> =
        support.iter().enumerate().flat_map(|(class, &count)| vec![Some(class); count]).collect();
    let metrics = task_metrics(Task::Emotion(1), &classified(&truths), &classified(&vec![Some(0); truths.len()]));
    assert!((metrics["acc"] - 1256.0 / 2610.0).abs() < 1e-12);
    assert!((metrics["macro_f1"] - metrics["wf1"] * 2610.0 / 1256.0 / 7.0).abs() < 1e-12);
    assert_eq!(EmotionVocabulary::meld().classes.len(), support.len());
}
