//! Sweeps.

use unimse_core::id::SweepId;
use unimse_core::machine::{Answer, Event};
use unimse_core::sweep::SweepSpec;
use unimse_core::view::SweepView;
use unimse_proto::Error;
use unimse_proto::client::SweepCommand;

use super::{check_key, unexpected};
use crate::handle::Handle;
use crate::resolve;
use crate::service::Present;

pub(super) async fn run(handle: &Handle, key: Option<String>, spec: SweepSpec) -> Result<(SweepId, bool), Error> {
    check_key(key.as_ref())?;
    let checkpoint_uri = handle.about().checkpoint_uri.clone();
    match handle.apply(Event::SweepRun { key, spec: Box::new(spec), checkpoint_uri }).await? {
        Answer::Sweep { sweep, new } => Ok((sweep, new)),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn list(handle: &Handle) -> Result<Vec<SweepView>, Error> {
    let look = |present: &Present<'_>| {
        let sweeps = present.machine.state().sweeps.values().rev();
        sweeps.map(|record| present.machine.sweep_view(record)).collect()
    };
    Ok(handle.query(look).await?)
}

pub(super) async fn show(handle: &Handle, sweep: &str) -> Result<SweepView, Error> {
    let text = sweep.to_owned();
    let look = move |present: &Present<'_>| {
        let state = present.machine.state();
        Ok(present.machine.sweep_view(&state.sweeps[&resolve::sweep(state, &text)?]))
    };
    handle.query(look).await?
}

pub(super) async fn command(handle: &Handle, sweep: &str, command: SweepCommand) -> Result<(), Error> {
    let text = sweep.to_owned();
    let sweep = handle.query(move |present| resolve::sweep(present.machine.state(), &text)).await??;
    let event = match command {
        SweepCommand::Pause => Event::SweepPause { sweep },
        SweepCommand::Resume => Event::SweepResume { sweep },
        SweepCommand::Stop => Event::SweepStop { sweep },
    };
    handle.apply(event).await?;
    Ok(())
}
