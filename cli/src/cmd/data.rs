//! `unimse data`: datasets of this machine, without a coordinator.

use std::io;
use std::path::PathBuf;

use serde_json::json;
use unimse_data::import::{ImportOptions, check, inspect};
use unimse_data::read::isolated::{Bounds, Isolation, child, import_isolated};
use unimse_data::sample::{SampleOptions, write_samples};
use unimse_data::schema::ContextWindow;

use super::exec::{Worker, become_it};
use super::tensor::check_stores;
use crate::args::{DataCommand, Format, ImportArgs, LabelArgs, SampleArgs};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output;

/// The hidden subcommand in which this program reads an untrusted file.
const CHILD: [&str; 2] = ["data", "read-child"];

pub(crate) fn run(context: &Context, command: DataCommand) -> Result<Exit> {
    match command {
        DataCommand::Import(args) => import(context, args),
        DataCommand::Sample(args) => sample(context, &args),
        DataCommand::Label(args) => label(context, &args),
        DataCommand::Inspect { store, output: format } => {
            let inspection = inspect(&store)?;
            match format.format {
                Format::Json => output::print_json("store", &inspection)?,
                Format::Table => output::print(&inspection.to_string())?,
            }
            Ok(Exit::Done)
        }
        DataCommand::Check { stores, output: format } => verify(&stores, format.format),
        DataCommand::ReadChild => Ok(read_child()),
    }
}

/// Imports in a child process with limits: the files come from strangers, and a decoder may be wrong.
fn import(context: &Context, args: ImportArgs) -> Result<Exit> {
    for source in &args.sources {
        // The child would say so too, but only in words: here it still has its exit code.
        std::fs::metadata(&source.path).map_err(|error| Error::file("read", &source.path, error))?;
    }
    let isolation = Isolation {
        program: context.executable.clone(),
        arguments: CHILD.map(Into::into).to_vec(),
        bounds: Bounds::default(),
    };
    let options = ImportOptions {
        name: args.name,
        bad_features: args.bad_features,
        skip_bad: args.skip_bad,
        context: ContextWindow::new(args.past, if args.causal { 0 } else { args.future }),
        turns: args.turns,
        names: args.speaker_names,
        force: args.force,
    };
    let report = import_isolated(&isolation, &args.sources, args.format.0, &options, &args.out)?;
    match args.output.format {
        Format::Json => output::print_json("import", &report)?,
        Format::Table => output::print(&report.to_string())?,
    }
    Ok(Exit::Done)
}

/// Is that child.
pub(crate) fn read_child() -> Exit {
    match child(io::stdin().lock(), io::stdout().lock()) {
        Ok(()) => Exit::Done,
        Err(error) => {
            output::say(&format!("error: {error}"));
            Exit::Failure
        }
    }
}

/// Lets the worker program do it: sentences become vectors by a model.
fn label(context: &Context, args: &LabelArgs) -> Result<Exit> {
    check_stores(&args.stores)?;
    std::fs::metadata(&args.encoder).map_err(|error| Error::file("read", &args.encoder, error))?;
    let mut command = Worker::find(context)?.command();
    command.args(args.for_worker());
    become_it(command)
}

fn sample(context: &Context, args: &SampleArgs) -> Result<Exit> {
    let options =
        SampleOptions { seed: args.seed, train: args.train, valid: args.valid, test: args.test, force: args.force };
    let reports = write_samples(&args.out, &options)?;
    match args.output.format {
        Format::Json => output::print_json("stores", &reports)?,
        Format::Table => {
            let lines = reports.iter().map(|report| format!("{}\n", report.store.display()));
            output::print(&lines.collect::<String>())?;
            context.say("look at one: unimse data inspect STORE");
        }
    }
    Ok(Exit::Done)
}

fn verify(stores: &[PathBuf], format: Format) -> Result<Exit> {
    let mut exit = Exit::Done;
    let mut documents = Vec::new();
    for store in stores {
        let found = check(store)?;
        if !found.is_ok() {
            exit = Exit::Failure;
        }
        match format {
            Format::Table => output::print(&found.to_string())?,
            Format::Json => documents.push(json!({ "store": store, "ok": found.is_ok(), "check": found })),
        }
    }
    if format == Format::Json {
        output::print(&output::document(&[("stores", documents.into())]))?;
    }
    Ok(exit)
}
