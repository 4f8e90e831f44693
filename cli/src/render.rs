//! From views to text. Everything here is a function of its arguments: no terminal, no clock, no network.

pub(crate) mod amount;
pub(crate) mod checkpoint;
pub(crate) mod job;
pub(crate) mod json;
pub(crate) mod log;
pub(crate) mod metric;
pub(crate) mod node;
pub(crate) mod report;
pub(crate) mod show;
pub(crate) mod sweep;
pub(crate) mod table;
pub(crate) mod time;

use owo_colors::OwoColorize;

/// Colours the words that begin an error's lines.
pub(crate) fn paint_error(text: &str) -> String {
    let lines = text.lines().map(|line| {
        if let Some(rest) = line.strip_prefix("error") {
            format!("{}{rest}", "error".red().bold())
        } else if let Some(rest) = line.strip_prefix("hint:") {
            format!("{}{rest}", "hint:".cyan())
        } else {
            line.to_owned()
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}
