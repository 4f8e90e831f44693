//! Arguments of `unimse data`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use unimse_data::read::{BadFeatures, Format as Release, Source};
use unimse_data::schema::Turns;

use super::{Format, Output};

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Turn published dataset files into a store that jobs can train on
    Import(ImportArgs),
    /// Make small stores of made-up data, to try things out without a download
    Sample(SampleArgs),
    /// Fill the labels that stores lack from the most similar samples of the others (universal labels)
    Label(LabelArgs),
    /// Show what a store holds
    Inspect {
        /// The store
        store: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Read every byte of stores and verify it
    Check {
        /// The stores
        #[arg(required = true)]
        stores: Vec<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Reads one untrusted file; `import` runs itself with this in a child process with limits
    #[command(hide = true)]
    ReadChild,
}

/// Reads `auto` as no format at all.
fn format(text: &str) -> Result<ImportFormat, String> {
    if text == "auto" {
        return Ok(ImportFormat(None));
    }
    text.parse()
        .map(|format| ImportFormat(Some(format)))
        .map_err(|_| format!("`{text}` is none of auto, {}", Release::names()))
}

/// A release format, or none where the files shall tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImportFormat(pub(crate) Option<Release>);

#[derive(Clone, Debug, Args)]
pub(crate) struct ImportArgs {
    /// The published files, all of one dataset; SPLIT=PATH says which split a file holds where its name does not
    #[arg(required = true, value_name = "SRC")]
    pub(crate) sources: Vec<Source>,
    /// Where to write the store, such as data/mosi.arrow
    #[arg(long, value_name = "STORE")]
    pub(crate) out: PathBuf,
    /// The format of the files, told by their contents without it: mmsa (MMSA pickles), unimse (UniMSE's official
    /// pickles with its CSVs), csd (CMU-MultimodalSDK: words, labels, features, standard folds), mult (MulT pickles),
    /// misa (MISA pickles), meld (MELD CSVs, with feature pickles or without), dialoguernn (DialogueRNN and COGMEN
    /// tuples) or plain (your own CSV with folders of .npy files)
    #[arg(id = "source_format", long = "format", value_name = "FORMAT", default_value = "auto", value_parser = format)]
    pub(crate) format: ImportFormat,
    /// The dataset's name, in place of the store's file name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Turns before an utterance that its text includes, for dialogues
    #[arg(long, value_name = "TURNS", default_value_t = 2)]
    pub(crate) past: usize,
    /// Turns after an utterance that its text includes, for dialogues
    #[arg(long, value_name = "TURNS", default_value_t = 2)]
    pub(crate) future: usize,
    /// No turns after an utterance, like --future 0: what a system that answers at once can know
    #[arg(long, conflicts_with = "future")]
    pub(crate) causal: bool,
    /// Whose turns count as context; without it those of all for MELD, of the same speaker for IEMOCAP, as published
    #[arg(long, value_name = "all|same")]
    pub(crate) turns: Option<Turns>,
    /// Whether speakers' names precede their turns; without it as published: for MELD, but not for IEMOCAP
    #[arg(long, value_name = "true|false")]
    pub(crate) speaker_names: Option<bool>,
    /// What to do with NaN and infinite features: put zero there, drop that modality of the sample, or fail with error
    #[arg(long, value_name = "zero|drop|error", default_value = "zero")]
    pub(crate) bad_features: BadFeatures,
    /// Leave out rows that cannot be read, and list them
    #[arg(long)]
    pub(crate) skip_bad: bool,
    /// Replace the store if it is there
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LabelArgs {
    /// The stores, two or more
    #[arg(required = true, num_args = 1.., value_name = "STORE")]
    pub(crate) stores: Vec<PathBuf>,
    /// Folder of a BERT sentence encoder (SimCSE, MiniLM) as Hugging Face has it, with model.safetensors and tokenizer.json
    #[arg(long, value_name = "DIR")]
    pub(crate) encoder: PathBuf,
    /// Folder for the labelled copies, which keep the names of the stores
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// What of the encoder's output is a sentence's vector: cls, pooler or mean; without it as its folder says
    #[arg(long, value_name = "POOLING", value_parser = ["cls", "pooler", "mean"], hide_possible_values = true)]
    pub(crate) pooling: Option<String>,
    /// Whose labels are copied: those of training samples, or of all, test samples included, as the paper's code does
    #[arg(long, value_name = "train|all", default_value = "train", value_parser = ["train", "all"], hide_possible_values = true)]
    pub(crate) donors: String,
    /// Matches to show, to judge them
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) show: usize,
    /// The seed that chooses them
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Replace stores that are there
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl LabelArgs {
    /// The same in the words of the worker program.
    pub(crate) fn for_worker(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["label".into(), "--encoder".into(), self.encoder.clone().into()];
        arguments.extend(["--out".into(), self.out.clone().into()]);
        arguments.extend(self.pooling.iter().map(|pooling| format!("--pooling={pooling}").into()));
        arguments.push(format!("--donors={}", self.donors).into());
        arguments.push(format!("--show={}", self.show).into());
        arguments.push(format!("--seed={}", self.seed).into());
        arguments.extend(self.force.then(|| "--force".into()));
        let format = if self.output.format == Format::Json { "json" } else { "table" };
        arguments.extend(["-o".into(), format.into(), "--".into()]);
        arguments.extend(self.stores.iter().map(OsString::from));
        arguments
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SampleArgs {
    /// The folder to write the stores to
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Training samples of each store
    #[arg(long, value_name = "N", default_value_t = 768)]
    pub(crate) train: usize,
    /// Validation samples of each store
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) valid: usize,
    /// Test samples of each store
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) test: usize,
    /// The seed: the same seed makes the same bytes
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// Replace stores that are there
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}
