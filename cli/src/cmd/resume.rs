//! `unimse resume JOB [--from CHECKPOINT] [--set PATH=VALUE]...`.

use unimse_core::spec::{JobSpec, apply_sets};

use super::ckpt::name;
use super::control::report;
use crate::args::ResumeArgs;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;

pub(crate) async fn run(context: &Context, args: ResumeArgs) -> Result<Exit> {
    let client = context.client().await?;
    let detail = client.job(&args.id.job).await?;
    let job = detail.job.id.to_string();
    let from = match &args.from {
        // Finding it here gives a better answer than a refusal: it lists what there is.
        Some(text) => {
            let checkpoint = name::find(&client, text).await?;
            Some(format!("{}:{}", checkpoint.job, checkpoint.step))
        }
        None => None,
    };
    let spec = if args.sets.is_empty() {
        None
    } else {
        let stored: JobSpec = serde_json::from_value(detail.spec).map_err(|error| Error::Failed {
            message: format!("the specification of {job} is not one that this version reads: {error}"),
            hint: "bring client and coordinator to one version".to_owned(),
        })?;
        Some(apply_sets(&stored, &args.sets)?)
    };
    client.resume(&job, from, spec.as_ref()).await?;
    report(context, &client.job(&job).await?.job, args.id.output.format)?;
    Ok(Exit::Done)
}
