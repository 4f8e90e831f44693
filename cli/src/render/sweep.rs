//! Sweeps and their trials.

use std::cmp::Ordering;
use std::fmt::Write;

use owo_colors::OwoColorize;
use serde_json::Value;
use unimse_core::time::Timestamp;
use unimse_core::view::{SweepView, TrialView};

use super::amount::{number, parameter};
use super::job::{headline, state, state_style};
use super::table::{Cell, Column, Table};
use super::time::short;

/// Sets sweeps below each other.
pub(crate) fn list(sweeps: &[SweepView], now: Timestamp) -> Table {
    let mut table = Table::new([
        ("id", Column::Left),
        ("name", Column::Left),
        ("state", Column::Left),
        ("method", Column::Left),
        ("trials", Column::Right),
        ("best", Column::Right),
        ("metric", Column::Left),
        ("age", Column::Right),
    ]);
    for sweep in sweeps {
        table.row([
            sweep.id.to_string().into(),
            sweep.name.clone().into(),
            state(&sweep.status),
            sweep.method.clone().into(),
            format!("{}/{}", sweep.trials_ended, sweep.trials_total).into(),
            sweep.best_value.map_or_else(|| "-".to_owned(), number).into(),
            format!("{} ({})", sweep.metric, sweep.goal).into(),
            short(now.since(sweep.submitted)).into(),
        ]);
    }
    table
}

/// Writes a page about one sweep.
pub(crate) fn page(sweep: &SweepView, now: Timestamp, width: Option<usize>) -> String {
    let mut text =
        format!("{}  {}  {}\n", sweep.id.bold(), sweep.name.bold(), sweep.status.style(state_style(&sweep.status)));
    let _ = writeln!(text, "  method     {}", sweep.method);
    let _ = writeln!(text, "  metric     {}, {}", sweep.metric, sweep.goal);
    let _ = writeln!(text, "  trials     {} of {} have ended", sweep.trials_ended, sweep.trials_total);
    if let (Some(value), Some(trial)) = (sweep.best_value, sweep.best_trial) {
        let job = sweep.best_job.map_or_else(String::new, |job| format!(", {job}"));
        let _ = writeln!(text, "  best       {} (trial {trial}{job})", number(value));
    }
    let _ = writeln!(text, "  submitted  {} ago", short(now.since(sweep.submitted)));
    if !sweep.trials.is_empty() {
        let table = trials(&sweep.metric, &sweep.trials.iter().collect::<Vec<_>>());
        let _ = write!(text, "\n{}", table.render(width));
    }
    text
}

/// Sets trials below each other, with a column for each parameter.
pub(crate) fn trials(metric: &str, trials: &[&TrialView]) -> Table {
    let mut names: Vec<&str> = trials.iter().flat_map(|trial| trial.parameters.keys().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    let rungs = trials.iter().any(|trial| trial.rungs > 0);
    let mut columns =
        vec![("trial", Column::Right), ("job", Column::Left), ("state", Column::Left), ("step", Column::Right)];
    columns.extend(rungs.then_some(("rungs", Column::Right)));
    columns.push((metric, Column::Right));
    columns.extend(names.iter().map(|&name| (short_name(name, &names), Column::Right)));
    columns.push(("", Column::Note));
    let mut table = Table::new(columns);
    for trial in trials {
        let mut row: Vec<Cell> = vec![
            trial.trial.to_string().into(),
            trial.job.map_or_else(|| "-".to_owned(), |job| job.to_string()).into(),
            state(&trial.state),
            trial.step.to_string().into(),
        ];
        row.extend(rungs.then(|| trial.rungs.to_string().into()));
        row.push(trial.value.map_or_else(|| "-".to_owned(), number).into());
        row.extend(names.iter().map(|&name| trial.parameters.get(name).map_or_else(|| "-".to_owned(), value).into()));
        row.push(reason(trial).into());
        table.row(row);
    }
    table
}

/// Why a trial is where it is, where its state does not say it.
fn reason(trial: &TrialView) -> String {
    if matches!(trial.state.as_str(), "pending" | "running" | "finished") {
        String::new()
    } else {
        headline(&trial.reason)
    }
}

/// The end of a dotted path, where it alone says which parameter is meant.
pub(crate) fn short_name<'a>(name: &'a str, all: &[&str]) -> &'a str {
    let last = |name: &'a str| name.rsplit('.').next().unwrap_or(name);
    let end = last(name);
    let same = all.iter().filter(|other| other.rsplit('.').next() == Some(end)).count();
    if same > 1 { name } else { end }
}

