//! Arguments of the commands that the worker program carries out, because they need tensors.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use unimse_data::schema::Split;

use super::{Format, Output};

#[derive(Clone, Debug, Args)]
pub(crate) struct EvaluateArgs {
    /// A checkpoint (j-7k2m:best, j-7k2m:latest, j-7k2m:1200) or a folder that `unimse ckpt pull` wrote
    pub(crate) checkpoint: String,
    /// Datasets to measure on
    #[arg(required = true, value_name = "STORE")]
    pub(crate) stores: Vec<PathBuf>,
    /// The part of each dataset: train, valid or test
    #[arg(long, default_value = "test")]
    pub(crate) split: Split,
    /// Write one JSON line a sample to this file: what went in, what came out, its loss
    #[arg(long = "output", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// How the model answers: decoded, expected (the mean of all scores) or heads; without it as in training
    #[arg(long, value_name = "WAY", value_parser = ["decoded", "expected", "heads"], hide_possible_values = true)]
    pub(crate) answers: Option<String>,
    /// Samples in a batch
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) batch: u32,
    /// How to write the metrics: table or json
    #[arg(short = 'o', long = "format", value_name = "FORMAT", value_enum, default_value_t = Format::Table, hide_possible_values = true, hide_default_value = true)]
    pub(crate) format: Format,
}

#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("input").required(true).args(["text", "jsonl"]))]
pub(crate) struct PredictArgs {
    /// A checkpoint (j-7k2m:best, j-7k2m:latest, j-7k2m:1200) or a folder that `unimse ckpt pull` wrote
    pub(crate) checkpoint: String,
    /// A sentence; may be repeated
    #[arg(long, value_name = "SENTENCE", allow_hyphen_values = true)]
    pub(crate) text: Vec<String>,
    /// A file with one JSON object a line: {"id": .., "text": .., "acoustic": [[..]], "visual": [[..]]}; `-` is stdin
    #[arg(long, value_name = "FILE|-")]
    pub(crate) jsonl: Option<String>,
    /// How the model answers: decoded, expected (the mean of all scores) or heads; without it as in training
    #[arg(long, value_name = "WAY", value_parser = ["decoded", "expected", "heads"], hide_possible_values = true)]
    pub(crate) answers: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ExportArgs {
    /// A checkpoint (j-7k2m:best, j-7k2m:latest, j-7k2m:1200) or a folder that `unimse ckpt pull` wrote
    pub(crate) checkpoint: String,
    /// Where to write; absent or empty
    #[arg(value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Element type of the weights: fp32 or bf16
    #[arg(long, value_name = "TYPE", default_value = "fp32", value_parser = ["fp32", "bf16"], hide_possible_values = true)]
    pub(crate) dtype: String,
}

fn word(format: Format) -> &'static str {
    match format {
        Format::Table => "table",
        Format::Json => "json",
    }
}

impl EvaluateArgs {
    /// The same in the words of the worker program, but for the model.
    pub(crate) fn for_worker(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![
            "--split".into(),
            self.split.as_str().into(),
            "--batch".into(),
            self.batch.to_string().into(),
            "-o".into(),
            word(self.format).into(),
        ];
        arguments.extend(self.answers.iter().map(|way| format!("--answers={way}").into()));
        if let Some(file) = &self.file {
            arguments.extend(["--output".into(), file.into()]);
        }
        arguments.push("--".into());
        arguments.extend(self.stores.iter().map(OsString::from));
        arguments
    }
}

impl ExportArgs {
    /// The same in the words of the worker program, but for the model.
    pub(crate) fn for_worker(&self) -> Vec<OsString> {
        vec!["--out".into(), self.out.clone().into(), "--dtype".into(), self.dtype.clone().into()]
    }
}

impl PredictArgs {
    /// The same in the words of the worker program, but for the model.
    pub(crate) fn for_worker(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["-o".into(), word(self.output.format).into()];
        // With `=`, so that a sentence may begin with a hyphen.
        arguments.extend(self.text.iter().map(|text| format!("--text={text}").into()));
        arguments.extend(self.answers.iter().map(|way| format!("--answers={way}").into()));
        arguments.extend(self.jsonl.iter().map(|file| format!("--jsonl={file}").into()));
        arguments
    }
}
