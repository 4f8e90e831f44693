//! Imports in a process of its own, so that no file can exhaust the memory or the time of the one that asks.
//!
//! The parent starts its own program again with arguments that lead to [`child`], and sends the request over stdin. The
//! child bounds itself (address space, processor time, file size, no core dumps), imports, and answers with one marked
//! line on stdout. A child that dies instead is reported as a malformed file, and what it left behind is removed.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::{Format, Source};
use crate::error::Error;
use crate::import::{ImportOptions, Report, import};
use crate::store::{Store, remove_partial};

/// What the child's answer starts with; anything else on its stdout is not the answer.
const MARK: &str = "unimse-import-answer ";

/// How to start a child: a program and the arguments that make it call [`child`].
#[derive(Clone, Debug)]
pub struct Isolation {
    /// The program, as a rule this one.
    pub program: PathBuf,
    /// The arguments, as a rule a hidden subcommand.
    pub arguments: Vec<OsString>,
    /// What the child may use.
    pub bounds: Bounds,
}

/// What an importing process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Bytes of address space.
    pub memory: u64,
    /// Processor time.
    pub time: Duration,
    /// Bytes of a file it writes.
    pub file: u64,
}

impl Default for Bounds {
    /// 8 GiB, an hour, 1 TiB: far above any public dataset, whose arrays are read a row at a time.
    fn default() -> Self {
        Self { memory: 8 << 30, time: Duration::from_hours(1), file: 1 << 40 }
    }
}

#[derive(Serialize, Deserialize)]
struct Request {
    sources: Vec<Source>,
    format: Option<Format>,
    options: ImportOptions,
    out: PathBuf,
    bounds: Bounds,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Done(Box<Report>),
    Failed(String),
}

/// Imports like [`crate::import::import`], in a bounded process of its own.
pub fn import_isolated(
    isolation: &Isolation,
    sources: &[Source],
    format: Option<Format>,
    options: &ImportOptions,
    out: &Path,
) -> Result<Report, Error> {
    let request = Request {
        sources: sources.to_vec(),
        format,
        options: options.clone(),
        out: out.to_owned(),
        bounds: isolation.bounds,
    };
    let failed = |cause| Error::io("start", &isolation.program, cause);
    let mut child = Command::new(&isolation.program)
        .args(&isolation.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let process = child.id();
    let json = serde_json::to_vec(&request).map_err(|cause| failed(cause.into()))?;
    // A child that dies before it reads shows in its status, not here.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(&json));
    let answer = child.stdout.take().and_then(|stdout| read_answer(BufReader::new(stdout)));
    let status = child.wait().map_err(failed)?;
    match answer {
        Some(Answer::Done(report)) if status.success() => {
            // The child had untrusted bytes in hand; its result is opened like any store.
            Store::open(out)?;
            Ok(*report)
        }
        Some(Answer::Failed(message)) => Err(Error::Reported(message)),
        _ => {
            remove_partial(out, process);
            Err(died(sources, status, isolation.bounds))
        }
    }
}

/// Does the work of the child: bounds this process, reads a request, imports, answers.
///
/// Whatever it fails with is in the answer; the error it returns is that of a parent that does not listen.
pub fn child(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut json = Vec::new();
    input.read_to_end(&mut json)?;
    let request: Request = serde_json::from_slice(&json)?;
    bound(request.bounds)?;
    let answer = match import(&request.sources, request.format, &request.options, &request.out) {
        Ok(report) => Answer::Done(Box::new(report)),
        Err(error) => Answer::Failed(error.to_string()),
    };
    // A line feed first, in case something else has written an unfinished line.
    writeln!(output, "\n{MARK}{}", serde_json::to_string(&answer)?)?;
    output.flush()
}

fn bound(bounds: Bounds) -> io::Result<()> {
    let limits = [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_AS, bounds.memory),
        (Resource::RLIMIT_CPU, bounds.time.as_secs().max(1)),
        (Resource::RLIMIT_FSIZE, bounds.file),
    ];
    for (resource, limit) in limits {
        let (_, ceiling) = getrlimit(resource)?;
        let limit = limit.min(ceiling);
        setrlimit(resource, limit, limit)?;
    }
    Ok(())
}

fn read_answer(mut output: impl BufRead) -> Option<Answer> {
    let mut answer = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        match output.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return answer,
            Ok(_) => {
                if let Some(json) = line.strip_prefix(MARK.as_bytes()) {
                    answer = serde_json::from_slice(json).ok();
                }
            }
        }
    }
}

fn died(sources: &[Source], status: ExitStatus, bounds: Bounds) -> Error {
    let path = sources.iter().map(|source| source.path.display().to_string()).collect::<Vec<_>>().join(", ");
    let (how, hint) = match status.signal() {
        Some(nix::libc::SIGXCPU) => (
            format!("ran longer than {} s of processor time", bounds.time.as_secs()),
            "no dataset takes that long; the file may be malicious",
        ),
        Some(nix::libc::SIGXFSZ) => {
            (format!("wrote more than {} bytes", bounds.file), "the store would be too large; nothing was left behind")
        }
        Some(nix::libc::SIGABRT) => (
            format!("gave up; it may use {} bytes of memory", bounds.memory),
            "the file asks for more memory than any dataset needs; it may be damaged or malicious",
        ),
        Some(nix::libc::SIGKILL) => (
            "was killed".to_owned(),
            "somebody ended it, or the machine ran out of memory; try again, and if it happens again mistrust the file",
        ),
        Some(signal) => (format!("was killed by signal {signal}"), "the file may be damaged or malicious"),
        None => (
            format!("ended with exit code {} and no answer", status.code().unwrap_or(-1)),
            "the file may be damaged or malicious",
        ),
    };
    Error::ReaderDied { path, how, hint: hint.to_owned() }
}
