//! The demo's processes: one coordinator, two agents, and the trainers that these start.

use std::fs::File;
use std::net::TcpStream;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::stage::Stage;

/// All of them, killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Cluster<'a> {
    stage: &'a Stage,
    coordinator: Option<Child>,
    agents: Vec<Child>,
}

impl<'a> Cluster<'a> {
    pub(crate) fn start(stage: &'a Stage) -> Result<Self> {
        let mut cluster = Self { stage, coordinator: None, agents: Vec::new() };
        cluster.start_coordinator()?;
        for name in ["demo-a", "demo-b"] {
            let mut agent = stage.program("unimse-worker");
            agent.args(["agent", "--name", name, "--slots", "1", "--threads", "1"]);
            cluster.agents.push(cluster.spawn(agent, name)?);
        }
        cluster.wait("two workers registered", |cluster| {
            let nodes = cluster.stage.unimse(&["nodes", "-o", "json"])?;
            Ok(nodes.matches("\"state\": \"alive\"").count() == 2)
        })?;
        Ok(cluster)
    }

    pub(crate) fn start_coordinator(&mut self) -> Result<()> {
        let stage = self.stage;
        let mut command = stage.program("unimse-coordinator");
        command.arg("--state").arg(stage.path("state")).args(["--listen", &format!("127.0.0.1:{}", stage.port)]);
        command.arg("--checkpoints").arg(format!("file://{}", stage.path("checkpoints").display()));
        self.coordinator = Some(self.spawn(command, "coordinator")?);
        let address = format!("127.0.0.1:{}", stage.port).parse().context("a port is a port")?;
        self.wait("the coordinator listens", |_| {
            Ok(TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok())
        })
    }

    pub(crate) fn kill_coordinator(&mut self) -> Result<()> {
        let mut child = self.coordinator.take().context("the coordinator runs")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// The process ids of the trainers of one agent.
    pub(crate) fn trainers(&self, agent: usize) -> Result<Vec<u32>> {
        let pid = self.agents[agent].id();
        let mut trainers = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let children = std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            trainers.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        trainers.sort_unstable();
        Ok(trainers)
    }

    /// Ends everything as a person would, and makes sure that nothing is left.
    pub(crate) fn stop(mut self) -> Result<()> {
        let trainers: Vec<u32> =
            (0..self.agents.len()).map(|agent| self.trainers(agent).unwrap_or_default()).collect::<Vec<_>>().concat();
        let children: Vec<Child> = self.agents.drain(..).chain(self.coordinator.take()).collect();
        for mut child in children {
            signal(child.id(), "TERM")?;
            let deadline = Instant::now() + Duration::from_secs(20);
            while child.try_wait()?.is_none() {
                if Instant::now() > deadline {
                    child.kill()?;
                    bail!("process {} did not end within 20 s of SIGTERM", child.id());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        for trainer in trainers {
            ensure!(!std::path::Path::new(&format!("/proc/{trainer}")).exists(), "trainer {trainer} was left behind");
        }
        Ok(())
    }

    fn spawn(&self, mut command: Command, name: &str) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.stage.path(&format!("{name}.log")))?;
        command.stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("cannot start {name}"))
    }

    fn wait(&self, what: &str, mut happened: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if happened(self).unwrap_or(false) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(self.stage.path("coordinator.log")).unwrap_or_default();
                bail!("waited 30 s, but not: {what}. The coordinator said:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        for child in self.agents.iter_mut().chain(&mut self.coordinator) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends SIGKILL.
pub(crate) fn kill(pid: u32) -> Result<()> {
    signal(pid, "KILL")
}

fn signal(pid: u32, name: &str) -> Result<()> {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().context("cannot run kill")?;
    ensure!(status.success(), "cannot send SIG{name} to process {pid}");
    Ok(())
}
