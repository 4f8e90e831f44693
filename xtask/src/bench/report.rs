//! The numbers of one run, as a table for people and as a file for comparisons.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::host::Host;

/// One number.
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

impl Record {
    /// The promise beside what became of it; nothing where nothing was promised.
    fn against_budget(&self) -> String {
        let Some(budget) = self.budget else { return String::new() };
        let (bound, kept) = match self.better {
            Better::Higher => ("at least", self.value >= budget),
            Better::Lower => ("at most", self.value <= budget),
        };
        let word = if kept { "kept" } else { "MISSED" };
        format!("budget {bound} {}: {word}, {}x", digits(budget), digits(self.value / budget))
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
                let said = [record.against_budget(), record.note.clone().unwrap_or_default()];
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

/// Writes three digits that mean something, and never an exponent.
fn digits(value: f64) -> String {
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
    fn a_budget_is_kept_from_its_own_side() {
        let against = |value, better| {
            let (name, unit, budget, note) = (String::new(), String::new(), Some(100.0), None);
            Record { name, value, unit, better, budget, note }.against_budget()
        };
        assert_eq!(against(250.0, Better::Higher), "budget at least 100: kept, 2.50x");
        assert_eq!(against(50.0, Better::Higher), "budget at least 100: MISSED, 0.500x");
        assert_eq!(against(50.0, Better::Lower), "budget at most 100: kept, 0.500x");
        assert_eq!(against(250.0, Better::Lower), "budget at most 100: MISSED, 2.50x");
    }
}
