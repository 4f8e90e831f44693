//! The arguments of `unimse-worker`.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use unimse_core::worker::Slot;
use unimse_worker::agent::{Config, Limits, Program};
use unimse_worker::slots::{self, Wanted};

/// The worker of unimse: offers the slots of this machine to a coordinator and trains on them.
#[derive(Debug, Parser)]
#[command(name = "unimse-worker", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Offer this machine's slots to a coordinator, until SIGTERM (trainers then save first).
    Agent(AgentArguments),
    /// Train one rank; started by the agent, which speaks on stdin.
    #[command(hide = true)]
    Trainer {
        /// Count instead of training, without libtorch.
        #[arg(long)]
        fake: bool,
    },
    /// Print the slots that an agent would offer.
    Slots {
        #[command(flatten)]
        slots: SlotArguments,
    },
    /// Check that this machine's GPU can train: some bf16 steps and an NCCL all-reduce. Without a GPU it says so.
    #[cfg(feature = "torch")]
    GpuCheck {
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
        /// Only sum over two ranks that share a GPU.
        #[arg(long, hide = true)]
        two_ranks: bool,
    },
    /// Measure a pulled model on datasets.
    #[cfg(feature = "torch")]
    Evaluate(EvaluateArguments),
    /// Print polarity, score and emotion of sentences.
    #[cfg(feature = "torch")]
    Predict(PredictArguments),
    /// Fill labels that datasets lack from the most similar samples of the others.
    #[cfg(feature = "torch")]
    Label(LabelArguments),
    /// Write a pulled model as a folder that transformers loads.
    #[cfg(feature = "torch")]
    Export(ExportArguments),
}

#[derive(Clone, Copy, Debug, Args)]
#[group(multiple = false)]
pub(crate) struct SlotArguments {
    /// Offer this many CPU slots, which share the processors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    slots: Option<u32>,
    /// Offer GPUs: `all`, or how many.
    #[arg(long, value_name = "all|N", value_parser = gpus)]
    gpus: Option<Wanted>,
}

impl From<SlotArguments> for Wanted {
    fn from(arguments: SlotArguments) -> Self {
        let cpus = arguments.slots.map(Self::Cpus);
        arguments.gpus.or(cpus).unwrap_or(Self::Automatic)
    }
}

fn gpus(text: &str) -> Result<Wanted, String> {
    match text {
        "all" => Ok(Wanted::AllGpus),
        count => match count.parse() {
            Ok(count @ 1..=64) => Ok(Wanted::Gpus(count)),
            _ => Err("use `all`, or a number from 1 to 64".to_owned()),
        },
    }
}

#[derive(Debug, Args)]
pub(crate) struct AgentArguments {
    /// Address of the coordinator.
    #[arg(long, value_name = "URL", env = "UNIMSE_COORDINATOR", default_value = unimse_proto::DEFAULT_ENDPOINT)]
    coordinator: String,
    /// Name of this worker, unique in the cluster [default: the host's name].
    #[arg(long)]
    name: Option<String>,
    /// Name or address at which trainers on other machines reach those of this one; only there do they listen.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    #[command(flatten)]
    slots: SlotArguments,
    /// Threads of a CPU slot [default: an equal share of the processors].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// How long trainers go on without word from the coordinator.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// How long trainers may take to save when the agent is told to end.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    stop_timeout: Duration,
    /// End, as on SIGTERM, when stdin ends.
    #[arg(long)]
    pub(crate) exit_on_stdin_eof: bool,
    /// Start trainers that only count, without libtorch: for trying out clusters.
    #[arg(long, hide = true)]
    pub(crate) fake_trainers: bool,
}

impl AgentArguments {
    pub(crate) fn config(self, trainer: Program, processors: u32, hostname: String) -> anyhow::Result<Config> {
        let mut slots = slots::find(self.slots.into(), processors).map_err(anyhow::Error::msg)?;
        for slot in &mut slots {
            if let (Slot::Cpu { threads }, Some(wanted)) = (slot, self.threads) {
                *threads = wanted;
            }
        }
        Ok(Config {
            coordinator: self.coordinator,
            node: self.name.unwrap_or(hostname),
            host: self.host,
            slots,
            grace: self.grace,
            stop_timeout: self.stop_timeout,
            trainer,
            limits: Limits::default(),
        })
    }
}

