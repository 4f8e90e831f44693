//! Repeated trials as mean and deviation.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use unimse_core::id::{Step, TrialId};
use unimse_core::view::TrialView;
use unimse_proto::client::MetricPoint;

use super::amount::number;
use super::metric::series;
use super::sweep::{short_name, value};
use super::table::{Column, Table};

/// The parameter that makes trials repetitions of each other.
const SEED: &str = "train.seed";

/// Trials that differ in their seed only.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    /// What they share.
    parameters: BTreeMap<String, Value>,
    trials: Vec<TrialId>,
    /// One list for each metric, with the values of the trials that have one.
    values: Vec<Vec<f64>>,
}

/// Mean, and the sample's standard deviation where there are two values or more.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    mean: f64,
    deviation: Option<f64>,
}

/// Puts repetitions together, in the order of their first trials. `found` has the metrics' values of each trial, of one that
/// has not reported anything yet none.
pub(crate) fn groups(trials: &[TrialView], metrics: usize, found: &BTreeMap<TrialId, Vec<Option<f64>>>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for trial in trials {
        let mut parameters = trial.parameters.clone();
        parameters.remove(SEED);
        let place = groups.iter().position(|group| group.parameters == parameters).unwrap_or_else(|| {
            groups.push(Group { parameters, trials: Vec::new(), values: vec![Vec::new(); metrics] });
            groups.len() - 1
        });
        let group = &mut groups[place];
        group.trials.push(trial.trial);
        for (values, value) in group.values.iter_mut().zip(found.get(&trial.trial).into_iter().flatten()) {
            values.extend(value);
        }
    }
    groups
}

/// The values of `metrics` where the first of them is best: the evaluation whose checkpoint is kept as the best.
pub(crate) fn at_best(points: &[MetricPoint], metrics: &[String], maximise: bool) -> Vec<Option<f64>> {
    let series = series(points);
    let at = |name: &String, step: Step| {
        series.get(name.as_str())?.iter().find(|point| point.step == step).map(|point| point.value)
    };
    let sign = if maximise { -1.0 } else { 1.0 };
    let first = metrics.first().and_then(|name| series.get(name.as_str()));
    let finite = first.into_iter().flatten().filter(|point| point.value.is_finite());
    let best = finite.min_by(|one, other| (sign * one.value).total_cmp(&(sign * other.value)));
    metrics.iter().map(|name| best.and_then(|best| at(name, best.step))).collect()
}

fn spread(values: &[f64]) -> Option<Spread> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
    (!values.is_empty()).then_some(Spread { mean, deviation })
}

/// Sets the groups below each other, with a column for each parameter and each metric.
pub(crate) fn table(groups: &[Group], metrics: &[String]) -> Table {
    let mut names: Vec<&str> = groups.iter().flat_map(|group| group.parameters.keys().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    let mut columns: Vec<(&str, Column)> = names.iter().map(|&name| (short_name(name, &names), Column::Left)).collect();
    columns.push(("trials", Column::Right));
    columns.extend(metrics.iter().map(|name| (name.as_str(), Column::Right)));
    let mut table = Table::new(columns);
    for group in groups {
        let reported = group.values.first().map_or(0, Vec::len);
        let all = group.trials.len();
        let of = if reported == all { all.to_string() } else { format!("{reported}/{all}") };
        let parameters = names.iter().map(|&name| group.parameters.get(name).map_or_else(|| "-".to_owned(), value));
        let values = group.values.iter().map(|values| match spread(values) {
            None => "-".to_owned(),
            Some(Spread { mean, deviation: None }) => number(mean),
            Some(Spread { mean, deviation: Some(deviation) }) => format!("{} ± {}", number(mean), number(deviation)),
        });
        table.row(parameters.chain([of]).chain(values).map(Into::into));
    }
    table
}

/// The same for programs.
pub(crate) fn json(groups: &[Group], metrics: &[String]) -> Value {
    let group = |group: &Group| {
        let values: serde_json::Map<String, Value> = metrics
            .iter()
            .zip(&group.values)
            .map(|(name, values)| {
                let found = spread(values);
                let summary = json!({
                    "mean": found.map(|found| found.mean),
                    "deviation": found.and_then(|found| found.deviation),
                    "values": values,
                });
                (name.clone(), summary)
            })
            .collect();
        json!({ "parameters": group.parameters, "trials": group.trials, "metrics": values })
    };
    groups.iter().map(group).collect()
}

#[cfg(test)]
mod tests {
    use unimse_core::id::Generation;
    use unimse_core::time::Timestamp;

    use super::*;

    fn trial(number: u32, variant: &str, seed: u64) -> TrialView {
        TrialView {
            trial: TrialId(number),
            job: None,
            state: "completed".into(),
            parameters: [("variant".to_owned(), json!(variant)), (SEED.to_owned(), json!(seed))].into(),
            rungs: 0,
            step: Step(1),
            value: None,
            reason: String::new(),
        }
    }

    fn point(name: &str, step: u64, value: f64) -> MetricPoint {
        MetricPoint { name: name.into(), step: Step(step), value, generation: Generation(1), at: Timestamp(0) }
    }

    #[test]
    fn seeds_of_a_variant_become_mean_and_deviation() {
        let trials = [trial(0, "full", 1), trial(1, "no sound", 1), trial(2, "full", 2), trial(3, "no sound", 2)];
        let metrics = ["valid/score".to_owned(), "valid/mae".to_owned()];
        let found = BTreeMap::from([
            (TrialId(0), vec![Some(0.5), Some(1.0)]),
            (TrialId(1), vec![Some(0.25), None]),
            (TrialId(2), vec![Some(0.7), Some(3.0)]),
        ]);
        let groups = groups(&trials, 2, &found);
        let expected = "\
VARIANT   TRIALS      VALID/SCORE      VALID/MAE
full           2  0.6000 ± 0.1414  2.000 ± 1.414
no sound     1/2           0.2500              -
";
        assert_eq!(anstream::adapter::strip_str(&table(&groups, &metrics).render(None)).to_string(), expected);
        assert_eq!(json(&groups, &metrics)[0]["metrics"]["valid/mae"]["values"], json!([1.0, 3.0]));
    }

    #[test]
    fn other_metrics_are_those_of_the_best_evaluation() {
        let metrics = ["valid/score".to_owned(), "valid/mae".to_owned()];
        let points = [
            point("valid/score", 10, 0.4),
            point("valid/mae", 10, 1.4),
            point("valid/score", 20, 0.6),
            point("valid/mae", 20, 1.2),
            point("valid/score", 30, f64::NAN),
            point("valid/mae", 30, 1.0),
        ];
        assert_eq!(at_best(&points, &metrics, true), [Some(0.6), Some(1.2)]);
        assert_eq!(at_best(&points, &metrics, false), [Some(0.4), Some(1.4)]);
        assert_eq!(at_best(&points[1..2], &metrics, true), [None, None]);
    }
}
