//! Arguments of the commands about machines and about the program itself.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Output;

#[derive(Clone, Debug, Args)]
pub(crate) struct UpArgs {
    /// How many workers to start
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub(crate) workers: u32,
    /// Slots of each worker; left out, its GPUs, or one slot where there are none
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) slots: Option<u32>,
    /// Where the cluster keeps its state; the same folder goes on where it was
    #[arg(long, value_name = "DIR", env = "UNIMSE_STATE", hide_env_values = true, default_value = ".unimse")]
    pub(crate) state: PathBuf,
    /// Where checkpoints go: a folder, file:///folder or s3://bucket/prefix; left out, STATE/checkpoints
    #[arg(long, value_name = "URI", env = "UNIMSE_CHECKPOINTS", hide_env_values = true)]
    pub(crate) checkpoints: Option<String>,
    /// The address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7800")]
    pub(crate) listen: String,
    /// Listen on an address that other machines reach, although nothing is encrypted or checked yet
    #[arg(long)]
    pub(crate) insecure_bind: bool,
    /// Start trainers that only count, without libtorch: for trying out clusters
    #[arg(long, hide = true)]
    pub(crate) fake_trainers: bool,
}

/// Arguments that go to another program as they are.
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) arguments: Vec<OsString>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct NodesArgs {
    /// Also the workers that have left or are lost
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Keep the list up to date until Ctrl-C
    #[arg(short, long)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DrainArgs {
    /// A worker's node name or id, as `unimse nodes` lists them
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ValidateArgs {
    /// Job and sweep files
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Take all files for jobs or for sweeps, whatever they look like
    #[arg(long = "as", value_name = "KIND", value_enum)]
    pub(crate) kind: Option<SchemaKind>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// The two kinds of files that people write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaKind {
    /// A job.
    Job,
    /// A sweep.
    Sweep,
}

impl SchemaKind {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Sweep => "sweep",
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SchemaArgs {
    /// Which files
    #[arg(value_enum)]
    pub(crate) kind: SchemaKind,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct HelpArgs {
    /// A command, or a topic: exit-codes, environment
    #[arg(value_name = "COMMAND|TOPIC")]
    pub(crate) path: Vec<String>,
}