/// What `evaluate` is told.
#[cfg(feature = "torch")]
#[derive(Debug, Args)]
pub(crate) struct EvaluateArguments {
    /// Folder of a pulled or exported model: config.json, model.safetensors, tokenizer.json, labels.json.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: std::path::PathBuf,
    /// Datasets to measure on.
    #[arg(required = true, value_name = "STORE")]
    pub(crate) stores: Vec<std::path::PathBuf>,
    /// The part of each dataset.
    #[arg(long, default_value = "test")]
    pub(crate) split: unimse_data::schema::Split,
    /// Write one JSON line a sample: what went in, what came out, and its loss.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<std::path::PathBuf>,
    /// How the model answers: decoded, expected (score) or heads [default: as in training].
    #[arg(long, value_enum)]
    pub(crate) answers: Option<AnswersArgument>,
    /// Samples in a batch.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) batch: u32,
    #[arg(short = 'o', long = "format", default_value = "table")]
    pub(crate) format: Format,
}

/// What `predict` is told.
#[cfg(feature = "torch")]
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("input").required(true).args(["text", "jsonl"]))]
pub(crate) struct PredictArguments {
    /// Folder of a pulled or exported model.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: std::path::PathBuf,
    /// A sentence; may be given several times.
    #[arg(long, value_name = "SENTENCE")]
    pub(crate) text: Vec<String>,
    /// A file with one JSON object a line (`{"id": .., "text": .., "acoustic": [[..]], "visual": [[..]]}`), `-` for stdin.
    #[arg(long, value_name = "FILE|-")]
    pub(crate) jsonl: Option<String>,
    /// How the model answers: decoded, expected (score) or heads [default: as in training].
    #[arg(long, value_enum)]
    pub(crate) answers: Option<AnswersArgument>,
    #[arg(short = 'o', long = "format", default_value = "table")]
    pub(crate) format: Format,
}

/// What `export` is told.
#[cfg(feature = "torch")]
#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// Folder of a pulled or exported model.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: std::path::PathBuf,
    /// Where to write; absent or empty.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: std::path::PathBuf,
    /// Element type of the weights.
    #[arg(long, value_enum, default_value = "fp32")]
    pub(crate) dtype: ExportType,
}

/// The ways to an answer.
#[cfg(feature = "torch")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum AnswersArgument {
    Decoded,
    Expected,
    Heads,
}

#[cfg(feature = "torch")]
impl From<AnswersArgument> for unimse_model::config::AnswerWay {
    fn from(way: AnswersArgument) -> Self {
        match way {
            AnswersArgument::Decoded => Self::Decoded,
            AnswersArgument::Expected => Self::Expected,
            AnswersArgument::Heads => Self::Heads,
        }
    }
}

/// What `label` is told.
#[cfg(feature = "torch")]
#[derive(Debug, Args)]
pub(crate) struct LabelArguments {
    /// Folder of a BERT sentence encoder: config.json, model.safetensors, tokenizer.json.
    #[arg(long, value_name = "DIR")]
    pub(crate) encoder: std::path::PathBuf,
    /// What of the encoder's output is a sentence's vector [default: as its folder says].
    #[arg(long, value_enum)]
    pub(crate) pooling: Option<PoolingArgument>,
    /// Where the labelled copies go.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: std::path::PathBuf,
    /// Whose labels are copied: those of training samples, or of all, test samples included.
    #[arg(long, value_enum, default_value = "train")]
    pub(crate) donors: DonorsArgument,
    /// Matches to show.
    #[arg(long, default_value_t = 8)]
    pub(crate) show: usize,
    /// Chooses them.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Replace stores that exist.
    #[arg(long)]
    pub(crate) force: bool,
    #[arg(short = 'o', long = "format", default_value = "table")]
    pub(crate) format: Format,
    /// The stores, two or more.
    #[arg(required = true, value_name = "STORE")]
    pub(crate) stores: Vec<std::path::PathBuf>,
}

/// The outputs of a sentence encoder.
#[cfg(feature = "torch")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PoolingArgument {
    Cls,
    Pooler,
    Mean,
}

/// Whose labels are copied.
#[cfg(feature = "torch")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DonorsArgument {
    Train,
    All,
}

/// Element types of exported weights.
#[cfg(feature = "torch")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ExportType {
    Fp32,
    Bf16,
}

/// How results are printed.
#[cfg(feature = "torch")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}
