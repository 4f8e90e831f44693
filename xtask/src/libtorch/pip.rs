//! Calls pip so that any Python 3.9 or newer fetches the same files.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How often the size of what arrived is looked at.
const PAUSE: Duration = Duration::from_millis(500);
/// How much of pip's talk is shown when it fails.
const LAST_LINES: usize = 15;

/// Installs wheels into the new folder `into`; tells `watch` now and then how many megabytes have arrived.
pub(super) fn install(
    into: &Path,
    requirements: &[&str],
    with_dependencies: bool,
    mut watch: impl FnMut(u64),
) -> Result<()> {
    // pip unpacks in TMPDIR first; inside the folder it is on the right disk and goes away with it.
    let scratch = into.join("tmp");
    fs::create_dir_all(&scratch).with_context(|| format!("create {}", scratch.display()))?;
    let log = into.join("pip.log");
    let talk = File::create(&log).with_context(|| format!("create {}", log.display()))?;
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]);
    command.args(["--progress-bar", "off", "--no-compile", "--no-warn-script-location", "--only-binary=:all:"]);
    // libtorch is the same in the wheels of all Python versions; naming one makes the installed Python's version irrelevant.
    command.args(["--implementation", "cp", "--python-version", "3.12", "--abi", "cp312"]);
    // Each wheel names the oldest C library that it runs with; what runs with an older one runs with libtorch's own (2.28).
    for minor in (5..=28).rev() {
        command.args(["--platform", &format!("manylinux_2_{minor}_x86_64")]);
    }
    command.args(["--platform", "manylinux2014_x86_64"]);
    command.arg("--target").arg(into);
    if !with_dependencies {
        command.arg("--no-deps");
    }
    command.args(requirements).env("TMPDIR", &scratch);
    command.stdin(Stdio::null()).stdout(talk.try_clone()?).stderr(talk);
    let mut child = command.spawn().context("start pip")?;
    let status = loop {
        if let Some(status) = child.try_wait().context("wait for pip")? {
            break status;
        }
        watch(megabytes(into));
        std::thread::sleep(PAUSE);
    };
    if !status.success() {
        let said = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n  ");
        bail!(
            "pip could not fetch libtorch ({status})\n  {last}\nhint: check the network, the space in {}, and pip's own \
             settings (`python3 -m pip config list`)",
            into.parent().unwrap_or(into).display()
        );
    }
    let _ = fs::remove_file(&log);
    fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))
}

fn megabytes(folder: &Path) -> u64 {
    fn bytes(folder: &Path) -> u64 {
        let Ok(entries) = fs::read_dir(folder) else { return 0 };
        entries
            .flatten()
            .map(|entry| match entry.metadata() {
                Ok(meta) if meta.is_dir() => bytes(&entry.path()),
                Ok(meta) => meta.len(),
                Err(_) => 0,
            })
            .sum()
    }
    bytes(folder) / 1_000_000
}
