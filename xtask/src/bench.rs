//! Measures: runs a package's bench, prints a table, and keeps the numbers with what they were measured on.
//!
//! A bench is a `[[bench]]` target with `harness = false`. It prints one JSON object a line on stdout for each number, like
//! `{"name": "write to a folder", "value": 812.5, "unit": "MB/s", "better": "higher"}`; other lines are talk. A `budget` beside the
//! value is what was promised, `peer` what another system has, `floor` what no program can beat ([`Record`]). To add a bench, write
//! the target and add a line to [`BENCHES`].

mod all;
mod goals;
mod golden;
mod host;
mod report;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::{Workspace, relative};
use crate::{peers, talk};
use host::Host;
use report::{Record, Report};

/// A bench that can be asked for by name.
#[derive(Clone, Copy, Debug)]
struct Bench {
    /// How people call it, and the name of its `[[bench]]` target.
    name: &'static str,
    /// What it measures.
    about: &'static str,
    /// It compares with systems in Python.
    peers: bool,
}

const BENCHES: &[Bench] = &[
    Bench { name: "allreduce", about: "all-reduce between processes of this host beside Gloo's", peers: true },
    Bench {
        name: "checkpoint",
        about: "writing, verifying and reading checkpoints in a folder and in memory",
        peers: false,
    },
    Bench {
        name: "coordinator",
        about: "durable submits, start-up, recovery and memory of the coordinator's program",
        peers: false,
    },
    Bench {
        name: "decode",
        about: "greedy generation with the key-value cache beside Hugging Face's generate",
        peers: true,
    },
    Bench {
        name: "train",
        about: "training beside Hugging Face and PyTorch's DDP: steps, real lengths, frozen, two ranks (tiny, small: only that)",
        peers: true,
    },
];

/// What a person can choose.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Which bench; without one, all are listed
    name: Option<String>,
    /// Passed on to the bench
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    rest: Vec<String>,
}

/// Runs one bench, or lists them.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let Some(name) = &options.name else {
        for bench in BENCHES {
            anstream::println!("{:<12} {}", bench.name, bench.about);
        }
        for (name, about) in [(golden::NAME, golden::ABOUT), (all::NAME, all::ABOUT)] {
            anstream::println!("{name:<12} {about}");
        }
        return Ok(());
    };
    if name == all::NAME {
        return all::run(workspace, &options.rest);
    }
    if name == golden::NAME {
        return keep(workspace, golden::NAME, golden::measure(workspace)?);
    }
    let Some(bench) = BENCHES.iter().find(|bench| bench.name == name) else {
        let known: Vec<&str> = BENCHES.iter().map(|bench| bench.name).chain([golden::NAME, all::NAME]).collect();
        bail!("there is no bench `{name}`; hint: {}", known.join(", "));
    };
    let records = measure(workspace, *bench, &options.rest)?;
    keep(workspace, bench.name, records)
}

/// Prints the table and writes the file.
fn keep(workspace: &Workspace, name: &'static str, records: Vec<Record>) -> Result<()> {
    ensure!(!records.is_empty(), "the bench `{name}` measured nothing");
    let report = Report { bench: name, host: Host::find(workspace), records };
    anstream::print!("{}", report.table());
    write(workspace, &report)
}

fn write(workspace: &Workspace, report: &Report) -> Result<()> {
    let path = report.write(&workspace.target().join("bench"))?;
    talk::say("Wrote", &relative(&path, &workspace.root).display().to_string());
    Ok(())
}

fn measure(workspace: &Workspace, bench: Bench, rest: &[String]) -> Result<Vec<Record>> {
    // The developers' profile compiles what takes the time with optimisation, and `--workspace` keeps the features of shared
    // dependencies as the tests have them: nothing is compiled only for a bench but the bench.
    let mut command = workspace.cargo(&["bench", "--profile", "dev", "--workspace", "--bench", bench.name, "--"]);
    if bench.peers {
        command.env(peers::VARIABLE, peers::python(workspace)?);
    }
    let mut child = command.args(rest).stdout(Stdio::piped()).spawn().context("start cargo bench")?;
    let stdout = child.stdout.take().context("the bench has a stdout")?;
    let mut records = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("read the bench's output")?;
        match serde_json::from_str(&line) {
            Ok(record) => records.push(record),
            Err(_) => anstream::eprintln!("{line}"),
        }
    }
    let status = child.wait().context("wait for the bench")?;
    ensure!(status.success(), "the bench `{}` failed ({status})", bench.name);
    Ok(records)
}
