//! Arguments of the commands about jobs.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use unimse_core::id::Rank;

use super::Output;

/// The name of one job.
#[derive(Clone, Debug, Args)]
pub(crate) struct JobId {
    /// An id such as j-7k2m, a unique prefix of one, a name, or @last
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// How `submit` prints what it made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SubmitFormat {
    /// The id, as with `name`, and what to do next on stderr.
    #[default]
    Name,
    /// The job as JSON.
    Json,
    /// The job as a table.
    Table,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SubmitArgs {
    /// The job file; `-` reads standard input
    pub(crate) file: PathBuf,
    /// Set a field of the file, such as train.learning_rate=3e-4; may be repeated
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Submit at most once under this key: the same key always means the same job
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) key: Option<String>,
    /// The name of the job, in place of the one in the file
    #[arg(short, long)]
    pub(crate) name: Option<String>,
    /// Follow the job until it ends; Ctrl-C detaches and the job goes on
    #[arg(short, long, conflicts_with = "dry_run")]
    pub(crate) follow: bool,
    /// Check everything, submit nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How to write the result: name, table or json
    #[arg(
        short = 'o',
        long = "output",
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub(crate) output: SubmitFormat,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PsArgs {
    /// All jobs, also those that ended more than a day ago
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only jobs in these states, such as running,queued
    #[arg(long, value_delimiter = ',', value_name = "STATE", value_parser = STATES)]
    pub(crate) state: Vec<String>,
    /// Keep the list up to date until Ctrl-C
    #[arg(short, long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// The words for the states of a job.
pub(crate) const STATES: [&str; 8] =
    ["queued", "starting", "running", "stopping", "paused", "completed", "failed", "cancelled"];

#[derive(Clone, Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) id: JobId,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Time, rank and text.
    #[default]
    Text,
    /// One JSON object a line.
    Jsonl,
    /// One JSON document, without --follow.
    Json,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LogsArgs {
    /// An id such as j-7k2m, a unique prefix of one, a name, or @last
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// Go on until the job ends; Ctrl-C detaches and the job goes on
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the lines of this rank
    #[arg(long)]
    pub(crate) rank: Option<Rank>,
    /// Only the last lines of what is there
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<usize>,
    /// How to write the lines: text, jsonl or json
    #[arg(
        short = 'o',
        long = "output",
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub(crate) output: LogFormat,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct WaitArgs {
    /// Ids, names or @last; several are waited for together
    #[arg(value_name = "JOB", required = true)]
    pub(crate) jobs: Vec<String>,
    /// Give up after this time, such as 90s, 30m or 2h (exit code 12)
    #[arg(long, value_name = "TIME", value_parser = humantime_duration)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) output: Output,
}

fn humantime_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 90s, 30m or 2h"))
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A job (id, unique prefix, name or @last), or an error code such as E0103
    #[arg(value_name = "JOB|CODE")]
    pub(crate) what: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TraceArgs {
    /// The job: id, unique prefix, name or @last
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// Where to write it, in the trace event format
    #[arg(value_name = "FILE", default_value = "trace.json")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// How metrics are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum MetricsFormat {
    /// A table, steps downwards; without names the newest value of each.
    #[default]
    Table,
    /// Comma-separated, one value a row.
    Csv,
    /// One JSON object a value and line.
    Jsonl,
    /// One JSON document.
    Json,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct MetricsArgs {
    /// An id such as j-7k2m, a unique prefix of one, a name, or @last
    #[arg(value_name = "JOB")]
    pub(crate) job: String,
    /// Names such as train/loss, or groups of them such as valid/
    pub(crate) names: Vec<String>,
    /// Only the last values of each metric
    #[arg(long, value_name = "N")]
    pub(crate) last: Option<usize>,
    /// In place of metrics, a digest of the samples that each step consumed: equal digests, equal samples
    #[arg(long, conflicts_with_all = ["names", "last"])]
    pub(crate) digests: bool,
    /// How to write them: table, csv, jsonl or json
    #[arg(
        short = 'o',
        long = "output",
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub(crate) output: MetricsFormat,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    pub(crate) id: JobId,
    /// Begin at this checkpoint, such as j-7k2m:best, j-7k2m:latest or j-7k2m:1200
    #[arg(long, value_name = "CHECKPOINT")]
    pub(crate) from: Option<String>,
    /// Change a field of the job first, such as train.max_steps=4000; may be repeated
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub(crate) sets: Vec<String>,
}
