//! Labels as releases write them, checked against the schema.

use crate::error::Problem;
use crate::schema::{Polarity, SCORE_RANGE, Vocabulary};

/// Checks a sentiment score.
pub(crate) fn score(name: &str, value: f64) -> Result<f32, Problem> {
    let score = value as f32;
    if SCORE_RANGE.contains(&score) {
        return Ok(score);
    }
    let (low, high) = (SCORE_RANGE.start(), SCORE_RANGE.end());
    Err(Problem::new(format!("{name} is {score}, outside {low} to {high}")))
}

/// Reads a sentiment score.
pub(crate) fn parse_score(name: &str, text: &str) -> Result<f32, Problem> {
    let value: f64 = text.parse().map_err(|_| Problem::new(format!("{name} is `{text}`, not a number")))?;
    score(name, value)
}

/// Reads a polarity.
pub(crate) fn polarity(name: &str, text: &str) -> Result<Polarity, Problem> {
    text.parse().map_err(|problem| Problem::new(format!("{name}: {problem}")))
}

/// The polarity of an emotion of IEMOCAP, as the scripts of `UniMSE` make it of the gold label.
pub(crate) fn iemocap_polarity(class: &str) -> Polarity {
    match class {
        "neutral" => Polarity::Neutral,
        "joy" | "excited" => Polarity::Positive,
        _ => Polarity::Negative,
    }
}

/// Finds the class that a word stands for, the short forms of IEMOCAP included.
pub(crate) fn class(name: &str, text: &str, vocabulary: &Vocabulary) -> Result<String, Problem> {
    let class = text.trim().to_lowercase();
    if vocabulary.index_of(&class).is_some() {
        return Ok(class);
    }
    let class = match class.as_str() {
        "hap" | "happy" | "happiness" => "joy",
        "sad" => "sadness",
        "neu" => "neutral",
        "ang" | "angry" => "anger",
        "exc" => "excited",
        "fru" => "frustrated",
        other => other,
    };
    if vocabulary.index_of(class).is_some() {
        return Ok(class.to_owned());
    }
    Err(Problem::new(format!("{name} is `{text}`, not one of {}", vocabulary.classes.join(", "))))
}
