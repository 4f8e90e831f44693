//! The commands: each takes its arguments and the [`Context`], prints its result and says how it ended.

mod ckpt;
mod completions;
mod control;
mod data;
mod doctor;
pub(crate) mod exec;
mod explain;
mod help;
mod logs;
mod metrics;
mod nodes;
mod ps;
mod refresh;
mod resume;
mod schema;
mod show;
mod submit;
mod sweep;
mod tensor;
mod trace;
mod up;
mod validate;
mod wait;

use crate::args::{Command, DataCommand};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;

/// Runs a command.
pub(crate) fn run(context: &Context, command: Command) -> Result<Exit> {
    match command {
        Command::Validate(args) => validate::run(context, &args),
        Command::Schema(args) => schema::run(&args),
        Command::Completions { shell } => completions::run(shell),
        Command::Help(args) => help::run(&args),
        // A child with tight limits must not start threads first.
        Command::Data(DataCommand::ReadChild) => Ok(data::read_child()),
        Command::Data(command) => data::run(context, command),
        Command::Coordinator(_) | Command::Worker(_) => {
            // Both are taken before the arguments are parsed; an option before the command leads here.
            Err(Error::Usage {
                message: "options come after `coordinator` and `worker`, which pass all of them on".to_owned(),
                hint: "unimse worker --help".to_owned(),
            })
        }
        online => runtime()?.block_on(Box::pin(run_online(context, online))),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().map_err(|error| Error::Failed {
        message: format!("cannot start threads: {error}"),
        hint: "see `ulimit -u`".to_owned(),
    })
}

async fn run_online(context: &Context, command: Command) -> Result<Exit> {
    match command {
        Command::Up(args) => up::run(context, args).await,
        Command::Submit(args) => submit::run(context, args).await,
        Command::Ps(args) => ps::run(context, args).await,
        Command::Show(args) => show::run(context, args).await,
        Command::Logs(args) => logs::run(context, args).await,
        Command::Wait(args) => wait::run(context, args).await,
        Command::Explain(args) => explain::run(context, args).await,
        Command::Metrics(args) => metrics::run(context, args).await,
        Command::Trace(args) => trace::run(context, args).await,
        Command::Cancel(id) => control::run(context, id, control::Action::Cancel).await,
        Command::Pause(id) => control::run(context, id, control::Action::Pause).await,
        Command::Retry(id) => control::run(context, id, control::Action::Retry).await,
        Command::Resume(args) => resume::run(context, args).await,
        Command::Ckpt(command) => ckpt::run(context, command).await,
        Command::Sweep(command) => sweep::run(context, command).await,
        Command::Nodes(args) => nodes::list(context, args).await,
        Command::Drain(args) => nodes::drain(context, args, true).await,
        Command::Undrain(args) => nodes::drain(context, args, false).await,
        Command::Evaluate(args) => {
            tensor::check_stores(&args.stores)?;
            tensor::run(context, "evaluate", &args.checkpoint, args.for_worker()).await
        }
        Command::Predict(args) => tensor::run(context, "predict", &args.checkpoint, args.for_worker()).await,
        Command::Export(args) => tensor::run(context, "export", &args.checkpoint, args.for_worker()).await,
        Command::Doctor(args) => doctor::run(context, args).await,
        Command::Validate(_)
        | Command::Schema(_)
        | Command::Completions { .. }
        | Command::Help(_)
        | Command::Data(_)
        | Command::Coordinator(_)
        | Command::Worker(_) => Ok(Exit::Done),
    }
}
