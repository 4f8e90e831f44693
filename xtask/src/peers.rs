//! The Python of other systems, for benches that compare: torch, transformers and scikit-learn in a folder of their own.
//!
//! Fetched once for all checkouts, like libtorch, and only when a bench asks: it is gigabytes, and nothing else needs it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::libtorch::VERSION;
use crate::talk::{self, Progress};
use crate::workspace::{Workspace, succeeds};

/// Where benches look for that Python. Who sets it has one already, and nothing is fetched.
pub(crate) const VARIABLE: &str = "UNIMSE_PEER_PYTHON";

/// What is installed beside torch.
pub(crate) const PACKAGES: [&str; 2] = ["transformers==5.23.0", "scikit-learn==1.9.1"];

/// Gives a Python that has the peers, after fetching it if need be.
pub(crate) fn python(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(python) = &workspace.peers {
        return Ok(python.clone());
    }
    let cache = &workspace.cache;
    let folder = cache.join(format!("peers-torch-{VERSION}"));
    let python = folder.join("bin/python");
    if folder.join(".complete").is_file() && succeeds(Command::new(&python).args(["-c", "import torch, transformers"]))
    {
        return Ok(python);
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(cache).with_context(|| format!("create {}", cache.display()))?;
    let progress = Progress::begin(
        "Fetching",
        &format!("torch {VERSION}, transformers and scikit-learn to compare with (3 GB to fetch)"),
    );
    let mut make = Command::new("python3");
    run(make.args(["-m", "venv"]).arg(&folder)).context("python3 cannot make a virtual environment")?;
    let torch = format!("torch=={VERSION}");
    let mut install = Command::new(&python);
    install.args([
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
        "--quiet",
    ]);
    run(install.arg(torch).args(PACKAGES)).context("pip could not fetch the systems to compare with")?;
    fs::write(folder.join(".complete"), "").with_context(|| format!("write into {}", folder.display()))?;
    talk::say("Fetched", &format!("{} in {}", folder.display(), talk::seconds(progress.end())));
    Ok(python)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().context("start it")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(8).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    bail!("{}\n  {}\nhint: check the network and the space on the disk", output.status, last.join("\n  "));
}
