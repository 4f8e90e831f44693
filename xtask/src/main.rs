//! `cargo xtask`: set-up, tests, lints, benches and the demo; the only door for people and CI.
//!
//! No product logic lives here: what takes libtorch, a network or a decision is a program that is built and run from here.

mod bench;
mod bundle;
mod demo;
mod gpu;
mod libtorch;
mod lint;
mod peers;
mod programs;
mod requirements;
mod setup;
mod talk;
mod test;
mod workspace;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use workspace::Workspace;

/// Everything one does with this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Get libtorch and check what this machine needs (every other task does it too)
    Setup(setup::Options),
    /// Run every test once
    Test(test::Options),
    /// Check formatting, lints, documentation and licences
    Lint(lint::Options),
    /// Measure, print a table and write target/bench/NAME.json
    Bench(bench::Options),
    /// Train end to end on this machine with real processes, and kill some
    Demo(demo::Options),
    /// Check all-reduce, mixed precision and the kernels on this machine's GPUs
    GpuCheck,
    /// Make one folder that checks and measures a machine with a GPU, python3, torch and nothing else
    GpuBundle(bundle::Options),
}

fn main() -> ExitCode {
    let task = Task::parse();
    match find_workspace().and_then(|workspace| run(task, &workspace)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            talk::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task, workspace: &Workspace) -> Result<()> {
    if let Task::Setup(options) = task {
        return setup::run(workspace, options, setup::Voice::Full);
    }
    setup::run(workspace, setup::Options::default(), setup::Voice::OnlyWork)?;
    match task {
        Task::Setup(_) => Ok(()),
        Task::Test(options) => test::run(workspace, &options),
        Task::Lint(options) => lint::run(workspace, options),
        Task::Bench(options) => bench::run(workspace, &options),
        Task::Demo(options) => {
            let programs = programs::build(workspace)?;
            demo::run(&programs, &workspace.target(), &options)
        }
        Task::GpuCheck => gpu::check(workspace),
        Task::GpuBundle(options) => bundle::make(workspace, &options),
    }
}

/// Reads the environment; nobody else here does.
fn find_workspace() -> Result<Workspace> {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").context("run it as `cargo xtask`")?;
    let root = Path::new(&package).parent().context("the package lies in the workspace")?.to_owned();
    let cache = match (std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()), std::env::var_os("HOME")) {
        (Some(cache), _) => cache.into(),
        (None, Some(home)) => Path::new(&home).join(".cache"),
        (None, None) => root.join("target/cache"),
    };
    Ok(Workspace {
        root,
        cache: cache.join("unimse"),
        cargo: std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        peers: std::env::var_os(peers::VARIABLE).filter(|path| !path.is_empty()).map(Into::into),
        ci: std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false"),
    })
}
