//! Running our other programs: `unimse coordinator`, `unimse worker`, and whatever needs tensors.
//!
//! This program never links libtorch, so it starts where the worker cannot; it turns the loader's message, which comes before the
//! worker's first line of code, into an error with a way out.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;

/// A program and what it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    worker: bool,
    arguments: Vec<OsString>,
}

/// Takes `unimse coordinator ARGS` and `unimse worker ARGS` before anybody reads ARGS.
pub(crate) fn passed(arguments: &[OsString]) -> Option<Passed> {
    let rest = arguments.get(2..).unwrap_or_default();
    match arguments.get(1)?.to_str()? {
        "coordinator" => Some(Passed { worker: false, arguments: rest.to_vec() }),
        "worker" => {
            let arguments = std::iter::once("agent".into()).chain(rest.iter().cloned());
            Some(Passed { worker: true, arguments: arguments.collect() })
        }
        _ => None,
    }
}

/// Becomes that program.
pub(crate) fn run(context: &Context, passed: &Passed) -> Result<Exit> {
    let mut command =
        if passed.worker { Worker::find(context)?.command() } else { Command::new(coordinator(context)?) };
    command.args(&passed.arguments);
    become_it(command)
}

/// Finds `unimse-coordinator`.
pub(crate) fn coordinator(context: &Context) -> Result<PathBuf> {
    context.program("unimse-coordinator", "UNIMSE_COORDINATOR_BIN")
}

/// Replaces this process; comes back only when that fails.
pub(crate) fn become_it(mut command: Command) -> Result<Exit> {
    let program = PathBuf::from(command.get_program());
    Err(Error::file("start", &program, command.exec()))
}

/// A worker program that loads.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) program: PathBuf,
    /// The folder of libtorch that it needs to be told, if any.
    library: Option<PathBuf>,
    inherited: Option<OsString>,
    /// What it says of itself.
    pub(crate) version: String,
}

impl Worker {
    /// Finds the worker program and a libtorch with which it loads.
    ///
    /// `UNIMSE_LIBTORCH` alone counts where it is set. Otherwise the paths built into the program are tried, then `LIBTORCH`, then
    /// the torch of this environment's Python.
    pub(crate) fn find(context: &Context) -> Result<Self> {
        let program = context.program("unimse-worker", "UNIMSE_WORKER")?;
        let inherited = context.environment.get(&OsString::from("LD_LIBRARY_PATH")).cloned();
        let attempt = |library: Option<PathBuf>| {
            let mut worker =
                Self { program: program.clone(), library, inherited: inherited.clone(), version: String::new() };
            worker.probe().map(|version| {
                worker.version = version;
                worker
            })
        };
        if let Some(named) = context.variable("UNIMSE_LIBTORCH") {
            let library = library_folder(Path::new(named)).ok_or_else(|| Error::NotFound {
                message: format!("there is no libtorch_cpu.so in {named} or in its lib folder (from UNIMSE_LIBTORCH)"),
                hint: "name the folder of a libtorch 2.11, such as .../site-packages/torch".to_owned(),
            })?;
            return attempt(Some(library));
        }
        let first = match attempt(None) {
            Ok(worker) => return Ok(worker),
            Err(error) => error,
        };
        let elsewhere = context
            .variable("LIBTORCH")
            .map(PathBuf::from)
            .into_iter()
            .chain(std::iter::once_with(python_torch).flatten());
        let mut found =
            elsewhere.filter_map(|folder| library_folder(&folder)).filter_map(|library| attempt(Some(library)).ok());
        found.next().ok_or(first)
    }

    /// A command that starts it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(path) = self.library_path() {
            command.env("LD_LIBRARY_PATH", path);
        }
        // As agents do for their trainers: threads that spin while they wait make a busy machine many times slower.
        if ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"].iter().all(|name| std::env::var_os(name).is_none()) {
            command.env("GOMP_SPINCOUNT", "1000");
        }
        command
    }

    /// The value of `LD_LIBRARY_PATH` that it needs.
    pub(crate) fn library_path(&self) -> Option<OsString> {
        let mut path = self.library.clone()?.into_os_string();
        if let Some(inherited) = self.inherited.as_ref().filter(|inherited| !inherited.is_empty()) {
            path.push(":");
            path.push(inherited);
        }
        Some(path)
    }

    fn probe(&self) -> Result<String> {
        let output = self.command().arg("--version").stdin(Stdio::null()).output();
        let output = output.map_err(|source| Error::file("start", &self.program, source))?;
        if output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            return Ok(text.split_whitespace().last().unwrap_or_default().to_owned());
        }
        Err(why_not(&self.program, &output))
    }
}

