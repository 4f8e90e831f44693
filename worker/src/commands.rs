//! The commands that need tensors.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::process::Command;

use anyhow::Context;
use tch::Device;
use unimse_data::universal::{self, LabelOptions};
use unimse_model::Pooling;
use unimse_torch_ext::cuda;
use unimse_worker::trainer::torch::{
    Confusion, Encoder, Evaluated, Guess, ModelFolder, Precision, Question, SampleLine, export as write_folder,
    gpu_check as check,
};

use crate::arguments::{
    DonorsArgument, EvaluateArguments, ExportArguments, ExportType, Format, LabelArguments, PoolingArgument,
    PredictArguments,
};

/// Sentences that are judged together.
const BATCH: usize = 32;

/// The GPU if there is one that can be used.
fn device() -> Device {
    if cuda::load().is_ok() { Device::Cuda(0) } else { Device::Cpu }
}

pub(crate) fn evaluate(arguments: &EvaluateArguments) -> anyhow::Result<()> {
    let mut model = ModelFolder::open(&arguments.model, device()).map_err(anyhow::Error::msg)?;
    if let Some(way) = arguments.answers {
        model.set_answers(way.into()).map_err(anyhow::Error::msg)?;
    }
    let mut lines = None;
    if let Some(path) = &arguments.output {
        lines = Some(BufWriter::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?));
    }
    let mut tell = |line: SampleLine| match &mut lines {
        None => Ok(()),
        Some(file) => {
            let written = serde_json::to_writer(&mut *file, &line).map_err(io::Error::from);
            written.and_then(|()| file.write_all(b"\n")).map_err(|error| format!("cannot write the samples: {error}"))
        }
    };
    let tell: Option<&mut dyn FnMut(SampleLine) -> Result<(), String>> =
        if arguments.output.is_some() { Some(&mut tell) } else { None };
    let evaluated = model.evaluate(&arguments.stores, arguments.split, arguments.batch as usize, tell);
    let evaluated = evaluated.map_err(anyhow::Error::msg)?;
    if let Some(mut file) = lines {
        file.flush().context("cannot write the samples")?;
    }
    let mut out = io::stdout().lock();
    match arguments.format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&evaluated)?)?,
        Format::Table => table(&mut out, &evaluated)?,
    }
    Ok(())
}

