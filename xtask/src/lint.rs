//! Formatting, lints, documentation and licences: all are run, even after one failed.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::talk;
use crate::workspace::{Workspace, succeeds};

/// What a person can choose.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Install cargo-deny first if it is missing (takes minutes)
    #[arg(long)]
    install: bool,
}

/// Runs every check and fails if any failed.
pub(crate) fn run(workspace: &Workspace, options: Options) -> Result<()> {
    let begun = Instant::now();
    let mut documentation = workspace.cargo(&["doc", "--workspace", "--no-deps"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    let mut checks = vec![
        ("formatting", workspace.cargo(&["fmt", "--all", "--check"])),
        ("clippy", workspace.cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
        ("documentation", documentation),
    ];
    let skipped = match licences(workspace, options)? {
        Some(command) => {
            checks.push(("licences and bans", command));
            false
        }
        None => true,
    };
    let mut failed = Vec::new();
    for (name, mut command) in checks {
        talk::say("Checking", name);
        if !command.status().with_context(|| format!("start the check of {name}"))?.success() {
            failed.push(name);
        }
    }
    if skipped {
        talk::warn("Skipped", "licences and bans: cargo-deny is not installed (`cargo xtask lint --install` does it)");
    }
    let took = talk::seconds(begun.elapsed());
    if !failed.is_empty() {
        bail!("{} failed, after {took}", failed.join(" and "));
    }
    talk::say("Clean", &format!("in {took}"));
    Ok(())
}

/// Prepares cargo-deny; `None` where it is missing and was not asked for.
fn licences(workspace: &Workspace, options: Options) -> Result<Option<Command>> {
    let installed = || succeeds(&mut workspace.cargo(&["deny", "--version"]));
    if !installed() && options.install {
        talk::say("Installing", "cargo-deny");
        let status = workspace.cargo(&["install", "cargo-deny", "--locked"]).status().context("start cargo install")?;
        if !status.success() {
            bail!("cargo-deny could not be installed");
        }
    }
    // Advisories are left out: their database is a download of its own, and a lint must work without it.
    Ok(installed().then(|| workspace.cargo(&["deny", "check", "bans", "licenses", "sources"])))
}
