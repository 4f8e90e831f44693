//! `unimse ckpt verify`.

use serde_json::json;
use unimse_core::view::CheckpointView;

use crate::args::Format;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output;
use crate::render::amount::{bytes, count};

pub(super) async fn run(context: &Context, view: &CheckpointView, deep: bool, format: Format) -> Result<Exit> {
    let name = format!("{}:{}", view.job, view.step);
    let report = match super::open(context, view).await {
        Ok(checkpoint) => checkpoint.verify(deep).await,
        // A damaged manifest is what this command is there to find.
        Err(Error::Checkpoint(error)) if error.is_corruption() => {
            unimse_checkpoint::VerifyReport { shards: 0, bytes: 0, read: 0, problems: vec![error] }
        }
        Err(error) => return Err(error),
    };
    if format == Format::Json {
        let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
        output::print(&output::document(&[
            ("checkpoint", json!(name)),
            ("sound", json!(report.is_sound())),
            ("shards", json!(report.shards)),
            ("bytes", json!(report.bytes)),
            ("bytes_read", json!(report.read)),
            ("problems", json!(problems)),
        ]))?;
    } else if report.is_sound() {
        let shards = count(report.shards as u64, "shard");
        let how =
            if deep { format!("{} hashed", bytes(report.read)) } else { "sizes compared, nothing read".to_owned() };
        output::print(&format!("{name}: sound ({shards}, {}, {how})", bytes(report.bytes)))?;
    } else {
        let problems = report.problems.iter().map(|problem| format!("  {problem}\n"));
        output::print(&format!("{name}: damaged\n{}", problems.collect::<String>()))?;
        context.say(&format!(
            "hint: a job never loads it; remove it with `unimse ckpt rm {name}`, go on from another with `unimse resume --from`"
        ));
    }
    Ok(if report.is_sound() { Exit::Done } else { Exit::Failure })
}
