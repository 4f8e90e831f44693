//! `unimse sweep`.

mod report;
mod run;

use unimse_core::view::SweepView;
use unimse_proto::client::{Client, SweepCommand as Order};

use crate::args::{Format, SweepCommand};
use crate::context::{self, Context};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output;
use crate::render::sweep::{list, page, ranked, trials};

pub(crate) async fn run(context: &Context, command: SweepCommand) -> Result<Exit> {
    match command {
        SweepCommand::Run { file, key, preview, output } => {
            let sweep = run::read(&file)?;
            if preview {
                run::preview(context, &sweep, output.format)
            } else {
                run::start(context, key, &sweep, output.format).await
            }
        }
        SweepCommand::Ls { output: format } => {
            let sweeps = context.client().await?.sweeps().await?;
            match format.format {
                Format::Json => output::print_json("sweeps", &sweeps)?,
                Format::Table if sweeps.is_empty() => context.say("no sweeps yet: unimse sweep run SWEEP.yaml"),
                Format::Table => output::print(&list(&sweeps, context::now()).render(context.terminal.width))?,
            }
            Ok(Exit::Done)
        }
        SweepCommand::Show(name) => {
            let sweep = context.client().await?.sweep(&name.sweep).await?;
            match name.output.format {
                Format::Json => output::print_json("sweep", &sweep)?,
                Format::Table => output::print(&page(&sweep, context::now(), context.terminal.width))?,
            }
            Ok(Exit::Done)
        }
        SweepCommand::Best { name, count } => {
            let sweep = context.client().await?.sweep(&name.sweep).await?;
            best(context, &sweep, count, name.output.format)
        }
        SweepCommand::Report { name, metrics } => {
            let client = context.client().await?;
            let sweep = client.sweep(&name.sweep).await?;
            report::run(context, &client, &sweep, metrics, name.output.format).await
        }
        SweepCommand::Pause(name) => command_to(context, &name.sweep, Order::Pause, name.output.format).await,
        SweepCommand::Resume(name) => command_to(context, &name.sweep, Order::Resume, name.output.format).await,
        SweepCommand::Stop(name) => command_to(context, &name.sweep, Order::Stop, name.output.format).await,
    }
}

fn best(context: &Context, sweep: &SweepView, count: u32, format: Format) -> Result<Exit> {
    let mut best = ranked(sweep);
    best.truncate(count as usize);
    if best.is_empty() && format == Format::Table {
        return Err(Error::NotFound {
            message: format!("no trial of {} has reported {} yet", sweep.id, sweep.metric),
            hint: format!("see how far they are: unimse sweep show {}", sweep.id),
        });
    }
    match format {
        Format::Json => output::print_json("trials", &best)?,
        Format::Table => {
            output::print(&trials(&sweep.metric, &best).render(context.terminal.width))?;
            if let Some(job) = best.first().and_then(|trial| trial.job) {
                context.say(&format!("its best checkpoint: unimse ckpt pull {job}:best DIR"));
            }
        }
    }
    Ok(Exit::Done)
}

async fn command_to(context: &Context, name: &str, order: Order, format: Format) -> Result<Exit> {
    let client: Client = context.client().await?;
    let id = client.sweep(name).await?.id.to_string();
    client.sweep_command(&id, order).await?;
    let sweep = client.sweep(&id).await?;
    match format {
        Format::Json => output::print_json("sweep", &sweep)?,
        Format::Table => {
            let next = match order {
                Order::Pause => ": its trials save and stop",
                Order::Resume => ": its trials go on where they were",
                Order::Stop => ": its trials are cancelled, their checkpoints stay",
            };
            context.say(&format!("{} {} is {}{next}", sweep.id, sweep.name, sweep.status));
        }
    }
    Ok(Exit::Done)
}
