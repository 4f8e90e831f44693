//! `unimse sweep report SWEEP [METRIC...]`.

use std::collections::BTreeMap;

use unimse_core::id::{Step, TrialId};
use unimse_core::view::SweepView;
use unimse_proto::client::Client;

use crate::args::Format;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output;
use crate::render::report::{at_best, groups, json, table};

/// Reads the curves of all trials, and prints what repetitions have in common.
pub(super) async fn run(
    context: &Context,
    client: &Client,
    sweep: &SweepView,
    names: Vec<String>,
    format: Format,
) -> Result<Exit> {
    let mut metrics = vec![sweep.metric.clone()];
    metrics.extend(names.into_iter().filter(|name| *name != sweep.metric));
    let mut found: BTreeMap<TrialId, Vec<Option<f64>>> = BTreeMap::new();
    for trial in &sweep.trials {
        let Some(job) = trial.job else { continue };
        let points = client.metrics(&job.to_string(), &metrics, Step(0)).await?;
        found.insert(trial.trial, at_best(&points, &metrics, sweep.goal == "maximize"));
    }
    if let Some((place, name)) =
        metrics.iter().enumerate().find(|(place, _)| !found.values().any(|values| values[*place].is_some()))
    {
        let hint = match sweep.trials.iter().find_map(|trial| trial.job) {
            Some(job) if place > 0 => format!("see what there is: unimse metrics {job}"),
            _ => format!("see how far they are: unimse sweep show {}", sweep.id),
        };
        return Err(Error::NotFound { message: format!("no trial of {} has reported {name} yet", sweep.id), hint });
    }
    let groups = groups(&sweep.trials, metrics.len(), &found);
    match format {
        Format::Json => output::print(&output::document(&[("groups", json(&groups, &metrics))]))?,
        Format::Table => {
            output::print(&table(&groups, &metrics).render(context.terminal.width))?;
            context.say(&format!("each trial at its best {}; mean and standard deviation over seeds", sweep.metric));
        }
    }
    Ok(Exit::Done)
}
