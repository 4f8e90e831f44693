//! Lines of a job's log.

use jiff::tz::TimeZone;
use owo_colors::{OwoColorize, Style};
use serde_json::Value;
use unimse_proto::client::LogEntry;

use super::table::clean;
use super::time::{rfc3339, time_of_day};
use crate::output;

/// Writes one line: time, rank and text, and the level where it is worth a look.
pub(crate) fn line(entry: &LogEntry, zone: &TimeZone) -> String {
    let level = match entry.line.level.to_ascii_lowercase().as_str() {
        "error" => Some(("error", Style::new().red().bold())),
        "warn" | "warning" => Some(("warning", Style::new().yellow())),
        _ => None,
    };
    let level = level.map_or_else(String::new, |(word, style)| format!("{}: ", word.style(style)));
    let lead = format!("{} {:>2} |", time_of_day(entry.line.at, zone), entry.rank);
    format!("{} {level}{}", lead.dimmed(), clean(&entry.line.text))
}

/// Writes one line as JSON, for programs.
pub(crate) fn json_line(entry: &LogEntry) -> String {
    output::line(&parts(entry))
}

/// The fields of a line by their names.
pub(crate) fn parts(entry: &LogEntry) -> [(&'static str, Value); 7] {
    [
        ("offset", entry.offset.into()),
        ("at", rfc3339(entry.line.at).into()),
        ("generation", entry.generation.0.into()),
        ("rank", entry.rank.0.into()),
        ("number", entry.line.number.into()),
        ("level", entry.line.level.clone().into()),
        ("text", entry.line.text.clone().into()),
    ]
}

#[cfg(test)]
mod tests {
    use unimse_core::id::{Generation, Rank};
    use unimse_core::time::Timestamp;
    use unimse_proto::session::LogLine;

    use super::*;

    fn entry(level: &str, text: &str) -> LogEntry {
        let line = LogLine { number: 3, at: Timestamp(1_795_293_663_250), level: level.into(), text: text.into() };
        LogEntry { offset: 17, generation: Generation(2), rank: Rank(1), line }
    }

    #[test]
    fn a_line_has_its_time_and_rank_and_warnings_say_so() {
        let plain = |entry: &LogEntry| anstream::adapter::strip_str(&line(entry, &TimeZone::UTC)).to_string();
        assert_eq!(plain(&entry("info", "step 3")), "20:41:03  1 | step 3");
        assert_eq!(plain(&entry("WARN", "slow\u{1b}[2J disk")), "20:41:03  1 | warning: slow [2J disk");
    }

    #[test]
    fn as_json_nothing_is_lost() {
        assert_eq!(
            json_line(&entry("info", "step 3")),
            "{\"schema_version\":1,\"offset\":17,\"at\":\"2026-11-21T20:41:03.250Z\",\"generation\":2,\"rank\":1,\
             \"number\":3,\"level\":\"info\",\"text\":\"step 3\"}\n"
        );
    }
}
