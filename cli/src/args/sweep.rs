//! Arguments of `unimse sweep`.

use std::path::PathBuf;

use clap::Subcommand;

use super::Output;

/// The name of one sweep.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SweepName {
    /// An id such as s-7k2m, a unique prefix of one, a name, or @last
    #[arg(value_name = "SWEEP")]
    pub(crate) sweep: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum SweepCommand {
    /// Start a sweep; prints its id
    Run {
        /// The sweep file
        file: PathBuf,
        /// Start at most once under this key: the same key always means the same sweep
        #[arg(long, conflicts_with = "preview")]
        key: Option<String>,
        /// Print the first trials and how many there are, start nothing
        #[arg(long)]
        preview: bool,
        #[command(flatten)]
        output: Output,
    },
    /// List sweeps
    Ls {
        #[command(flatten)]
        output: Output,
    },
    /// Show a sweep and its trials
    Show(SweepName),
    /// Print the best trials and their parameters
    Best {
        #[command(flatten)]
        name: SweepName,
        /// How many
        #[arg(short = 'k', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
    },
    /// Print mean and deviation over seeds, a line for each variant and point
    Report {
        #[command(flatten)]
        name: SweepName,
        /// More metrics, such as valid/mosi/mae; each trial's values are those of its best evaluation
        #[arg(value_name = "METRIC")]
        metrics: Vec<String>,
    },
    /// Pause a sweep: its trials save and stop
    Pause(SweepName),
    /// Let a paused sweep go on
    Resume(SweepName),
    /// Stop a sweep for good; its trials are cancelled
    Stop(SweepName),
}
