//! Runs every test once and says at the end how it went.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::programs;
use crate::talk;
use crate::workspace::{Workspace, succeeds};

/// What a person can choose.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Test only this package (may be given several times)
    #[arg(short, long = "package", value_name = "NAME")]
    packages: Vec<String>,
    /// Passed on to the test runner: names of tests, filters, options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    rest: Vec<String>,
}

/// Builds everything, runs tests and documentation tests, and fails if any failed.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let begun = Instant::now();
    if options.packages.is_empty() || options.packages.iter().any(|package| package == "unimse-tests") {
        // The end-to-end tests start the real programs.
        talk::say("Building", "the programs and the tests");
        programs::build(workspace)?;
    }
    let nextest = succeeds(&mut workspace.cargo(&["nextest", "--version"]));
    let mut suites = Vec::new();
    if nextest {
        let mut command = workspace.cargo(&["nextest", "run", "--no-tests", "warn"]);
        if workspace.ci {
            command.args(["--profile", "ci"]);
        }
        select(&mut command, &options.packages).args(&options.rest);
        suites.push(("tests", command));
        if let Some(command) = documentation(workspace, options)? {
            suites.push(("documentation tests", command));
        }
    } else {
        // Runs the documentation tests too.
        let mut command = workspace.cargo(&["test", "--no-fail-fast"]);
        select(&mut command, &options.packages).args(&options.rest);
        suites.push(("tests", command));
    }
    let mut failed = Vec::new();
    let mut passed = Vec::new();
    for (name, mut command) in suites {
        talk::say("Running", name);
        let status = command.status().with_context(|| format!("start the {name}"))?;
        if status.success() { passed.push(name) } else { failed.push(name) }
    }
    let took = talk::seconds(begun.elapsed());
    if !failed.is_empty() {
        bail!("{} failed, after {took}", failed.join(" and "));
    }
    talk::say("Passed", &format!("{} in {took}", passed.join(" and ")));
    if !nextest {
        talk::warn("Note", "cargo-nextest runs this faster and with time limits: cargo install cargo-nextest --locked");
    }
    Ok(())
}

fn select<'a>(command: &'a mut Command, packages: &[String]) -> &'a mut Command {
    if packages.is_empty() {
        command.arg("--workspace");
    }
    for package in packages {
        command.args(["--package", package]);
    }
    command
}

/// Prepares the documentation tests, which nextest does not run; `None` where a filter or the packages leave none.
fn documentation(workspace: &Workspace, options: &Options) -> Result<Option<Command>> {
    if !options.rest.is_empty() {
        talk::say("Leaving out", "documentation tests, since tests were chosen by name or option");
        return Ok(None);
    }
    let libraries = workspace.libraries()?;
    let chosen: Vec<String> = options.packages.iter().filter(|package| libraries.contains(package)).cloned().collect();
    if chosen.is_empty() && !options.packages.is_empty() {
        return Ok(None);
    }
    let mut command = workspace.cargo(&["test", "--doc", "--no-fail-fast"]);
    select(&mut command, &chosen);
    Ok(Some(command))
}
