//! The demo's folder, its voice, and how it runs commands.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Everything that the acts of the demo share.
#[derive(Debug)]
pub(crate) struct Stage {
    programs: PathBuf,
    folder: PathBuf,
    names: Vec<(&'static str, String)>,
    keep: bool,
    began: Instant,
    pub(crate) endpoint: String,
    pub(crate) port: u16,
}

impl Stage {
    /// Makes an empty folder and finds a free port.
    pub(crate) fn new(programs: &Path, scratch: &Path, keep: bool) -> Result<Self> {
        let folder = scratch.join(format!("demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // The port is free for whoever binds next; the coordinator is restarted on the same one.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let names = ["data", "best"].map(|name| (name, folder.join(name).display().to_string())).to_vec();
        let endpoint = format!("http://127.0.0.1:{port}");
        Ok(Self { programs: programs.to_owned(), folder, names, keep, began: Instant::now(), endpoint, port })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The path of one of the few names that commands take as text.
    pub(crate) fn str(&self, name: &str) -> &str {
        self.names.iter().find(|(known, _)| *known == name).map_or("", |(_, path)| path)
    }

    pub(crate) fn say(&self, text: &str) {
        anstream::println!("{:>6.1} s  {text}", self.began.elapsed().as_secs_f64());
    }

    pub(crate) fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.env("UNIMSE_COORDINATOR", &self.endpoint).env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    /// Runs `unimse` and gives what it printed; its failure is the demo's.
    pub(crate) fn unimse(&self, arguments: &[&str]) -> Result<String> {
        let output = self.try_unimse(arguments)?;
        if !output.status.success() {
            bail!(
                "`unimse {}` ended with {}:\n{}{}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        String::from_utf8(output.stdout).context("output that is not UTF-8")
    }

    pub(crate) fn try_unimse(&self, arguments: &[&str]) -> Result<Output> {
        self.program("unimse").args(arguments).output().context("cannot run unimse")
    }

    /// Runs `unimse` and prints what it printed, indented.
    pub(crate) fn show(&self, arguments: &[&str]) -> Result<String> {
        let printed = self.unimse(arguments)?;
        for line in printed.lines() {
            anstream::println!("          {line}");
        }
        Ok(printed)
    }

    pub(crate) fn done(&self, began: Instant) {
        if self.keep {
            self.say(&format!("everything is left in {}", self.folder.display()));
        }
        anstream::println!("{:>6.1} s  done: all of the above happened", began.elapsed().as_secs_f64());
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.keep && !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
