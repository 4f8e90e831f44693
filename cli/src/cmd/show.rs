//! `unimse show JOB`.

use jiff::tz::TimeZone;
use serde_json::Value;

use crate::args::{Format, ShowArgs};
use crate::context::{self, Context};
use crate::error::Result;
use crate::exit::Exit;
use crate::output;
use crate::render::show::page;

pub(crate) async fn run(context: &Context, args: ShowArgs) -> Result<Exit> {
    let detail = context.client().await?.job(&args.id.job).await?;
    match args.id.output.format {
        Format::Table => output::print(&page(&detail, context::now(), &TimeZone::system(), context.terminal.width))?,
        Format::Json => {
            let parts = match output::value(&detail) {
                Value::Object(fields) => fields,
                _ => serde_json::Map::new(),
            };
            let parts: Vec<(&str, Value)> = parts.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            output::print(&output::document(&parts))?;
        }
    }
    Ok(Exit::Done)
}
