//! The programs under test, and how they are run.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A program from the folder that this test binary was built into.
pub(crate) fn program(name: &str) -> Command {
    let here = std::env::current_exe().expect("a running program has a path");
    let folder = here.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps/<test>");
    let path = folder.join(name);
    assert!(path.is_file(), "{} is not built; run the tests with `cargo xtask test`", path.display());
    let mut command = Command::new(path);
    command.env("NO_COLOR", "1").env_remove("UNIMSE_COORDINATOR").stdin(Stdio::null());
    command
}

/// How a command ended.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a command to its end.
pub(crate) fn ran(mut command: Command) -> Ran {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The folder with real data beside the workspace, or none after saying so.
pub(crate) fn real_data() -> Option<PathBuf> {
    let folder = super::workspace().join("../shared/data");
    if folder.join("mosi_utterance.pkl").is_file() {
        return Some(folder);
    }
    eprintln!("skipped: no real data");
    None
}
