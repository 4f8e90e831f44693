//! `unimse evaluate` and `unimse predict`: fetches the checkpoint, then lets the worker program do what needs tensors.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ckpt::{name, pull};
use super::exec::{Worker, become_it};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;

pub(crate) async fn run(context: &Context, verb: &str, checkpoint: &str, arguments: Vec<OsString>) -> Result<Exit> {
    // Found first: fetching gigabytes for a program that does not start would be a pity.
    let worker = Worker::find(context)?;
    let mut command = worker.command();
    command.arg(verb).arg("--model");
    if Path::new(checkpoint).is_dir() {
        command.arg(checkpoint).args(arguments);
        return become_it(command);
    }
    let client = context.client().await?;
    let view = name::find(&client, checkpoint).await?;
    let scratch = tempfile::Builder::new().prefix("unimse-").tempdir().map_err(|error| {
        Error::file("create a folder below", &PathBuf::from("the system's temporary folder"), error)
    })?;
    let folder = scratch.path().join("model");
    context.say(&format!("{verb}: checkpoint {}:{}", view.job, view.step));
    pull::fetch(context, &view, &folder).await?;
    command.arg(&folder).args(arguments);
    wait_for(command).await
}

/// Says what is missing before anything is fetched or loaded.
pub(crate) fn check_stores(stores: &[PathBuf]) -> Result<()> {
    let is_local = |store: &&PathBuf| !store.to_string_lossy().contains("://");
    stores
        .iter()
        .filter(is_local)
        .try_for_each(|store| std::fs::metadata(store).map(drop).map_err(|error| Error::file("read", store, error)))
}

/// Runs a program to its end. Ctrl-C reaches it from the terminal; this one stays to remove the folder.
async fn wait_for(command: Command) -> Result<Exit> {
    let program = PathBuf::from(command.get_program());
    let start = |error| Error::file("start", &program, error);
    let mut child = tokio::process::Command::from(command).spawn().map_err(start)?;
    let mut interrupted = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.map_err(start)?,
            _ = tokio::signal::ctrl_c() => interrupted = true,
        }
    };
    Ok(match status.code() {
        _ if interrupted => Exit::Interrupted,
        Some(0) => Exit::Done,
        Some(2) => Exit::Usage,
        _ => Exit::Failure,
    })
}
