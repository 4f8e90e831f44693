//! One trainer process: started with pipes, listened to, ended.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use unimse_core::worker::Slot;

use super::oom::OomKills;
use crate::lifecycle::{Exit, Launch};
use crate::protocol::{FromTrainer, ToTrainer, to_line};

/// How a trainer is started.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    pub arguments: Vec<OsString>,
    /// The CUDA devices that this agent may see, as `CUDA_VISIBLE_DEVICES` names them; none means all.
    pub visible_devices: Option<Vec<String>>,
}

/// What the agent hears of a process.
#[derive(Debug)]
pub(super) enum Heard {
    Said {
        launch: Launch,
        message: Box<FromTrainer>,
    },
    /// A line of its log.
    Line {
        launch: Launch,
        level: &'static str,
        text: String,
    },
    /// It is gone, and everything that it wrote was heard.
    Exited {
        launch: Launch,
        exit: Exit,
    },
}

/// A running trainer; dropping it ends the process.
#[derive(Debug)]
pub(super) struct Process {
    to_trainer: mpsc::UnboundedSender<String>,
    kill: Option<tokio::sync::oneshot::Sender<()>>,
    pub(super) pid: Option<u32>,
}

/// How long pipes may stay open after the process is gone, when somebody inherited them.
const PIPE_PATIENCE: Duration = Duration::from_secs(1);
/// How OpenMP is told how long to spin; the first is the runtime's that libtorch brings along.
const SPINNING: [&str; 2] = ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"];
/// A few microseconds.
const SPINS: &str = "1000";
/// How glibc's allocator is told what to do with large blocks.
const ALLOCATOR: &str = "GLIBC_TUNABLES";
/// From 4 MiB on they go back to the system when they are freed: left to itself it raises that limit to 32 MiB and then keeps what
/// activations of one length left behind, a fifth of the state of a base model. Huge pages make up for the page faults. Smaller blocks'
/// memory is kept up to 64 MiB: else every step gives it back and has the system clear it again.
const LARGE_BLOCKS: &str =
    "glibc.malloc.mmap_threshold=4194304:glibc.malloc.trim_threshold=67108864:glibc.malloc.hugetlb=1";
/// How much of the end of stderr is kept to explain a death.
const TAIL_LINES: usize = 12;
const LONGEST_LINE: usize = 8 << 10;

impl Process {
    /// Starts a trainer; it dies with the thread that calls this (see `PR_SET_PDEATHSIG`), which is the agent's main one.
    pub(super) fn start(
        program: &Program,
        launch: Launch,
        slot: &Slot,
        heard: mpsc::Sender<Heard>,
    ) -> io::Result<Self> {
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Out of the terminal's process group: Ctrl-C is for the agent, which lets its trainers save.
        command.kill_on_drop(true).process_group(0);
        if std::env::var_os(ALLOCATOR).is_none() {
            command.env(ALLOCATOR, LARGE_BLOCKS);
        }
        match slot {
            Slot::Gpu { index, .. } => {
                let named = program.visible_devices.as_ref().and_then(|names| names.get(*index as usize));
                command.env("CUDA_VISIBLE_DEVICES", named.cloned().unwrap_or_else(|| index.to_string()));
            }
            Slot::Cpu { threads } => {
                command.env("OMP_NUM_THREADS", threads.to_string()).env("MKL_NUM_THREADS", threads.to_string());
                command.env("CUDA_VISIBLE_DEVICES", "");
                // Threads that wait for one another spin for long by default: where anything else runs on these processors, a
                // step takes five times as long. Whoever has them to himself may say otherwise.
                if SPINNING.iter().all(|name| std::env::var_os(name).is_none()) {
                    command.env(SPINNING[0], SPINS);
                }
            }
        }
        let mut child = command.spawn()?;
        let pid = child.id();
        let stdin = child.stdin.take().expect("stdin was piped");
        let stdout = child.stdout.take().expect("stdout was piped");
        let stderr = child.stderr.take().expect("stderr was piped");
        let (to_trainer, lines) = mpsc::unbounded_channel();
        let (kill, killed) = tokio::sync::oneshot::channel();
        tokio::spawn(write_lines(stdin, lines));
        let said = tokio::spawn(read_messages(stdout, launch, heard.clone()));
        let logged = tokio::spawn(read_log(stderr, launch, heard.clone()));
        tokio::spawn(async move {
            let mut exit = wait(child, killed).await;
            let _ = timeout(PIPE_PATIENCE, said).await;
            exit.stderr = timeout(PIPE_PATIENCE, logged).await.ok().and_then(Result::ok).unwrap_or_default();
            let _ = heard.send(Heard::Exited { launch, exit }).await;
        });
        Ok(Self { to_trainer, kill: Some(kill), pid })
    }

    /// Says something to the trainer; one that is gone already does not hear it.
    pub(super) fn tell(&self, message: &ToTrainer) {
        let _ = self.to_trainer.send(to_line(message));
    }

    /// Ends the process with SIGKILL.
    pub(super) fn kill(&mut self) {
        if let Some(kill) = self.kill.take() {
            let _ = kill.send(());
        }
    }
}

