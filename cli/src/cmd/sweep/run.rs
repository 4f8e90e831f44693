//! `unimse sweep run FILE [--preview]`.

use std::path::Path;

use serde_json::{Value, json};
use unimse_core::id::TrialId;
use unimse_core::sweep::SweepSpec;
use unimse_proto::Error as RemoteError;
use uuid::Uuid;

use crate::args::Format;
use crate::cmd::validate::parse_sweep;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::render::amount::count;
use crate::render::sweep::value;
use crate::render::table::{Column, Table};
use crate::{input, output};

/// How many trials a preview shows.
const PREVIEW: u32 = 10;

/// Reads a sweep and the job it names.
pub(super) fn read(file: &Path) -> Result<SweepSpec> {
    let text = input::read(file)?;
    let sweep = parse_sweep(file, &text)?;
    // The first trial would find what is wrong with the job; the person who is looking should.
    sweep.trial_job(TrialId(0))?;
    Ok(sweep)
}

/// Shows the first trials.
pub(super) fn preview(context: &Context, sweep: &SweepSpec, format: Format) -> Result<Exit> {
    let total = sweep.trial_count();
    let shown: Vec<TrialId> = (0..total.min(PREVIEW)).map(TrialId).collect();
    if format == Format::Json {
        let trials: Vec<Value> =
            shown.iter().map(|&trial| json!({ "trial": trial, "parameters": sweep.shown(trial) })).collect();
        output::print(&output::document(&[("trials_total", total.into()), ("trials", trials.into())]))?;
        return Ok(Exit::Done);
    }
    let names: Vec<String> = sweep.shown(TrialId(0)).into_keys().collect();
    let columns = names.iter().map(|name| (name.as_str(), Column::Right));
    let mut table = Table::new(std::iter::once(("trial", Column::Right)).chain(columns));
    for &trial in &shown {
        let parameters = sweep.shown(trial);
        let cells = names.iter().map(|name| parameters.get(name).map_or_else(|| "-".to_owned(), value).into());
        table.row(std::iter::once(trial.to_string().into()).chain(cells));
    }
    output::print(&table.render(context.terminal.width))?;
    let first = if u64::from(total) > shown.len() as u64 {
        format!(", the first {} are above", shown.len())
    } else {
        String::new()
    };
    context.say(&format!(
        "{} of {}{first}; {} at a time, {} {}. nothing was started",
        count(u64::from(total), "trial"),
        sweep.name,
        sweep.parallel,
        sweep.metric.goal,
        sweep.metric.name
    ));
    Ok(Exit::Done)
}

/// Starts it.
pub(super) async fn start(context: &Context, key: Option<String>, sweep: &SweepSpec, format: Format) -> Result<Exit> {
    let client = context.client().await?;
    let key = key.unwrap_or_else(|| format!("cli-{}", Uuid::new_v4()));
    let (id, new) = match client.sweep_run(Some(key.clone()), sweep).await {
        // The answer was lost; the key makes asking again harmless.
        Err(RemoteError::Unreachable { .. }) => client.sweep_run(Some(key), sweep).await,
        outcome => outcome,
    }
    .map_err(Error::from)?;
    match format {
        Format::Json => {
            let view = client.sweep(&id.to_string()).await?;
            output::print(&output::document(&[("new", new.into()), ("sweep", output::value(&view))]))?;
        }
        Format::Table => output::print(&id.to_string())?,
    }
    if new {
        context.say(&format!(
            "started {} ({}, {} at a time)",
            sweep.name,
            count(u64::from(sweep.trial_count()), "trial"),
            sweep.parallel
        ));
    } else {
        context.say(&format!("{id} was started before with this key; nothing new was started"));
    }
    context.say(&format!("  follow it: unimse sweep show {id}    the best so far: unimse sweep best {id}"));
    Ok(Exit::Done)
}