/// Says why a program ended before it began.
fn why_not(program: &Path, output: &Output) -> Error {
    let said = String::from_utf8_lossy(&output.stderr);
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let install =
        "install torch 2.11 in this environment (pip install 'torch==2.11.*'), or set UNIMSE_LIBTORCH to its folder";
    if let Some((_, rest)) = said.split_once("error while loading shared libraries: ") {
        let library = rest.split(':').next().unwrap_or(rest).trim();
        let message = if library.starts_with("libtorch") || library.starts_with("libc10") {
            format!("{name} cannot start: libtorch is not found ({library})")
        } else {
            format!("{name} cannot start: the library {library} is not found")
        };
        return Error::Failed { message, hint: install.to_owned() };
    }
    if said.contains("undefined symbol") || said.contains("symbol lookup error") || said.contains("version `") {
        let line = said.lines().next().unwrap_or_default().trim();
        let message = format!("{name} cannot start: the libtorch found is not the one it was built for ({line})");
        return Error::Failed { message, hint: install.to_owned() };
    }
    let line = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim();
    Error::Failed {
        message: format!("{name} does not run here: {} ({line})", output.status),
        hint: format!("try it yourself: {} --version", program.display()),
    }
}

/// The folder in which libtorch lies, given it or the one above.
fn library_folder(folder: &Path) -> Option<PathBuf> {
    [folder.to_owned(), folder.join("lib")].into_iter().find(|folder| folder.join("libtorch_cpu.so").exists())
}

/// The torch of the Python that people would get by typing `python3`; slow, so it comes last.
fn python_torch() -> Option<PathBuf> {
    const FIND: &str = "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])";
    let output = Command::new("python3").args(["-c", FIND]).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn arguments(line: &[&str]) -> Vec<OsString> {
        line.iter().map(Into::into).collect()
    }

    #[test]
    fn arguments_of_other_programs_are_passed_on_unread() {
        let worker = passed(&arguments(&["unimse", "worker", "--coordinator", "x", "-v"])).expect("worker passes on");
        assert_eq!(worker.arguments, arguments(&["agent", "--coordinator", "x", "-v"]));
        let coordinator = passed(&arguments(&["unimse", "coordinator", "--help"])).expect("coordinator passes on");
        assert_eq!((coordinator.worker, coordinator.arguments), (false, arguments(&["--help"])));
        assert_eq!(passed(&arguments(&["unimse", "ps"])), None);
        assert_eq!(passed(&arguments(&["unimse"])), None);
    }

    #[test]
    fn the_loaders_words_become_ours() {
        let output = |code: i32, stderr: &str| Output {
            status: ExitStatus::from_raw(code << 8),
            stdout: Vec::new(),
            stderr: stderr.as_bytes().to_vec(),
        };
        let program = Path::new("/opt/bin/unimse-worker");
        let missing = output(
            127,
            "/opt/bin/unimse-worker: error while loading shared libraries: libtorch_cpu.so: cannot open shared object file: \
             No such file or directory\n",
        );
        let text = why_not(program, &missing).to_string();
        assert!(
            text.starts_with(
                "unimse-worker cannot start: libtorch is not found (libtorch_cpu.so)\nhint: install torch 2.11"
            ),
            "{text}"
        );
        let other = output(127, "unimse-worker: symbol lookup error: unimse-worker: undefined symbol: _ZN2at4zeros\n");
        assert!(why_not(program, &other).to_string().contains("not the one it was built for"));
        let odd = output(3, "first\nlast words\n\n");
        assert!(why_not(program, &odd).to_string().contains("(last words)"));
    }

    #[test]
    fn libtorch_is_found_in_a_folder_or_in_its_lib() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        assert_eq!(library_folder(scratch.path()), None);
        let lib = scratch.path().join("lib");
        std::fs::create_dir(&lib)
            .and_then(|()| std::fs::write(lib.join("libtorch_cpu.so"), ""))
            .expect("an empty library");
        assert_eq!(library_folder(scratch.path()), Some(lib.clone()));
        assert_eq!(library_folder(&lib), Some(lib));
    }
}
