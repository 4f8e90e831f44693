//! `unimse cancel`, `pause` and `retry`.

use crate::args::{Format, JobId};
use crate::context::Context;
use crate::error::Result;
use crate::exit::Exit;
use crate::output;
use unimse_core::view::JobView;

/// What is asked of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Cancel,
    Pause,
    Retry,
}

pub(crate) async fn run(context: &Context, id: JobId, action: Action) -> Result<Exit> {
    let client = context.client().await?;
    // A name may stand for another job a moment later; the id never does.
    let name = client.job(&id.job).await?.job.id.to_string();
    match action {
        Action::Cancel => client.cancel(&name).await?,
        Action::Pause => client.pause(&name).await?,
        Action::Retry => client.retry(&name).await?,
    }
    let job = client.job(&name).await?.job;
    report(context, &job, id.output.format)?;
    Ok(Exit::Done)
}

/// Says where a job stands after a command.
pub(crate) fn report(context: &Context, job: &JobView, format: Format) -> Result<()> {
    match format {
        Format::Json => output::print_json("job", job),
        Format::Table => {
            context.say(&standing(job));
            Ok(())
        }
    }
}

fn standing(job: &JobView) -> String {
    let next = match job.state.as_str() {
        "stopping" => "it writes a checkpoint and stops at the end of this step",
        "queued" => "it goes on as soon as there are slots",
        "paused" => "it keeps its checkpoints and waits for `unimse resume`",
        "cancelled" if job.durable_step.0 > 0 => "its checkpoints stay",
        _ => "",
    };
    let separator = if next.is_empty() { "" } else { ": " };
    format!("{} {} is {}{separator}{next}", job.id, job.name, job.state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::job::tests::running;

    #[test]
    fn it_says_what_happens_next() {
        let id = running().id;
        let stopping = JobView { state: "stopping".into(), ..running() };
        assert_eq!(
            standing(&stopping),
            format!("{id} mosi-meld is stopping: it writes a checkpoint and stops at the end of this step")
        );
        assert_eq!(standing(&running()), format!("{id} mosi-meld is running"));
    }
}
