//! What this machine must bring along, and one line for each thing that it lacks.
//!
//! Cargo and rustc need no check here: cargo has refused to build this very program when they were too old for the workspace.

use std::process::Command;

use anyhow::{Result, bail};

use crate::workspace::succeeds;

/// What a task needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A C++ compiler, for the bindings of libtorch and for `SQLite`.
    Compiler,
    /// Python 3.9 or newer with pip, to fetch libtorch.
    Pip,
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Compiler => succeeds(Command::new("g++").arg("--version")),
            Self::Pip => {
                let probe = "import sys, pip; sys.exit(sys.version_info < (3, 9))";
                succeeds(Command::new("python3").args(["-c", probe]))
            }
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Compiler => "g++ is missing: apt install g++",
            Self::Pip => "python3 (3.9 or newer) with pip is missing: apt install python3 python3-pip",
        }
    }
}

/// Fails with everything that is missing, not with the first thing only.
pub(crate) fn check(needs: &[Need]) -> Result<()> {
    let missing: Vec<&str> = needs.iter().filter(|need| !need.is_met()).map(|need| need.advice()).collect();
    match missing.as_slice() {
        [] => Ok(()),
        missing => bail!("this machine is not ready\n  {}", missing.join("\n  ")),
    }
}
