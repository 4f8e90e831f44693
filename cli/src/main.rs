//! `unimse`: the command line.
//!
//! Arguments become types in [`args`], commands live in [`cmd`], one file each, and what they print is made in [`render`]. This file
//! is the only one that looks at the process: its arguments, environment, terminal and exit code.

#[expect(clippy::doc_markdown, reason = "these comments are what --help prints, where backticks would be noise")]
mod args;
mod cmd;
mod context;
mod error;
mod exit;
mod follow;
mod input;
mod output;
mod render;
mod settings;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use terminal_size::{Width, terminal_size_of};
use tracing_subscriber::EnvFilter;

use args::{Cli, Colour};
use context::{Context, Terminal};
use error::{Error, Result};
use exit::Exit;
use settings::Settings;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // `unimse worker ARGS` is `unimse-worker agent ARGS`, whatever ARGS are: this program must not read them.
    if let Some(passed) = cmd::exec::passed(&arguments) {
        return finish(context(Settings::default()).and_then(|context| cmd::exec::run(&context, &passed)));
    }
    let matches = Cli::command().get_matches_from(arguments);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.global.color {
        Colour::Auto => {}
        Colour::Always => anstream::ColorChoice::Always.write_global(),
        Colour::Never => anstream::ColorChoice::Never.write_global(),
    }
    let settings = Settings::new(&cli.global, &matches);
    trace(settings.verbose);
    finish(context(settings).and_then(|context| cmd::run(&context, cli.command)))
}

/// Looks at the process once, so that nothing else has to.
fn context(settings: Settings) -> Result<Context> {
    let executable = std::env::current_exe().map_err(|error| Error::Failed {
        message: format!("cannot find out where this program is: {error}"),
        hint: "start it by its path".to_owned(),
    })?;
    let width = std::io::stdout().is_terminal().then(|| terminal_size_of(std::io::stdout())).flatten();
    let terminal = Terminal {
        width: width.map(|(Width(width), _)| usize::from(width).max(40)),
        live: std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
    };
    Ok(Context { settings, terminal, environment: std::env::vars_os().collect(), executable })
}

fn finish(result: Result<Exit>) -> ExitCode {
    let exit = result.unwrap_or_else(|error| {
        if let Some(text) = error.report() {
            output::say(&render::paint_error(&text));
        }
        error.exit()
    });
    ExitCode::from(exit)
}

/// The program's own log: silent unless asked for, on stderr.
fn trace(verbose: u8) {
    let level = match verbose {
        0 => "off",
        1 => "unimse_cli=info,unimse_proto=info,unimse_checkpoint=info,unimse_data=info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("UNIMSE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
}
