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
        let first = before.is_empty();
        let round = async {
            // The first table comes at once, the others after their second.
            if !first {
                tokio::time::sleep(EVERY).await;
            }
            make().await
        };
        let table = tokio::select! {
            table = round => table,
            _ = tokio::signal::ctrl_c() => return Err(Error::Told(Exit::Interrupted)),
        };
        let text = match table {
            Ok(table) => table.render(context.terminal.width),
            // Whoever watches wants to see it come back, not to start again.
            Err(Error::Remote(RemoteError::Unreachable { .. } | RemoteError::Unavailable { .. })) if !first => {
                format!("{}{LOST}", before.trim_end_matches(LOST))
            }
            Err(error) => return Err(error),
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
