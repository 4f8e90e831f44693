//! `unimse explain JOB|CODE`.

use serde_json::json;
use unimse_core::diagnostic::Code;

use crate::args::{ExplainArgs, Format};
use crate::context::Context;
use crate::error::Result;
use crate::exit::Exit;
use crate::output;

pub(crate) async fn run(context: &Context, args: ExplainArgs) -> Result<Exit> {
    if let Ok(code) = args.what.parse::<Code>() {
        match args.output.format {
            Format::Table => output::print(&format!("{code}: {}", code.explain()))?,
            Format::Json => {
                output::print(&output::document(&[("code", json!(code)), ("text", json!(code.explain()))]))?;
            }
        }
        return Ok(Exit::Done);
    }
    let client = context.client().await?;
    let lines = client.explain(&args.what).await?;
    match args.output.format {
        Format::Table => output::print(&lines.join("\n"))?,
        Format::Json => {
            let job = client.job(&args.what).await?.job;
            output::print(&output::document(&[
                ("job", json!(job.id)),
                ("state", json!(job.state)),
                ("reasons", json!(lines)),
            ]))?;
        }
    }
    Ok(Exit::Done)
}
