//! `unimse ckpt pull`: from shards to a folder in Hugging Face's layout, without libtorch.

use std::path::Path;

use object_store::ObjectStoreExt;
use object_store::path::Path as StorePath;
use serde_json::Value;
use unimse_checkpoint::{Checkpoint, Manifest, PullPlan, Pulled, Tokenizer};
use unimse_core::view::CheckpointView;

use crate::args::Format;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output;
use crate::render::amount::{bytes, count};

pub(super) async fn run(context: &Context, view: &CheckpointView, folder: &Path, format: Format) -> Result<Exit> {
    let pulled = fetch(context, view, folder).await?;
    match format {
        Format::Json => output::print(&output::document(&[
            ("checkpoint", format!("{}:{}", view.job, view.step).into()),
            ("folder", folder.display().to_string().into()),
            ("tensors", pulled.tensors.into()),
            ("bytes", pulled.bytes.into()),
        ]))?,
        Format::Table => {
            output::print(&folder.display().to_string())?;
            let tensors = count(pulled.tensors as u64, "tensor");
            context.say(&format!(
                "pulled {}:{}: {tensors}, {}, every byte verified",
                view.job,
                view.step,
                bytes(pulled.bytes)
            ));
            if pulled.tensors == 0 {
                context.say("warning: the checkpoint holds no model; trainers that only count write such ones");
                return Ok(Exit::Done);
            }
            context.say(&format!("  measure it: unimse evaluate {} STORE", folder.display()));
        }
    }
    Ok(Exit::Done)
}

/// Writes the model of a checkpoint to a folder that is absent or empty.
pub(crate) async fn fetch(context: &Context, view: &CheckpointView, folder: &Path) -> Result<Pulled> {
    let checkpoint: Checkpoint = super::open(context, view).await?;
    let manifest = checkpoint.manifest();
    let mut files =
        vec![("config.json".to_owned(), pretty(&manifest.model)), ("labels.json".to_owned(), pretty(&manifest.labels))];
    if let Some(text) = tokenizer(context, view, manifest).await? {
        files.push(("tokenizer.json".to_owned(), text));
    }
    let plan = PullPlan { rename: &parameter, files };
    Ok(checkpoint.pull(folder, &plan).await?)
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// The tokenizer travels in the manifest, or lies beside it once a job.
async fn tokenizer(context: &Context, view: &CheckpointView, manifest: &Manifest) -> Result<Option<Vec<u8>>> {
    match &manifest.tokenizer {
        None => Ok(None),
        Some(Tokenizer::Inline(text)) => Ok(Some(text.clone().into_bytes())),
        Some(Tokenizer::Key(key)) => {
            let store = context.store(&view.uri)?;
            let found = store.objects().get(&StorePath::from(key.as_str())).await;
            let bytes = match found {
                Ok(found) => found.bytes().await,
                Err(error) => Err(error),
            };
            let unreadable = |error: object_store::Error| Error::Failed {
                message: format!("cannot read the tokenizer at {}/{key}: {error}", store.place()),
                hint: "the store may be unreachable, try again; without its tokenizer a model is of no use".to_owned(),
            };
            Ok(Some(bytes.map_err(unreadable)?.to_vec()))
        }
    }
}

/// What the names of the optimiser's moments begin with; all other tensors are the model's, under Hugging Face's names.
const OPTIMISER: &str = "optimizer.";

/// Gives a tensor its name in the pulled file, or leaves it out.
fn parameter(name: &str) -> Option<String> {
    (!name.starts_with(OPTIMISER)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_pulled_and_the_optimiser_stays() {
        assert_eq!(
            parameter("encoder.block.0.fusion.down.weight").as_deref(),
            Some("encoder.block.0.fusion.down.weight")
        );
        assert_eq!(parameter("acoustic.lstm.weight_ih_l0").as_deref(), Some("acoustic.lstm.weight_ih_l0"));
        assert_eq!(parameter("optimizer.exp_avg.shared.weight"), None);
        assert_eq!(parameter("optimizer.exp_avg_sq.shared.weight"), None);
    }
}