/// Writes a parameter as people type it.
pub(crate) fn value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(given) if given.is_f64() => given.as_f64().map_or_else(|| given.to_string(), parameter),
        other => other.to_string(),
    }
}

/// The trials that have a value, best first.
pub(crate) fn ranked(sweep: &SweepView) -> Vec<&TrialView> {
    let mut ranked: Vec<&TrialView> = sweep.trials.iter().filter(|trial| trial.value.is_some()).collect();
    let maximise = sweep.goal == "maximize";
    ranked.sort_by(|a, b| {
        let order = a.value.partial_cmp(&b.value).unwrap_or(Ordering::Equal);
        if maximise { order.reverse() } else { order }
    });
    ranked
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use unimse_core::id::{JobId, Step, SweepId, TrialId};

    use super::super::job::tests::NOW;
    use super::*;

    fn trial(number: u32, rate: f64, value: Option<f64>) -> TrialView {
        TrialView {
            trial: TrialId(number),
            job: Some(JobId(number)),
            state: if value.is_some() { "completed" } else { "running" }.into(),
            parameters: BTreeMap::from([
                ("train.learning_rate".to_owned(), json!(rate)),
                ("model.fusion.layers".to_owned(), json!(3)),
            ]),
            rungs: 0,
            step: Step(200),
            value,
            reason: String::new(),
        }
    }

    fn sweep() -> SweepView {
        SweepView {
            id: SweepId(0),
            name: "mosi-lr".into(),
            status: "running".into(),
            method: "random".into(),
            metric: "valid/mae".into(),
            goal: "minimize".into(),
            trials_total: 40,
            trials_ended: 2,
            best_trial: Some(TrialId(1)),
            best_job: Some(JobId(1)),
            best_value: Some(0.5),
            submitted: Timestamp(NOW.0 - 60_000),
            trials: vec![trial(0, 1e-3, Some(0.9)), trial(1, 3e-4, Some(0.5)), trial(2, 2.5e-5, None)],
        }
    }

    #[test]
    fn a_page_has_a_column_for_each_parameter() {
        let [a, b, c] = [JobId(0), JobId(1), JobId(2)];
        let id = SweepId(0);
        let expected = format!(
            "\
{id}  mosi-lr  running
  method     random
  metric     valid/mae, minimize
  trials     2 of 40 have ended
  best       0.5000 (trial 1, {b})
  submitted  1m ago

TRIAL  JOB     STATE      STEP  VALID/MAE  LAYERS  LEARNING_RATE
    0  {a}  completed   200     0.9000       3          0.001
    1  {b}  completed   200     0.5000       3           3e-4
    2  {c}  running     200          -       3         2.5e-5
"
        );
        assert_eq!(anstream::adapter::strip_str(&page(&sweep(), NOW, None)).to_string(), expected);
    }

    #[test]
    fn the_goal_decides_which_trial_is_first() {
        let numbers = |sweep: &SweepView| ranked(sweep).iter().map(|trial| trial.trial.0).collect::<Vec<_>>();
        assert_eq!(numbers(&sweep()), [1, 0]);
        assert_eq!(numbers(&SweepView { goal: "maximize".into(), ..sweep() }), [0, 1]);
    }

    #[test]
    fn two_parameters_with_the_same_last_word_keep_their_paths() {
        let all = ["model.acoustic", "model.contrastive.acoustic", "train.seed"];
        assert_eq!(short_name(all[0], &all), "model.acoustic");
        assert_eq!(short_name(all[2], &all), "seed");
    }
}
