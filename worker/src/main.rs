//! `unimse-worker`: the agent of a machine, its trainers, and what needs tensors on behalf of the command line.

mod arguments;
#[cfg(feature = "torch")]
mod commands;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use unimse_core::job::ExitCause;
use unimse_worker::agent::{self, Program};
use unimse_worker::protocol::exit_code_of;
use unimse_worker::slots;
use unimse_worker::trainer::{self, Mailbox, Mouth, Surroundings};

use arguments::{AgentArguments, Arguments, Command};

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Agent(arguments) => {
            log(true);
            report(run_agent(arguments))
        }
        Command::Trainer { fake } => run_trainer(fake),
        Command::Slots { slots } => report(print_slots(slots.into())),
        #[cfg(feature = "torch")]
        Command::GpuCheck { json, two_ranks } => report(commands::gpu_check(json, two_ranks)),
        #[cfg(feature = "torch")]
        Command::Evaluate(arguments) => report(commands::evaluate(&arguments)),
        #[cfg(feature = "torch")]
        Command::Predict(arguments) => report(commands::predict(&arguments)),
        #[cfg(feature = "torch")]
        Command::Label(arguments) => report(commands::label(&arguments)),
        #[cfg(feature = "torch")]
        Command::Export(arguments) => report(commands::export(&arguments)),
    }
}

fn report(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    let _ = writeln!(io::stderr(), "error: {error:#}");
    ExitCode::FAILURE
}

/// Logs to stderr. A trainer's lines carry no time: the agent that reads them adds it.
fn log(with_time: bool) {
    let filter = EnvFilter::try_from_env("UNIMSE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    if with_time {
        let colour = io::IsTerminal::is_terminal(&io::stderr()) && std::env::var_os("NO_COLOR").is_none();
        builder.with_ansi(colour).init();
    } else {
        builder.with_ansi(false).without_time().init();
    }
}

fn run_agent(arguments: AgentArguments) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find the own program")?;
    let visible_devices = std::env::var("CUDA_VISIBLE_DEVICES").ok().filter(|names| !names.is_empty());
    let trainer = Program {
        path: program,
        arguments: std::iter::once("trainer")
            .chain(arguments.fake_trainers.then_some("--fake"))
            .map(Into::into)
            .collect(),
        visible_devices: visible_devices.map(|names| names.split(',').map(|name| name.trim().to_owned()).collect()),
    };
    let exit_on_stdin_eof = arguments.exit_on_stdin_eof;
    let config = arguments.config(trainer, processors(), hostname())?;
    // One thread: trainers die with the thread that started them, so that must be this one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (shutdown, kill) = (CancellationToken::new(), CancellationToken::new());
        tokio::spawn(heed_signals(shutdown.clone(), kill.clone()));
        if exit_on_stdin_eof {
            let shutdown = shutdown.clone();
            std::thread::spawn(move || {
                let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
                shutdown.cancel();
            });
        }
        agent::run(config, shutdown, kill).await;
        anyhow::Ok(())
    })?;
    // The thread that reads stdin may never end.
    runtime.shutdown_background();
    Ok(())
}

/// The first signal lets trainers save, a second one does not wait for them.
async fn heed_signals(shutdown: CancellationToken, kill: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("cannot handle signals");
        return;
    };
    for token in [shutdown, kill] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    }
}

fn run_trainer(fake: bool) -> ExitCode {
    // Whatever happens to the agent, this process does not outlive it: the kernel sees to it, and so does the end of stdin.
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    log(false);
    let mailbox = Mailbox::default();
    let (mouth, writer) = Mouth::new(io::stdout());
    let listening = mailbox.clone();
    std::thread::spawn(move || {
        trainer::listen(io::BufReader::new(io::stdin()), &listening);
        std::process::exit(exit_code_of(&ExitCause::Signalled { signal: Signal::SIGHUP as i32 }));
    });
    let surroundings = Surroundings { environment: store_variables(), cache: cache_folder() };
    #[cfg(feature = "torch")]
    let make = if fake { trainer::fake::make } else { trainer::torch::make };
    #[cfg(not(feature = "torch"))]
    let make = {
        let _ = fake;
        trainer::fake::make
    };
    let cause = trainer::run(make, &mailbox, &mouth, &surroundings);
    if !matches!(cause, ExitCause::Finished | ExitCause::Stopped) {
        tracing::error!(%cause, "trainer ends");
        mouth.failed(cause.clone());
    }
    drop(mouth);
    let _ = writer.join();
    std::process::exit(exit_code_of(&cause));
}

/// The variables from which object stores take keys, endpoints and regions.
fn store_variables() -> Vec<(String, String)> {
    std::env::vars().filter(|(name, _)| name.starts_with("AWS_")).collect()
}

fn cache_folder() -> Option<std::path::PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(std::path::PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| std::path::PathBuf::from(home).join(".cache")))?;
    Some(base.join("unimse"))
}

fn print_slots(wanted: slots::Wanted) -> anyhow::Result<()> {
    let found = slots::find(wanted, processors()).map_err(anyhow::Error::msg)?;
    let mut out = io::stdout().lock();
    for (number, slot) in found.iter().enumerate() {
        writeln!(out, "slot{number}  {slot}")?;
    }
    Ok(())
}

fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u32)
}

fn hostname() -> String {
    let mut name = String::new();
    let read = std::fs::File::open("/proc/sys/kernel/hostname").and_then(|mut file| file.read_to_string(&mut name));
    let name = name.trim();
    if read.is_ok() && !name.is_empty() { name.to_owned() } else { "worker".to_owned() }
}
