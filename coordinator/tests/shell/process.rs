//! The program itself: signals, exit codes, the address file.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use unimse_proto::client::{Client, JobFilter};

use crate::{PATIENCE, job, until};

struct Program(Child);

impl Program {
    fn start(state: &Path, more: &[&str]) -> Self {
        Self::listening(state, "127.0.0.1:0", more)
    }

    fn listening(state: &Path, address: &str, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_unimse-coordinator"));
        command.arg("--state").arg(state).args(["--listen", address]).args(more);
        command.env("RUST_LOG", "warn").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// The address of its first line.
    fn endpoint(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "the program does not end");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn errors(&mut self) -> String {
        std::io::read_to_string(self.0.stderr.take().unwrap()).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _status = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_where_it_listens_and_ends_at_once_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut program = Program::start(folder.path(), &[]);
        let endpoint = program.endpoint();
        let announced = until("the address file", || async {
            std::fs::read_to_string(folder.path().join("coordinator.addr")).ok()
        })
        .await;
        assert_eq!(endpoint, format!("http://{}", announced.trim()));
        let client = Client::connect(&endpoint).await.unwrap();
        client.submit(Some("k".to_owned()), &job("a", 1)).await.unwrap();
        // Somebody who watches does not keep it from ending.
        let _watch = client.watch("a").await.unwrap();
        let asked = Instant::now();
        program.signal(signal);
        assert_eq!(program.wait().code(), Some(0));
        assert!(asked.elapsed().as_secs() < 3, "{:?}", asked.elapsed());
        assert!(!folder.path().join("coordinator.addr").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_submissions_survive_sigkill_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..5 {
        let mut program = Program::start(folder.path(), &[]);
        let endpoint = program.endpoint();
        let client = Client::connect(&endpoint).await.unwrap();
        let submit = tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0.. {
                match client.submit(Some(format!("{round}-{number}")), &job("a", 1)).await {
                    Ok((id, new)) => acknowledged.push((format!("{round}-{number}"), id, new)),
                    Err(_) => break,
                }
            }
            acknowledged
        });
        tokio::time::sleep(std::time::Duration::from_millis(20 + 40 * round)).await;
        program.signal(Signal::SIGKILL);
        program.wait();
        acknowledged.extend(submit.await.unwrap());
    }
    let mut program = Program::start(folder.path(), &[]);
    let client = Client::connect(&program.endpoint()).await.unwrap();
    assert!(acknowledged.len() > 5, "only {} submissions got through", acknowledged.len());
    for (key, id, new) in &acknowledged {
        assert!(new);
        assert_eq!(client.submit(Some(key.clone()), &job("a", 1)).await.unwrap(), (*id, false), "{key}");
    }
    let known = client.jobs(JobFilter::default()).await.unwrap().len();
    // A kill may fall between a commit and its acknowledgement, once a round.
    assert!((acknowledged.len()..=acknowledged.len() + 5).contains(&known), "{known} of {}", acknowledged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_its_parent_when_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), &["--exit-on-stdin-eof"]);
    let client = Client::connect(&program.endpoint()).await.unwrap();
    client.info().await.unwrap();
    drop(program.0.stdin.take());
    assert_eq!(program.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_it_from_starting_is_said_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Program::start(folder.path(), &[]);
    first.endpoint();
    let mut second = Program::start(folder.path(), &[]);
    assert_eq!(second.wait().code(), Some(1));
    let errors = second.errors();
    assert!(errors.contains("in use by another coordinator") && errors.contains("hint:"), "{errors}");

    let other = tempfile::tempdir().unwrap();
    let mut open = Program::listening(other.path(), "0.0.0.0:0", &[]);
    assert_eq!(open.wait().code(), Some(2));
    let errors = open.errors();
    assert!(errors.contains("--insecure-bind"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_keeps_it_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), &[]);
    let client = Client::connect(&program.endpoint()).await.unwrap();
    client.submit(None, &job("a", 1)).await.unwrap();
    program.signal(Signal::SIGTERM);
    program.wait();
    let journal = rusqlite::Connection::open(folder.path().join("journal.db")).unwrap();
    journal.execute("UPDATE snapshot SET state = zeroblob(length(state))", []).unwrap();
    drop(journal);
    let mut program = Program::start(folder.path(), &[]);
    assert_eq!(program.wait().code(), Some(1));
    let errors = program.errors();
    assert!(errors.contains("does not match its digest") && errors.contains("hint: restore"), "{errors}");
}
