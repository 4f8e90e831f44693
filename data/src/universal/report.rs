//! What labelling did, for people to judge it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::SCORE;
use crate::import::table::Table;
use crate::schema::Labels;

/// What was filled, where, and from whom.
#[derive(Debug, Default, Serialize)]
pub struct LabelReport {
    /// The stores that were written.
    pub stores: Vec<PathBuf>,
    /// By dataset, then by field.
    pub fields: BTreeMap<String, BTreeMap<String, FieldReport>>,
    /// A few matches, to check by hand.
    pub matches: Vec<Match>,
    #[serde(skip)]
    all: Vec<Match>,
}

/// What one field of one dataset got.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FieldReport {
    /// Samples that got a label from the nearest sample.
    pub copied: usize,
    /// Neutral samples that got the neutral label.
    pub neutral: usize,
    /// Samples for which no dataset has a donor of their polarity.
    pub lacking: usize,
    /// The mean cosine of the copied ones.
    pub similarity: f64,
    /// Samples by label; scores are counted by their sign.
    pub labels: BTreeMap<String, usize>,
}

/// One label that was copied.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Match {
    /// The dataset that got the label.
    pub dataset: String,
    /// `score`, or a vocabulary's name.
    pub field: String,
    /// The sentence that got it.
    pub text: String,
    /// The label.
    pub label: String,
    /// The sentence that it was copied from.
    pub donor: String,
    /// That sample's dataset and id.
    pub from: String,
    /// The cosine of both.
    pub similarity: f32,
}

impl LabelReport {
    pub(super) fn count(&mut self, dataset: &str, field: &str, labels: &Labels, texts: Option<(&str, &str)>) {
        let own = self.fields.entry(dataset.to_owned()).or_default().entry(field.to_owned()).or_default();
        let label = match labels.score.filter(|_| field == SCORE) {
            Some(score) => format!("{score}"),
            None => labels.emotions.get(field).cloned().unwrap_or_default(),
        };
        let counted = match labels.score.filter(|_| field == SCORE) {
            Some(score) if score > 0.0 => "above 0",
            Some(score) if score < 0.0 => "below 0",
            Some(_) => "0",
            None => label.as_str(),
        };
        *own.labels.entry(counted.to_owned()).or_default() += 1;
        let Some((text, donor)) = texts else {
            own.neutral += 1;
            return;
        };
        own.copied += 1;
        if let Some(filled) = labels.filled.get(field) {
            own.similarity += (f64::from(filled.similarity) - own.similarity) / own.copied as f64;
            self.all.push(Match {
                dataset: dataset.to_owned(),
                field: field.to_owned(),
                text: text.to_owned(),
                label,
                donor: donor.to_owned(),
                from: filled.from.clone(),
                similarity: filled.similarity,
            });
        }
    }

    pub(super) fn lack(&mut self, dataset: &str, field: &str, samples: usize) {
        let own = self.fields.entry(dataset.to_owned()).or_default().entry(field.to_owned()).or_default();
        own.lacking += samples;
    }

    /// Chooses what is shown.
    pub(super) fn choose(&mut self, seed: u64, count: usize) {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let mut chosen = index::sample(&mut generator, self.all.len(), count.min(self.all.len())).into_vec();
        chosen.sort_unstable();
        self.matches = chosen.into_iter().map(|place| self.all[place].clone()).collect();
    }
}

impl fmt::Display for LabelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (dataset, fields) in &self.fields {
            for (field, report) in fields {
                let FieldReport { copied, neutral, lacking, similarity, labels } = report;
                write!(f, "{dataset}: {field}: {copied} copied, mean similarity {similarity:.2}; {neutral} neutral")?;
                writeln!(f, "{}", if *lacking > 0 { format!("; {lacking} without a donor") } else { String::new() })?;
                let mut table = Table::new([String::new()]);
                for (label, count) in labels {
                    table.row(format!("  {label}"), [count.to_string()]);
                }
                write!(f, "{}", table.to_string().trim_start_matches('\n'))?;
            }
        }
        if !self.matches.is_empty() {
            writeln!(f, "\nA few of them, to judge:")?;
        }
        for Match { field, text, label, donor, from, similarity, .. } in &self.matches {
            writeln!(f, "  {text}\n    {field} = {label}, as {from} ({similarity:.2}): {donor}")?;
        }
        Ok(())
    }
}
