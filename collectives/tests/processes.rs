//! Ranks as real processes, one of which is killed: the group ends on all others at once.
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stdout, reason = "the processes talk to the test over their output")]

use std::env;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use unimse_collectives::tcp::{self, Listener, Rendezvous, Secret};
use unimse_collectives::{Collective, Error};

const RANK: &str = "UNIMSE_TEST_RANK";
const LEN: &str = "UNIMSE_TEST_LEN";

/// A rank in a process of its own: this test binary, told to run `be_a_rank` alone.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(rank: usize, len: usize) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["be_a_rank", "--exact", "--ignored", "--nocapture"])
            .env(RANK, rank.to_string())
            .env(LEN, len.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The rest of the next line that begins with `word`; the harness prints lines of its own.
    fn said(&mut self, word: &str) -> String {
        let mut lines = self.lines.by_ref().map(Result::unwrap);
        lines.find_map(|line| line.split_once(word).map(|(_, rest)| rest.trim().to_owned())).expect(word)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn a_killed_rank_ends_all_others(world: usize, victim: usize, len: usize) {
    let mut ranks: Vec<Process> = (0..world).map(|rank| Process::start(rank, len)).collect();
    let addresses: Vec<String> = ranks.iter_mut().map(|rank| rank.said("address")).collect();
    for rank in &mut ranks {
        writeln!(rank.child.stdin.as_mut().unwrap(), "{}", addresses.join(" ")).unwrap();
    }
    for rank in &mut ranks {
        rank.said("summing");
    }
    let killed = Instant::now();
    ranks[victim].child.kill().unwrap();
    for (rank, process) in ranks.iter_mut().enumerate().filter(|(rank, _)| *rank != victim) {
        let error = process.said("error");
        assert!(killed.elapsed() < Duration::from_secs(1), "rank {rank} took {:?}", killed.elapsed());
        assert!(error.starts_with("lost"), "rank {rank}: {error}");
        assert!(process.child.wait().unwrap().success());
    }
}

/// A rank that stands still, as one does whose machine swaps or whose process a debugger holds.
fn a_stopped_rank_ends_all_others(world: usize, victim: usize, len: usize) {
    let mut ranks: Vec<Process> = (0..world).map(|rank| Process::start(rank, len)).collect();
    let addresses: Vec<String> = ranks.iter_mut().map(|rank| rank.said("address")).collect();
    for rank in &mut ranks {
        writeln!(rank.child.stdin.as_mut().unwrap(), "{}", addresses.join(" ")).unwrap();
    }
    for rank in &mut ranks {
        rank.said("summing");
    }
    // The first whose limit is over names the one that it waits for; the others find it, or that one, gone.
    let is_named = |error: &str| error.starts_with("lost") || error.contains("did not finish within");
    let stopped = Pid::from_raw(ranks[victim].child.id() as i32);
    kill(stopped, Signal::SIGSTOP).unwrap();
    for (rank, process) in ranks.iter_mut().enumerate().filter(|(rank, _)| *rank != victim) {
        let error = process.said("error");
        assert!(is_named(&error), "rank {rank}: {error}");
        assert!(process.child.wait().unwrap().success());
    }
    kill(stopped, Signal::SIGCONT).unwrap();
    let error = ranks[victim].said("error");
    assert!(is_named(&error), "the rank that had stood still: {error}");
}

#[test]
fn a_rank_stopped_in_a_large_sum_is_a_timeout() {
    a_stopped_rank_ends_all_others(3, 1, 10_000_000);
}

#[test]
fn a_rank_stopped_between_small_sums_is_a_timeout() {
    a_stopped_rank_ends_all_others(2, 0, 16);
}

#[test]
fn a_rank_killed_between_small_sums_is_found_by_all() {
    a_killed_rank_ends_all_others(4, 2, 16);
}

#[test]
fn a_rank_killed_in_a_large_sum_is_found_by_all() {
    a_killed_rank_ends_all_others(3, 0, 10_000_000);
}

#[test]
#[ignore = "is the body of the processes that the other tests start"]
fn be_a_rank() {
    let rank = env::var(RANK).unwrap().parse().unwrap();
    let len = env::var(LEN).unwrap().parse().unwrap();
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    println!("\naddress {}", listener.address());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let peers = line.split_whitespace().map(|address| address.parse().unwrap()).collect();
    let rendezvous = Rendezvous { secret: Secret::new(b"test"), generation: 1, rank, peers };
    let mut group = tcp::connect(&rendezvous, listener, Duration::from_secs(20)).unwrap();
    group.set_timeout(Duration::from_secs(2));
    let mut values = vec![1.0f32; len];
    let mut first = true;
    let error = loop {
        if let Err(error) = group.all_reduce(values.as_mut_slice().into()) {
            break error;
        }
        if std::mem::take(&mut first) {
            println!("summing");
        }
    };
    match error {
        Error::PeerLost { rank } => println!("error lost {rank}"),
        other => println!("error {other}"),
    }
}
