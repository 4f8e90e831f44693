//! Tables that stay up to date, for `-w`.

use std::time::Duration;

use unimse_proto::Error as RemoteError;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::output;
use crate::render::table::Table;

const EVERY: Duration = Duration::from_secs(1);

/// Prints a table again whenever it has changed, until Ctrl-C; on a terminal over the one before.
pub(crate) async fn run(context: &Context, make: impl AsyncFn() -> Result<Table>) -> Result<Exit> {
    let mut before = String::new();
    let mut height = 0;
    loop {
        let round = async {
            let table = make().await;
            (table, tokio::time::sleep(EVERY).await).0
        };
        let mut lost = None;
        let first = before.is_empty();
        let table = tokio::select! {
            // The first table comes at once, the others after their second.
            table = async { if first { make().await } else { round.await } } => table,
            _ = tokio::signal::ctrl_c() => return Err(Error::Told(Exit::Interrupted)),
        };
        let text = match table {
            Ok(table) => table.render(context.terminal.width),
            Err(Error::Remote(error @ (RemoteError::Unreachable { .. } | RemoteError::Unavailable { .. })))
                if !first =>
            {
                lost = Some(error);
                before.clone()
            }
            Err(error) => return Err(error),
        };
        let text = match lost {
            Some(_) if !text.ends_with(LOST) => format!("{text}{LOST}"),
            Some(_) => text,
            None => text,
        };
        if text == before {
            continue;
        }
        if context.terminal.width.is_some() && height > 0 {
            // Up to the first line of the table before, and away with everything below.
            output::print(&format!("\u{1b}[{height}A\u{1b}[J{text}"))?;
        } else {
            let gap = if first { "" } else { "\n" };
            output::print(&format!("{gap}{text}"))?;
        }
        height = text.lines().count();
        before = text;
    }
}

const LOST: &str = "(the coordinator does not answer, trying again)\n";
