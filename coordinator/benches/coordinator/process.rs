//! The coordinator's program as a child of the bench.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use unimse_proto::client::Client;

/// A coordinator that has answered its first request.
#[derive(Debug)]
pub(crate) struct Coordinator {
    child: Child,
    client: Client,
    pub(crate) endpoint: String,
    /// From the start of the process to the first answer.
    pub(crate) ready_after: Duration,
}

impl Coordinator {
    pub(crate) async fn start(state: &Path) -> Result<Self> {
        let begun = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_unimse-coordinator"))
            .args(["--listen", "127.0.0.1:0", "--exit-on-stdin-eof", "--state"])
            .arg(state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start the coordinator")?;
        let mut line = String::new();
        let stdout = child.stdout.as_mut().context("it has a stdout")?;
        BufReader::new(stdout).read_line(&mut line).context("read its first line")?;
        let endpoint = line.trim().strip_prefix("listening on ").context("it says where it listens")?.to_owned();
        let client = Client::connect(&endpoint).await?;
        client.info().await?;
        Ok(Self { child, client, endpoint, ready_after: begun.elapsed() })
    }

    pub(crate) async fn expect_jobs(&self, wanted: usize) -> Result<()> {
        let found: u32 = self.client.info().await?.jobs.values().sum();
        ensure!(found as usize == wanted, "{found} jobs came back, not {wanted}");
        Ok(())
    }

    pub(crate) fn resident_megabytes(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).context("read its status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("it has a memory")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().with_context(|| format!("read `{line}`"))?;
        Ok(kib * 1024.0 / 1e6)
    }

    /// What its threads have spent so far; says the same on a busy machine as on a quiet one.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id())).context("list its threads")? {
            let spent = std::fs::read_to_string(task?.path().join("schedstat")).context("read a thread's time")?;
            let first = spent.split_whitespace().next().context("a thread has a time")?;
            nanoseconds += first.parse::<u64>().with_context(|| format!("read `{spent}`"))?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Ends it in order, which writes a snapshot.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).context("send SIGTERM")?;
        let status = self.child.wait().context("wait for it")?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill().and_then(|()| self.child.wait()).context("kill it")?;
        Ok(())
    }
}
