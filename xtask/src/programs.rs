//! Builds the programs that other tasks run.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// Builds all programs and gives the folder they are in.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    // The tests are named too because they decide with which features shared dependencies are compiled: programs built without
    // them would compile half the tree a second time.
    let status = workspace.cargo(&["build", "--workspace", "--bins", "--tests"]).status().context("run cargo build")?;
    if !status.success() {
        bail!("the programs do not build");
    }
    Ok(workspace.target().join("debug"))
}
