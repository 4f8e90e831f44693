//! What can be typed: the whole command line as types.

mod checkpoint;
mod data;
mod job;
mod local;
mod sweep;
mod tensor;

use clap::{Parser, Subcommand, ValueEnum};

pub(crate) use checkpoint::CheckpointCommand;
pub(crate) use data::{DataCommand, ImportArgs, LabelArgs, SampleArgs};
pub(crate) use job::{
    ExplainArgs, JobId, LogFormat, LogsArgs, MetricsArgs, MetricsFormat, PsArgs, ResumeArgs, ShowArgs, SubmitArgs,
    SubmitFormat, TraceArgs, WaitArgs,
};
pub(crate) use local::{
    DoctorArgs, DrainArgs, HelpArgs, NodesArgs, Passed, SchemaArgs, SchemaKind, UpArgs, ValidateArgs,
};
pub(crate) use sweep::SweepCommand;
pub(crate) use tensor::{EvaluateArgs, ExportArgs, PredictArgs};

/// Where a coordinator is looked for when nobody says otherwise.
pub(crate) const DEFAULT_COORDINATOR: &str = "http://127.0.0.1:7800";

/// Trains UniMSE on one machine or many: submit jobs, run sweeps, resume from checkpoints.
#[derive(Debug, Parser)]
#[command(
    name = "unimse",
    version,
    disable_help_subcommand = true,
    infer_subcommands = false,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Start here: `unimse up` in one terminal, `unimse submit JOB.yaml -f` in another.\n\
                  Exit codes: `unimse help exit-codes`. Something odd: `unimse doctor`."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// The coordinator to talk to
    #[arg(long, global = true, value_name = "URL", env = "UNIMSE_COORDINATOR", hide_env_values = true, default_value = DEFAULT_COORDINATOR)]
    pub(crate) coordinator: String,
    /// When to use colour; NO_COLOR is honoured
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Colour::Auto, hide_possible_values = true)]
    pub(crate) color: Colour,
    /// Say less: only results and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say what the program does, on stderr; twice for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
}

/// When output is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How a result is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// `-o`, for commands that write a table or JSON.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Output {
    /// How to write the result: table or json
    #[arg(short = 'o', long = "output", value_name = "FORMAT", value_enum, default_value_t = Format::Table, hide_possible_values = true, hide_default_value = true)]
    pub(crate) format: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a coordinator and workers on this machine
    Up(UpArgs),
    /// Run a coordinator (its own options: `unimse coordinator --help`)
    Coordinator(Passed),
    /// Run a worker agent (its own options: `unimse worker --help`)
    Worker(Passed),
    /// Submit a job; prints its id
    Submit(SubmitArgs),
    /// List jobs
    Ps(PsArgs),
    /// Show everything about a job
    Show(ShowArgs),
    /// Print the log of a job
    Logs(LogsArgs),
    /// Wait until jobs have ended
    Wait(WaitArgs),
    /// Say why a job is where it is, or what an error code means
    Explain(ExplainArgs),
    /// Print the metrics of a job
    Metrics(MetricsArgs),
    /// Fetch the profile of a job's ranks: where the time of its steps goes
    Trace(TraceArgs),
    /// Cancel a job
    Cancel(JobId),
    /// Pause a job: it writes a checkpoint, stops and frees its slots
    Pause(JobId),
    /// Let a paused or ended job go on
    Resume(ResumeArgs),
    /// Run a failed or cancelled job again, from its newest checkpoint
    Retry(JobId),
    /// List, check, fetch and remove checkpoints
    #[command(subcommand)]
    Ckpt(CheckpointCommand),
    /// Run and follow hyper-parameter sweeps
    #[command(subcommand)]
    Sweep(SweepCommand),
    /// List workers and what runs on them
    Nodes(NodesArgs),
    /// Take a worker out of use: its jobs save and move elsewhere
    Drain(DrainArgs),
    /// Put a drained worker to use again
    Undrain(DrainArgs),
    /// Import, make and check datasets
    #[command(subcommand)]
    Data(DataCommand),
    /// Compute the metrics of a checkpoint on datasets
    Evaluate(EvaluateArgs),
    /// Predict the labels of samples with a checkpoint
    Predict(PredictArgs),
    /// Write a checkpoint as a folder that transformers loads
    Export(ExportArgs),
    /// Check job and sweep files without submitting them
    Validate(ValidateArgs),
    /// Print the JSON Schema of job or sweep files, for editors
    Schema(SchemaArgs),
    /// Check this machine and the way to the coordinator
    Doctor(DoctorArgs),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Explain a command or a topic: exit-codes, environment
    Help(HelpArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
    }

    #[test]
    fn the_definition_has_no_contradictions() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_documented_lines_are_understood() {
        for line in [
            "unimse up --workers 2 --slots 1 --state s --checkpoints file:///c --listen 127.0.0.1:0",
            "unimse submit configs/jobs/mosi-meld.yaml --set train.learning_rate=3e-4 --set a.b=c --key k -f -n x -o name",
            "unimse submit - --dry-run -o json",
            "unimse ps -a --state running,queued -w",
            "unimse logs j-7k2m -f --rank 1 --tail 20 -o jsonl",
            "unimse wait j-7k2m j-0000 --timeout 6h",
            "unimse metrics j-7k2m valid/mae train/ --last 20 -o csv",
            "unimse resume j-7k2m --from j-0000:best --set train.max_steps=4000",
            "unimse ckpt pull j-7k2m:best ./best",
            "unimse sweep run sweep.yaml --preview",
            "unimse sweep best s-0000 -k 5",
            "unimse data import --format meld train=a.csv valid=b.csv --out meld.arrow --skip-bad",
            "unimse evaluate j-7k2m:best mosi.arrow --output lines.jsonl -o json",
            "unimse predict ./best --text -well -o json",
            "unimse data label mosi.arrow meld.arrow --encoder simcse --out labelled --donors all",
            "unimse export j-7k2m:best ./t5 --dtype bf16",
            "unimse validate a.yaml b.yaml --as sweep",
            "unimse completions bash",
            "unimse help exit-codes",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "unimse",
            "unimse nonsense",
            "unimse wait",
            "unimse wait j-7k2m --timeout soon",
            "unimse ps --state sleeping",
            "unimse sweep best s-0000 -k 0",
            "unimse submit job.yaml --dry-run -f",
            "unimse predict ./best",
            "unimse up --slots 0",
            "unimse -q -v ps",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_sources_split_may_be_told() {
        let Ok(Command::Data(DataCommand::Import(args))) =
            parse("unimse data import valid=dev.csv x.csv --out o.arrow")
        else {
            panic!("it is a good line");
        };
        assert_eq!(args.sources[0].split, Some(unimse_data::schema::Split::Valid));
        assert_eq!((args.sources[1].split, args.format.0), (None, None));
    }
}
