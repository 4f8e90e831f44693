//! A cluster of real processes in a folder of its own, and the command line that talks to it.

mod job;
mod programs;

use std::fmt::Write as _;
use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) use job::View;
pub(crate) use programs::{Ran, program, ran, real_data};

/// How long anything may take that should take moments; far more than it takes on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(4);

/// What the trainers of a cluster do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trainers {
    /// They count, without libtorch.
    Fake,
    /// They train.
    Real,
}

/// A coordinator and agents; all are killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    port: u16,
    trainers: Trainers,
    coordinator: Option<Child>,
    agents: Vec<Option<Child>>,
    slots: Vec<u32>,
}

impl Cluster {
    /// Starts a coordinator and one agent for each entry of `slots`.
    pub(crate) fn start(trainers: Trainers, slots: &[u32]) -> Self {
        let folder = tempfile::Builder::new().prefix("unimse-test-").tempdir().expect("a temporary folder");
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("a free port")
            .port();
        let agents = slots.iter().map(|_| None).collect();
        let mut cluster = Self { folder, port, trainers, coordinator: None, agents, slots: slots.to_vec() };
        cluster.start_coordinator();
        for agent in 0..slots.len() {
            cluster.start_agent(agent);
        }
        cluster.wait_for_nodes(slots.len());
        cluster
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn start_coordinator(&mut self) {
        let mut command = program("unimse-coordinator");
        command.arg("--state").arg(self.path("state")).args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        command.arg("--checkpoints").arg(format!("file://{}", self.path("checkpoints").display()));
        command.args(["--lease", "3s"]);
        self.coordinator = Some(self.spawn(command, "coordinator"));
        let address = format!("127.0.0.1:{}", self.port).parse().expect("an address");
        wait("the coordinator listens", || TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok());
    }

    pub(crate) fn start_agent(&mut self, agent: usize) {
        let mut command = program("unimse-worker");
        command.args(["agent", "--coordinator", &self.endpoint(), "--name", &format!("node-{agent}")]);
        command.args(["--slots", &self.slots[agent].to_string(), "--threads", "1"]);
        if self.trainers == Trainers::Fake {
            command.arg("--fake-trainers");
        }
        self.agents[agent] = Some(self.spawn(command, &format!("node-{agent}")));
    }

    /// SIGKILL, and the end of the process awaited.
    pub(crate) fn kill_coordinator(&mut self) {
        end(self.coordinator.take());
    }

    /// SIGKILL, and the end of the process awaited.
    pub(crate) fn kill_agent(&mut self, agent: usize) {
        end(self.agents[agent].take());
    }

    /// SIGKILL to everything at once.
    pub(crate) fn kill_everything(&mut self) {
        let trainers: Vec<u32> = (0..self.agents.len()).flat_map(|agent| self.trainers(agent)).collect();
        for pid in trainers {
            kill(pid, "KILL");
        }
        for agent in 0..self.agents.len() {
            self.kill_agent(agent);
        }
        self.kill_coordinator();
    }

    /// The process ids of an agent's trainers.
    pub(crate) fn trainers(&self, agent: usize) -> Vec<u32> {
        let Some(child) = &self.agents[agent] else { return Vec::new() };
        children(child.id())
    }

    /// The process id of an agent.
    pub(crate) fn agent(&self, agent: usize) -> u32 {
        self.agents[agent].as_ref().expect("the agent runs").id()
    }

    /// Runs `unimse` against this cluster.
    pub(crate) fn unimse(&self, arguments: &[&str]) -> Ran {
        let mut command = program("unimse");
        command.args(arguments).env("UNIMSE_COORDINATOR", self.endpoint());
        ran(command)
    }

    /// Runs `unimse` and gives what it printed; fails the test if it fails.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.unimse(arguments);
        assert_eq!(ran.code, 0, "unimse {} failed:\n{}{}\n{}", arguments.join(" "), ran.out, ran.err, self.logs());
        ran.out
    }

    /// Writes a file into the cluster's folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("the folder takes files");
        path.display().to_string()
    }

    /// Waits until so many workers are alive.
    pub(crate) fn wait_for_nodes(&self, count: usize) {
        wait("all workers are registered", || {
            let ran = self.unimse(&["nodes", "-o", "json"]);
            ran.code == 0 && ran.out.matches("\"state\": \"alive\"").count() == count
        });
    }

    /// What the processes wrote, for failures.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        let names = (0..self.agents.len()).map(|agent| format!("node-{agent}"));
        for name in std::iter::once("coordinator".to_owned()).chain(names) {
            let log = std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(40)..].join("\n");
            let _ = writeln!(text, "--- {name}\n{end}");
        }
        text
    }

    fn spawn(&self, mut command: Command, name: &str) -> Child {
        let log =
            File::options().create(true).append(true).open(self.path(&format!("{name}.log"))).expect("a log file");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for child in self.agents.iter_mut().chain([&mut self.coordinator]) {
            end(child.take());
        }
    }
}

fn end(child: Option<Child>) {
    if let Some(mut child) = child {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The process ids of the children of a process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let mut found: Vec<u32> =
        lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
    found.sort_unstable();
    found
}

/// Sends a signal by name, such as `KILL`.
pub(crate) fn kill(pid: u32, signal: &str) {
    let signal: nix::sys::signal::Signal = format!("SIG{signal}").parse().expect("a signal's name");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process id"));
    // It may have ended by itself in the meantime.
    let _ = nix::sys::signal::kill(pid, signal);
}

/// Whether a process is there and not a zombie.
pub(crate) fn alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit_once(')').and_then(|(_, rest)| rest.trim().chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// Waits for a condition, with patience and without hope.
pub(crate) fn wait(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?}, but not: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The folder of the workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}
