//! Builds the programs of a bundle and finds out where cargo put them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::talk;
use crate::workspace::Workspace;

/// The programs of a bundle, as cargo made them.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) worker: PathBuf,
    pub(super) train: PathBuf,
}

impl Programs {
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self { worker: folder.join("unimse-worker"), train: folder.join("train") }
    }
}

/// A line of cargo's `--message-format=json`, of which most are about other things.
#[derive(Debug, Deserialize)]
struct Message {
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

/// Builds both with the calls that tests and benches make, so that nothing is compiled only for a bundle.
pub(super) fn programs(workspace: &Workspace) -> Result<Programs> {
    talk::say("Building", "the worker and the train bench");
    let worker = run(workspace, &["build", "--workspace", "--bins", "--tests"], ("bin", "unimse-worker"))?;
    let bench = ["bench", "--profile", "dev", "--workspace", "--bench", "train", "--no-run"];
    Ok(Programs { worker, train: run(workspace, &bench, ("bench", "train"))? })
}

fn run(workspace: &Workspace, arguments: &[&str], (kind, name): (&str, &str)) -> Result<PathBuf> {
    let format = "--message-format=json-render-diagnostics";
    let mut command = workspace.cargo(arguments);
    let mut child = command.arg(format).stdout(Stdio::piped()).spawn().context("start cargo")?;
    let stdout = child.stdout.take().context("cargo has a stdout")?;
    let mut found = None;
    for line in BufReader::new(stdout).lines() {
        found = executable(&line.context("read what cargo says")?, kind, name).or(found);
    }
    let status = child.wait().context("wait for cargo")?;
    ensure!(status.success(), "the programs do not build");
    found.with_context(|| format!("cargo made no program `{name}`"))
}

fn executable(line: &str, kind: &str, name: &str) -> Option<PathBuf> {
    let Message { target, profile, executable } = serde_json::from_str(line).ok()?;
    let target = target?;
    // The tests inside a program are a program of the same name and kind.
    if kind == "bin" && profile.is_none_or(|profile| profile.test) {
        return None;
    }
    (target.name == name && target.kind.iter().any(|own| own == kind)).then_some(executable).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_what_cargo_says() {
        let line = r#"{"reason":"compiler-artifact","target":{"kind":["bench"],"name":"train","src_path":"a"},"executable":"/t/train-1"}"#;
        assert_eq!(executable(line, "bench", "train"), Some("/t/train-1".into()));
        assert_eq!(executable(line, "bin", "train"), None);
        assert_eq!(executable(line, "bench", "decode"), None);
        let worker = |test: bool| {
            format!(
                r#"{{"target":{{"kind":["bin"],"name":"worker"}},"profile":{{"test":{test}}},"executable":"/t/worker"}}"#
            )
        };
        assert_eq!(executable(&worker(false), "bin", "worker"), Some("/t/worker".into()));
        assert_eq!(executable(&worker(true), "bin", "worker"), None);
        let library = r#"{"reason":"compiler-artifact","target":{"kind":["bench"],"name":"train"},"executable":null}"#;
        assert_eq!(executable(library, "bench", "train"), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#, "bench", "train"), None);
        assert_eq!(executable("warning: talk", "bench", "train"), None);
    }
}