/// Waits for the end of a process, brought about by `killed` if that comes (or is dropped) first.
async fn wait(mut child: Child, mut killed: tokio::sync::oneshot::Receiver<()>) -> Exit {
    let mut every_second = interval(Duration::from_secs(1));
    every_second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The host's counter also counts others, so only kills of the last seconds are put down to this process.
    let [mut before, mut last] = [OomKills::read(); 2];
    let mut kill_sent = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            _ = &mut killed, if !kill_sent => {
                kill_sent = true;
                if let Err(error) = child.start_kill() {
                    tracing::warn!(%error, "cannot kill a trainer");
                }
            }
            _ = every_second.tick() => {
                before = last;
                last = OomKills::read();
            }
        }
    };
    let oom_killed = OomKills::read().since(before);
    match status {
        Ok(status) => Exit { code: status.code(), signal: status.signal(), oom_killed, stderr: String::new() },
        Err(error) => {
            tracing::error!(%error, "cannot wait for a trainer");
            Exit::default()
        }
    }
}

async fn write_lines(mut stdin: ChildStdin, mut lines: mpsc::UnboundedReceiver<String>) {
    while let Some(mut line) = lines.recv().await {
        line.push('\n');
        if stdin.write_all(line.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read_messages(stdout: impl AsyncRead + Unpin, launch: Launch, heard: mpsc::Sender<Heard>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let word = match serde_json::from_str(&line) {
            Ok(message) => Heard::Said { launch, message: Box::new(message) },
            // A library that prints on stdout must not disturb.
            Err(_) => Heard::Line { launch, level: "info", text: line },
        };
        if heard.send(word).await.is_err() {
            return;
        }
    }
}

/// Reads the log; returns its last lines.
async fn read_log(stderr: impl AsyncRead + Unpin, launch: Launch, heard: mpsc::Sender<Heard>) -> String {
    let mut reader = BufReader::new(stderr);
    let mut tail = std::collections::VecDeque::new();
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).await.is_ok_and(|count| count > 0) {
        bytes.truncate(LONGEST_LINE);
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        bytes.clear();
        let (level, text) = split_level(&line);
        tail.push_back(text.to_owned());
        if tail.len() > TAIL_LINES {
            tail.pop_front();
        }
        let text = text.to_owned();
        if heard.send(Heard::Line { launch, level, text }).await.is_err() {
            break;
        }
    }
    Vec::from(tail).join("\n")
}

/// Takes the level from a line as the trainer's tracing writes it; other lines (panics, libraries) count as warnings.
fn split_level(line: &str) -> (&'static str, &str) {
    let levels = [("ERROR ", "error"), ("WARN ", "warn"), ("INFO ", "info"), ("DEBUG ", "debug"), ("TRACE ", "trace")];
    let trimmed = line.trim_start();
    let found =
        levels.iter().find_map(|(word, level)| trimmed.strip_prefix(word).map(|text| (*level, text.trim_start())));
    found.unwrap_or(("warn", line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_taken_from_the_line() {
        assert_eq!(split_level(" INFO ready rank=0"), ("info", "ready rank=0"));
        assert_eq!(split_level("ERROR it broke"), ("error", "it broke"));
        assert_eq!(split_level("thread 'main' panicked at"), ("warn", "thread 'main' panicked at"));
    }

    fn shell(script: &str) -> Program {
        let arguments = ["-c", script].map(OsString::from).to_vec();
        Program {
            path: PathBuf::from("/bin/sh"),
            arguments,
            visible_devices: Some(vec!["GPU-a".into(), "GPU-b".into()]),
        }
    }

    /// Runs a script to its end; returns its exit and all lines heard before.
    async fn run(script: &str, slot: Slot, stdin: Option<&ToTrainer>) -> (Exit, Vec<String>) {
        let (sender, mut heard) = mpsc::channel(16);
        let process = Process::start(&shell(script), Launch(0), &slot, sender).expect("a shell starts");
        if let Some(message) = stdin {
            process.tell(message);
        }
        let mut lines = Vec::new();
        loop {
            match heard.recv().await.expect("an exit is heard last") {
                Heard::Exited { exit, .. } => return (exit, lines),
                Heard::Line { level, text, .. } => lines.push(format!("{level}: {text}")),
                Heard::Said { message, .. } => lines.push(format!("{message:?}")),
            }
        }
    }

    #[tokio::test]
    async fn everything_written_is_heard_before_the_exit() {
        let script = "echo not json; echo ' INFO working' >&2; echo boom >&2; exit 3";
        let (exit, lines) = run(script, Slot::Cpu { threads: 3 }, None).await;
        assert_eq!((exit.code, exit.signal, exit.oom_killed), (Some(3), None, false));
        assert_eq!(exit.stderr, "working\nboom");
        for expected in ["info: not json", "info: working", "warn: boom"] {
            assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:?}");
        }
    }

    #[tokio::test]
    async fn a_trainer_gets_its_words_threads_and_device() {
        let stop = ToTrainer::Stop { generation: unimse_core::id::Generation(3) };
        let script = r#"read line; echo "$line $OMP_NUM_THREADS [$CUDA_VISIBLE_DEVICES]""#;
        let (_, lines) = run(script, Slot::Cpu { threads: 3 }, Some(&stop)).await;
        assert_eq!(lines, [r#"info: {"stop":{"generation":3}} 3 []"#]);
        let gpu = Slot::Gpu { index: 1, name: "x".into(), memory_bytes: 1 };
        let (_, lines) = run("echo $CUDA_VISIBLE_DEVICES", gpu, None).await;
        assert_eq!(lines, ["info: GPU-b"]);
    }

    #[tokio::test]
    async fn a_kill_ends_the_process_at_once() {
        let (sender, mut heard) = mpsc::channel(16);
        let mut process =
            Process::start(&shell("exec sleep 60"), Launch(0), &Slot::Cpu { threads: 1 }, sender).expect("it starts");
        process.kill();
        let Some(Heard::Exited { exit, .. }) = heard.recv().await else { panic!("no exit") };
        assert_eq!(exit.signal, Some(9));
    }
}
