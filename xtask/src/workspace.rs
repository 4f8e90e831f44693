//! Where things are, and how cargo is called so that no call undoes the work of another.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

/// This checkout and the folders that belong to it.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The repository.
    pub(crate) root: PathBuf,
    /// Where libtorch is kept, for all checkouts of this user.
    pub(crate) cache: PathBuf,
    /// The cargo that runs this.
    pub(crate) cargo: OsString,
    /// A Python that has the systems to compare with, if somebody named one.
    pub(crate) peers: Option<PathBuf>,
    /// Whether this is a run of continuous integration.
    pub(crate) ci: bool,
}

impl Workspace {
    /// Prepares a call of cargo in the repository.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(&self.root).args(arguments);
        // `cargo run` put this here from .cargo/config.toml. A plain `cargo build` has it from there only; build scripts that watch it
        // must see no difference, or minutes of C++ are compiled again.
        command.env_remove("LIBTORCH");
        // So must those that watch what `cargo run` says of the package it runs, such as ring's.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
                command.env_remove(&name);
            }
        }
        command
    }

    /// The folder of build outputs.
    pub(crate) fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// The commit that is checked out, with `-dirty` where files were changed since.
    pub(crate) fn commit(&self) -> String {
        let mut git = Command::new("git");
        let said = git.args(["describe", "--always", "--dirty", "--abbrev=12"]).current_dir(&self.root).output();
        let said = said.ok().filter(|output| output.status.success()).map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&said).trim().to_owned()
    }

    /// The link through which every build finds libtorch.
    pub(crate) fn libtorch_link(&self) -> PathBuf {
        self.root.join(".libtorch")
    }

    /// The names of the packages that have a library, whose documentation may hold tests.
    pub(crate) fn libraries(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Metadata {
            packages: Vec<Package>,
        }
        #[derive(Deserialize)]
        struct Package {
            name: String,
            targets: Vec<Target>,
        }
        #[derive(Deserialize)]
        struct Target {
            doctest: bool,
        }
        let output =
            self.cargo(&["metadata", "--no-deps", "--format-version", "1"]).output().context("run cargo metadata")?;
        let metadata: Metadata = serde_json::from_slice(&output.stdout).context("read the output of cargo metadata")?;
        let has_library = |package: &Package| package.targets.iter().any(|target| target.doctest);
        Ok(metadata.packages.into_iter().filter(has_library).map(|package| package.name).collect())
    }
}

/// Tells whether a program can be started with these arguments and succeeds.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Gives a path below `root` the way people write it.
pub(crate) fn relative<'a>(path: &'a Path, root: &Path) -> &'a Path {
    path.strip_prefix(root).unwrap_or(path)
}
