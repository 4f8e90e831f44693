//! `unimse ckpt`: the journal says which checkpoints there are, their bytes come from the store itself.

pub(crate) mod name;
pub(crate) mod pull;
mod verify;

use unimse_checkpoint::{Checkpoint, ManifestKey};
use unimse_core::view::CheckpointView;

use crate::args::{CheckpointCommand, Format};
use crate::context::{self, Context};
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output;
use crate::render::checkpoint::{list, page};

pub(crate) async fn run(context: &Context, command: CheckpointCommand) -> Result<Exit> {
    let client = context.client().await?;
    match command {
        CheckpointCommand::Ls { job, output: format } => {
            let job = client.job(&job).await?.job;
            let checkpoints = client.checkpoints(&job.id.to_string()).await?;
            match format.format {
                Format::Json => output::print_json("checkpoints", &checkpoints)?,
                Format::Table if checkpoints.is_empty() => {
                    context.say(&format!("{} has no checkpoints yet ({})", job.id, job.state));
                }
                Format::Table => {
                    output::print(&list(&checkpoints, &job.metric, context::now()).render(context.terminal.width))?;
                }
            }
        }
        CheckpointCommand::Show { checkpoint, output: format } => {
            let view = name::find(&client, &checkpoint).await?;
            match format.format {
                Format::Json => output::print_json("checkpoint", &view)?,
                Format::Table => output::print(&page(&view, context::now()))?,
            }
        }
        CheckpointCommand::Verify { checkpoint, quick, output: format } => {
            let view = name::find(&client, &checkpoint).await?;
            return verify::run(context, &view, !quick, format.format).await;
        }
        CheckpointCommand::Pull { checkpoint, folder, output: format } => {
            let view = name::find(&client, &checkpoint).await?;
            return pull::run(context, &view, &folder, format.format).await;
        }
        CheckpointCommand::Rm { checkpoint, force, output: format } => {
            let view = name::find_exactly(&client, &checkpoint).await?;
            client.remove_checkpoint(&view.job.to_string(), view.step, force).await?;
            match format.format {
                Format::Json => output::print_json("removed", &view)?,
                Format::Table => context.say(&format!("checkpoint {}:{} is being removed", view.job, view.step)),
            }
        }
    }
    Ok(Exit::Done)
}

/// Opens what the journal names, and nothing else: its digest has to agree.
pub(super) async fn open(context: &Context, view: &CheckpointView) -> Result<Checkpoint> {
    let key: ManifestKey = view.manifest.parse().map_err(|error| Error::Failed {
        message: format!("the coordinator names a manifest that cannot be: {error}"),
        hint: "bring client and coordinator to one version".to_owned(),
    })?;
    let digest = if view.digest.is_empty() { None } else { view.digest.parse().ok() };
    if let Some(folder) = missing_folder(&view.uri) {
        return Err(Error::NotFound {
            message: format!("the checkpoints are in {folder}, which this machine does not have"),
            hint: "run the command on a machine that sees that folder, or give jobs a store that all machines see"
                .to_owned(),
        });
    }
    let store = context.store(&view.uri)?;
    Ok(Checkpoint::open(&store, &key, digest).await?)
}

/// Opening a folder creates it; one that was meant to hold checkpoints should be there before.
fn missing_folder(uri: &str) -> Option<String> {
    let path = match uri.split_once("://") {
        Some(("file", path)) => path,
        Some(_) => return None,
        None => uri,
    };
    (!std::path::Path::new(path).is_dir()).then(|| path.to_owned())
}
