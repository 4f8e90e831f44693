//! The numbers of one run, as a table for people and as a file for comparisons.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::host::Host;

/// One number.
///
/// A number may be a ratio to a peer, of unit `x`; `ours`, `peer` and `floor` are then in the unit `of`. Else `peer` and `floor` are in
/// the record's own unit and `ours` is the value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// What was measured.
    pub(super) name: String,
    /// The number.
    pub(super) value: f64,
    /// Its unit.
    pub(super) unit: String,
    /// Which way is better.
    pub(super) better: Better,
    /// What was promised: at least, or at most, so much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) budget: Option<f64>,
    /// What we have, where the value is a ratio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ours: Option<f64>,
    /// What the system has that we compare with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) peer: Option<f64>,
    /// What no program can beat on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) floor: Option<f64>,
    /// The unit of these three, where the value is a ratio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) of: Option<String>,
    /// Anything that helps to read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
}

/// Which way a number improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Better {
    /// Throughput and the like.
    Higher,
    /// Latency and the like.
    Lower,
}

/// The unit of ratios.
pub(super) const RATIO: &str = "x";

impl Record {
    /// A number that is better when lower, with nothing said beside it.
    pub(super) fn new(name: impl Into<String>, value: f64, unit: &str) -> Self {
        let (name, unit, better) = (name.into(), unit.to_owned(), Better::Lower);
        let (budget, ours, peer, floor, of, note) = (None, None, None, None, None, None);
        Self { name, value, unit, better, budget, ours, peer, floor, of, note }
    }

    /// Whether the promise was kept, if there was one. What is no number keeps none.
    pub(super) fn is_kept(&self) -> Option<bool> {
        let budget = self.budget?;
        Some(match self.better {
            Better::Higher => self.value >= budget,
            Better::Lower => self.value <= budget,
        })
    }

    /// On which side of its budget a number has to be.
    pub(super) fn bound(&self) -> &'static str {
        match self.better {
            Better::Higher => "at least",
            Better::Lower => "at most",
        }
    }

    /// How many times better than the peer's the number is.
    pub(super) fn times_better(&self) -> Option<f64> {
        let peer = self.peer?;
        Some(match self.better {
            Better::Higher => self.value / peer,
            Better::Lower => peer / self.value,
        })
    }

    /// The promise beside what became of it; nothing where nothing was promised.
    fn against_budget(&self) -> String {
        let (Some(budget), Some(kept)) = (self.budget, self.is_kept()) else { return String::new() };
        let word = if kept { "kept" } else { "MISSED" };
        format!("budget {} {}: {word}, {}x", self.bound(), digits(budget), digits(self.value / budget))
    }

    /// What the number is compared with, where it says so.
    fn beside(&self) -> String {
        let unit = self.of.as_deref().unwrap_or(&self.unit);
        let named = [("ours", self.ours), ("peer", self.peer), ("floor", self.floor)];
        let said = named.map(|(name, value)| value.map(|value| format!("{name} {} {unit}", digits(value))));
        said.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// All numbers of one run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) bench: &'static str,
    pub(super) host: Host,
    pub(super) records: Vec<Record>,
}

impl Report {
    /// Replaces `NAME.json` in `folder`.
    pub(super) fn write(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let path = folder.join(format!("{}.json", self.bench));
        let fresh = path.with_extension("json.new");
        fs::write(&fresh, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&fresh, &path))
            .with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Aligns names to the left and numbers at their right end; budgets stand beside what was measured.
    pub(super) fn table(&self) -> String {
        let rows: Vec<[String; 3]> = self
            .records
            .iter()
            .map(|record| {
                let said = [record.against_budget(), record.beside(), record.note.clone().unwrap_or_default()];
                let said: Vec<String> = said.into_iter().filter(|text| !text.is_empty()).collect();
                let rest = [vec![record.unit.clone()], said].concat().join("  ");
                [record.name.clone(), digits(record.value), rest]
            })
            .collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let (names, values) = (width(0), width(1));
        let lines: Vec<String> =
            rows.iter().map(|[name, value, unit]| format!("{name:<names$}  {value:>values$} {unit}\n")).collect();
        lines.concat()
    }
}

/// Writes three digits that mean something, and an exponent only for what is tiny.
pub(super) fn digits(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-4 {
        return format!("{value:.1e}");
    }
    let decimals = if value == 0.0 { 0 } else { (2 - value.abs().log10().floor() as i32).clamp(0, 6) };
    format!("{value:.*}", decimals as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_that_mean_something() {
        let texts = [0.0, 0.000_001_26, 0.001_234, 0.12, 1.0, 12.345, 123.45, 1234.5].map(digits);
        assert_eq!(texts, ["0", "1.3e-6", "0.00123", "0.120", "1.00", "12.3", "123", "1234"]);
    }

    #[test]
    fn a_record_is_read_from_the_line_that_a_bench_prints() {
        let line = r#"{"name": "write", "value": 8.5, "unit": "MB/s", "better": "higher"}"#;
        let record: Record = serde_json::from_str(line).expect("it is a record");
        assert_eq!((record.value, record.better, record.budget, record.note), (8.5, Better::Higher, None, None));
        assert!(serde_json::from_str::<Record>(r#"{"name": "write"}"#).is_err());
    }

    #[test]
    fn a_record_says_what_its_number_was_compared_with() {
        let line = r#"{"name": "speed", "value": 1.5, "unit": "x", "better": "higher", "ours": 20, "peer": 30, "of": "ms", "floor": 8}"#;
        let record: Record = serde_json::from_str(line).expect("it is a record");
        assert_eq!(record.beside(), "ours 20.0 ms, peer 30.0 ms, floor 8.00 ms");
        let again: Record =
            serde_json::from_str(&serde_json::to_string(&record).expect("plain data")).expect("it is one");
        assert_eq!(again, record);
    }

    #[test]
    fn a_budget_is_kept_from_its_own_side() {
        let against =
            |value, better| Record { value, better, budget: Some(100.0), ..Record::new("", 0.0, "") }.against_budget();
        assert_eq!(against(250.0, Better::Higher), "budget at least 100: kept, 2.50x");
        assert_eq!(against(50.0, Better::Higher), "budget at least 100: MISSED, 0.500x");
        assert_eq!(against(50.0, Better::Lower), "budget at most 100: kept, 0.500x");
        assert_eq!(against(250.0, Better::Lower), "budget at most 100: MISSED, 2.50x");
        assert!(against(f64::NAN, Better::Lower).contains("MISSED"));
    }
}
