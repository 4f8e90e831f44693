//! One process of a local cluster.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc;

use crate::error::{Error, Result};

/// A process that is gone.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) name: String,
    pub(super) how: String,
    pub(super) log: PathBuf,
    /// What it wrote to its log last.
    pub(super) last_words: Vec<String>,
}

/// A process that runs.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) name: String,
    pub(super) is_worker: bool,
    process: Pid,
    alive: Arc<AtomicBool>,
    /// Closes with this program, which tells the process to stop.
    _lifeline: Option<ChildStdin>,
}

impl Child {
    /// Starts a process whose output goes to the end of `log`, and says on `ended` when it is gone.
    pub(super) fn start(
        name: &str,
        is_worker: bool,
        command: std::process::Command,
        log: &Path,
        ended: mpsc::Sender<Ended>,
    ) -> Result<Self> {
        let file =
            File::options().create(true).append(true).open(log).map_err(|error| Error::file("write", log, error))?;
        // Only what this process writes counts as its last words.
        let begin = file.metadata().map_or(0, |metadata| metadata.len());
        let program = PathBuf::from(command.get_program());
        let same = file.try_clone().map_err(|error| Error::file("write", log, error))?;
        let mut child = Command::from(command)
            .stdin(Stdio::piped())
            .stdout(file)
            .stderr(same)
            // Ctrl-C is for this program, which stops the others in order.
            .process_group(0)
            .spawn()
            .map_err(|error| Error::file("start", &program, error))?;
        let process = Pid::from_raw(child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default());
        let lifeline = child.stdin.take();
        let (told_name, log) = (name.to_owned(), log.to_owned());
        let alive = Arc::new(AtomicBool::new(true));
        let living = Arc::clone(&alive);
        tokio::spawn(async move {
            let how = match child.wait().await {
                Ok(status) => describe(status),
                Err(error) => format!("is gone ({error})"),
            };
            living.store(false, Ordering::Release);
            // What SIGKILL ends had nothing to say about it.
            let last_words = if how.contains("SIGKILL") { Vec::new() } else { last_words(&log, begin) };
            let _ = ended.send(Ended { name: told_name, how, log, last_words }).await;
        });
        Ok(Self { name: name.to_owned(), is_worker, process, alive, _lifeline: lifeline })
    }

    /// Whether it still runs.
    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Asks it to stop.
    pub(super) fn terminate(&self) {
        // It may have ended in between; then there is nothing to ask.
        let _ = kill(self.process, Signal::SIGTERM);
    }

    /// Ends it and what it has started.
    pub(super) fn kill(&self) {
        let _ = killpg(self.process, Signal::SIGKILL);
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(9), _) => "was killed (SIGKILL)".to_owned(),
        (Some(number), _) => {
            let name = Signal::try_from(number).map_or_else(|_| number.to_string(), |signal| signal.to_string());
            format!("was ended by {name}")
        }
        (None, Some(0)) => "has stopped".to_owned(),
        (None, code) => format!("ended with exit code {}", code.unwrap_or(-1)),
    }
}

/// The last lines of a log that were written after `begin`.
fn last_words(log: &Path, begin: u64) -> Vec<String> {
    const LINES: usize = 6;
    const BYTES: u64 = 8192;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(begin.max(end.saturating_sub(BYTES))))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = anstream::adapter::strip_bytes(&bytes).into_vec();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn end_of(script: &str) -> Ended {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let log = scratch.path().join("x.log");
        std::fs::write(&log, "words of an earlier life\n").expect("it can be written");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]);
        let (sender, mut ended) = mpsc::channel(1);
        let child = Child::start("worker-1", true, command, &log, sender).expect("a shell");
        drop(child);
        ended.recv().await.expect("it ends")
    }

    #[tokio::test]
    async fn an_end_is_told_with_its_own_last_words() {
        let ended = end_of("echo one; echo two >&2; exit 3").await;
        assert_eq!((ended.name.as_str(), ended.how.as_str()), ("worker-1", "ended with exit code 3"));
        assert_eq!(ended.last_words, ["one", "two"]);
        assert_eq!(end_of("kill -9 $$").await.how, "was killed (SIGKILL)");
        assert_eq!(end_of("kill -15 $$").await.how, "was ended by SIGTERM");
    }

    #[tokio::test]
    async fn a_child_sees_its_input_close_when_nobody_holds_it_any_more() {
        // `cat` ends only when its input does.
        assert_eq!(end_of("cat").await.how, "has stopped");
    }
}
