//! `unimse-coordinator`: reads flags and environment, starts a [`unimse_coordinator::Running`] and waits for a reason to stop.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;
use unimse_coordinator::Config;
use unimse_coordinator::config::Flags;

/// Schedules training jobs onto workers and remembers everything about them.
///
/// Settings come from flags, else from the environment (UNIMSE_STATE, UNIMSE_LISTEN, UNIMSE_CHECKPOINTS, UNIMSE_LEASE; AWS_* for stores),
/// else from defaults.
#[derive(Parser)]
#[command(name = "unimse-coordinator", version)]
struct Arguments {
    /// Folder for the journal and all else [default: ~/.local/state/unimse/coordinator]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Address for gRPC and the status page [default: 127.0.0.1:7800]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where checkpoints of jobs that name no place go: a folder, file:// or s3:// [default: STATE/checkpoints]
    #[arg(long, value_name = "URI")]
    checkpoints: Option<String>,
    /// Silence of a worker for that long means lost [default: 5s]
    #[arg(long, value_name = "TIME")]
    lease: Option<String>,
    /// Listen on an address that other machines reach, although nothing is encrypted or checked yet
    #[arg(long)]
    insecure_bind: bool,
    /// End when standard input does: a child that must not outlive its parent
    #[arg(long)]
    exit_on_stdin_eof: bool,
    /// How to write the log; RUST_LOG chooses what
    #[arg(long, value_enum, default_value_t = Log::Text)]
    log: Log,
}

#[derive(Clone, Copy, ValueEnum)]
enum Log {
    Text,
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    install_log(arguments.log);
    // Two threads serve the network well; the machine and the telemetry have threads of their own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(run(arguments));
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(anyhow::Error::new(error).context("could not start the runtime")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _nobody_reads = writeln!(std::io::stderr(), "error: {}", report(&error));
            let usage = error.downcast_ref::<unimse_coordinator::config::Error>().is_some();
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate()).context("could not listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("could not listen for SIGINT")?;
    let orphaned = arguments.exit_on_stdin_eof.then(stdin_ends);
    let flags = Flags {
        state: arguments.state,
        listen: arguments.listen,
        checkpoints: arguments.checkpoints,
        lease: arguments.lease,
        insecure_bind: arguments.insecure_bind,
    };
    let config = Config::resolve(flags, std::env::vars())?;
    let mut running = unimse_coordinator::start(config).await?;
    // Whoever started us may not read our output.
    let _nobody_reads = writeln!(std::io::stdout(), "listening on {}", running.endpoint());
    let parent_gone = async {
        match orphaned {
            Some(ended) => drop(ended.await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = term.recv() => tracing::info!("SIGTERM"),
        _ = int.recv() => tracing::info!("SIGINT"),
        () = parent_gone => tracing::info!("standard input has ended"),
        error = running.failed() => return Err(error.into()),
    }
    running.stop().await?;
    Ok(())
}

fn stdin_ends() -> oneshot::Receiver<()> {
    let (end, ended) = oneshot::channel();
    // A thread, because a read of standard input cannot be cancelled.
    std::thread::spawn(move || {
        let _ended_or_broken = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _nobody_waits = end.send(());
    });
    ended
}

fn install_log(log: Log) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log {
        Log::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        Log::Json => builder.json().init(),
    }
}

/// An error and its causes; the hint, if it has one, comes last.
fn report(error: &anyhow::Error) -> String {
    let text = error.to_string();
    let (what, hint) = text.split_once("\nhint:").map_or((text.as_str(), None), |(what, hint)| (what, Some(hint)));
    let whole = error.chain().skip(1).fold(what.to_owned(), |whole, cause| format!("{whole}: {cause}"));
    match hint {
        Some(hint) => format!("{whole}\nhint:{hint}"),
        None => whole,
    }
}