/// Truth by prediction, a row a class; a last column for words of no class where there are some.
fn matrix(out: &mut impl Write, Confusion { classes, counts }: &Confusion) -> io::Result<()> {
    let width = classes.iter().map(String::len).max().unwrap_or(0).max(5);
    let others = counts.iter().any(|row| row.last() != Some(&0));
    write!(out, "  {:width$}", "")?;
    for class in classes {
        write!(out, " {class:>width$}")?;
    }
    writeln!(out, "{}", if others { "  (other)" } else { "   <- prediction" })?;
    for (class, row) in classes.iter().zip(counts) {
        write!(out, "  {class:width$}")?;
        for count in &row[..if others { row.len() } else { classes.len() }] {
            write!(out, " {count:>width$}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The metrics of each dataset with their 95 % intervals, and what was taken for what.
fn table(out: &mut impl Write, evaluated: &Evaluated) -> io::Result<()> {
    for (dataset, samples) in &evaluated.samples {
        writeln!(out, "{dataset}  ({samples} samples)")?;
        let own = evaluated
            .metrics
            .iter()
            .filter_map(|(name, value)| name.strip_prefix(dataset)?.strip_prefix('/').map(|metric| (metric, value)));
        for (metric, value) in own {
            write!(out, "  {metric:<10} {value:>8.4}")?;
            match evaluated.details.intervals.get(&format!("{dataset}/{metric}")) {
                Some([low, high]) => writeln!(out, "  [{low:.4}, {high:.4}]")?,
                None => writeln!(out)?,
            }
        }
        if let Some(confusion) = evaluated.details.confusion.get(dataset) {
            matrix(out, confusion)?;
        }
    }
    if let Some(score) = evaluated.metrics.get("score") {
        writeln!(out, "score        {score:>8.4}")?;
    }
    Ok(())
}

pub(crate) fn predict(arguments: &PredictArguments) -> anyhow::Result<()> {
    let questions = match &arguments.jsonl {
        None => arguments.text.iter().map(|text| Question { text: text.clone(), ..Question::default() }).collect(),
        Some(file) if file == "-" => questions(io::stdin().lock(), "stdin")?,
        Some(file) => {
            let opened = File::open(file).with_context(|| format!("cannot read {file}"))?;
            questions(BufReader::new(opened), file)?
        }
    };
    let mut model = ModelFolder::open(&arguments.model, device()).map_err(anyhow::Error::msg)?;
    if let Some(way) = arguments.answers {
        model.set_answers(way.into()).map_err(anyhow::Error::msg)?;
    }
    let guesses = model.predict(&questions, BATCH).map_err(anyhow::Error::msg)?;
    let mut out = io::stdout().lock();
    for Guess { id, text, polarity, score, emotion, emotions } in guesses {
        match arguments.format {
            Format::Json => {
                let guess = Guess { id, text, polarity, score, emotion, emotions };
                writeln!(out, "{}", serde_json::to_string(&guess)?)?;
            }
            Format::Table => {
                let emotion = emotion.as_deref().unwrap_or("-");
                writeln!(out, "{polarity:<9} {score:>5.1}  {emotion:<10} {text}")?;
            }
        }
    }
    Ok(())
}

pub(crate) fn export(arguments: &ExportArguments) -> anyhow::Result<()> {
    let precision = match arguments.dtype {
        ExportType::Fp32 => Precision::Fp32,
        ExportType::Bf16 => Precision::Bf16,
    };
    let exported = write_folder(&arguments.model, &arguments.out, precision).map_err(anyhow::Error::msg)?;
    writeln!(io::stdout(), "{}", arguments.out.display())?;
    writeln!(
        io::stderr(),
        "model.safetensors: T5, {} parameters; unimse.safetensors: {} beside it",
        exported.t5,
        exported.added
    )?;
    Ok(())
}

pub(crate) fn label(arguments: &LabelArguments) -> anyhow::Result<()> {
    let pooling = arguments.pooling.map(|pooling| match pooling {
        PoolingArgument::Cls => Pooling::Cls,
        PoolingArgument::Pooler => Pooling::Pooler,
        PoolingArgument::Mean => Pooling::Mean,
    });
    let options = LabelOptions {
        all_splits: arguments.donors == DonorsArgument::All,
        force: arguments.force,
        seed: arguments.seed,
        shown: arguments.show,
    };
    let mut encoder = Encoder::open(&arguments.encoder, pooling, device()).map_err(anyhow::Error::msg)?;
    let report = universal::label(&arguments.stores, &arguments.out, &mut encoder, &options)?;
    let mut out = io::stdout().lock();
    match arguments.format {
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
        Format::Table => {
            write!(out, "{report}")?;
            for store in &report.stores {
                writeln!(out, "{}", store.display())?;
            }
        }
    }
    Ok(())
}

fn questions(lines: impl BufRead, name: &str) -> anyhow::Result<Vec<Question>> {
    let mut questions = Vec::new();
    for (number, line) in (1..).zip(lines.lines()) {
        let line = line.with_context(|| format!("cannot read {name}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let question = serde_json::from_str(&line).with_context(|| {
            format!("{name}, line {number} is not an object like {{\"id\": \"1\", \"text\": \"a sentence\"}}")
        })?;
        questions.push(question);
    }
    Ok(questions)
}

/// Checks this machine's GPU. Two ranks on one GPU need a variable that NCCL reads at start, so a child process tries that.
pub(crate) fn gpu_check(json: bool, two_ranks: bool) -> anyhow::Result<()> {
    if two_ranks {
        return check::two_ranks().map_err(anyhow::Error::msg);
    }
    let mut out = io::stdout().lock();
    let report = match check::run().map_err(anyhow::Error::msg)? {
        Ok(report) => report,
        Err(reason) if json => return Ok(writeln!(out, "{}", serde_json::json!({ "gpu": false, "reason": reason }))?),
        Err(reason) => return Ok(writeln!(out, "no GPU: {reason}")?),
    };
    let program = std::env::current_exe().context("cannot find the own program")?;
    let child =
        Command::new(program).args(["gpu-check", "--two-ranks"]).env(check::MULTI_RANK.0, check::MULTI_RANK.1).output();
    let child = child.context("cannot start a second process")?;
    let shared = child.status.success();
    let said = String::from_utf8_lossy(&child.stderr).trim().to_owned();
    if json {
        let report =
            serde_json::json!({ "gpu": true, "report": report, "two_ranks_on_one_gpu": shared, "two_ranks": said });
        writeln!(out, "{report}")?;
        return Ok(());
    }
    let (first, last) = report.losses;
    writeln!(out, "devices                 {}", report.devices)?;
    writeln!(out, "bf16 training           loss {first:.3} -> {last:.3}, {:.2} ms a step", report.step_milliseconds)?;
    writeln!(out, "the same, CUDA graphs   {:.2} ms a step", report.graph_milliseconds)?;
    writeln!(out, "NCCL, one rank          ok")?;
    writeln!(
        out,
        "NCCL, two ranks a GPU   {}",
        if shared { "ok".to_owned() } else { format!("not possible: {said}") }
    )?;
    Ok(())
}
