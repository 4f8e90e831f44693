//! Greedy generation with the key-value cache beside Hugging Face's `generate`: same weights, same inputs, same tokens.
//!
//! Then answers as `unimse evaluate` gives them, where each token is one that the grammar of labels permits, beside as many of theirs.
//!
//! `UNIMSE_PEER_PYTHON` names a Python that has torch and transformers; `cargo xtask bench decode` provides one.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

use std::cell::RefCell;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use tch::{Device, Tensor, nn};
use unimse_model::{Config, Grammar, Inputs, LabelDecoder, LabelSchema, Modality, Task, UniMse, weights};

/// Preset, utterances, batch size, input tokens.
const CASES: [(&str, i64, i64, i64); 2] = [("tiny", 10_000, 32, 32), ("small", 960, 32, 32)];
/// Tokens of an answer: `negative,-1.2,sadness,none` has about so many.
const TOKENS: i64 = 12;
const ROUNDS: usize = 2;
/// What is wanted of the answers.
const WANTED: f64 = 2.0;

fn main() {
    let threads = std::env::var("UNIMSE_BENCH_THREADS").unwrap_or_else(|_| "1".to_owned());
    tch::set_num_threads(threads.parse().expect("a number of threads"));
    let Some(python) = std::env::var_os("UNIMSE_PEER_PYTHON") else {
        eprintln!("skipped: UNIMSE_PEER_PYTHON names no Python with torch and transformers");
        return;
    };
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/peers");
    let folder = tempfile::tempdir().expect("a scratch folder");
    for (preset, utterances, batch, input) in CASES {
        let folder = folder.path().join(preset);
        let text = |number: i64| number.to_string();
        let shape = [preset.to_owned(), text(batch), text(input), text(TOKENS)];
        run(Command::new(&python).arg(peers.join("train_step.py")).arg("prepare").arg(&folder).args(&shape));
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let side = Side::new(&folder);
            let (seconds, generated) = timed(utterances / batch, || side.generate(batch));
            ours.push(utterances as f64 / seconds);
            let numbers = [text(utterances), text(batch), text(TOKENS), threads.clone()];
            let peer = run(Command::new(&python).arg(peers.join("decode.py")).arg("run").arg(&folder).args(&numbers));
            theirs.push(number(&peer, "utterances") / number(&peer, "seconds"));
            let expected = read(&folder.join("theirs.safetensors"), "generated");
            assert_eq!(generated, expected, "both generate the same tokens");
        }
        let name =
            format!("{preset}, {utterances} utterances of {input} tokens, batches of {batch}, {threads} thread(s)");
        let best = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
        for (what, value, unit) in [
            ("ours", best(&ours), "utterances/s"),
            ("Hugging Face", best(&theirs), "utterances/s"),
            ("ratio", best(&ours) / best(&theirs), "x"),
        ] {
            println!(
                "{}",
                json!({"name": format!("{name}: {what}"), "value": value, "unit": unit, "better": "higher"})
            );
        }
        answers(&python, &peers, &folder, (preset, utterances / 3 / batch * batch, batch, &threads));
    }
}

/// Answers about sentiment as `unimse evaluate` gets them, and as many tokens of Hugging Face's: what a token may be is known, so few
/// scores are computed.
fn answers(python: &OsStr, peers: &Path, folder: &Path, (preset, utterances, batch, threads): (&str, i64, i64, &str)) {
    let side = Side::new(folder);
    let (seconds, tokens) = timed(utterances / batch, || side.answer());
    let ours = utterances as f64 / seconds;
    let numbers = [utterances.to_string(), batch.to_string(), tokens.to_string(), threads.to_owned()];
    let peer = run(Command::new(python).arg(peers.join("decode.py")).arg("run").arg(folder).args(&numbers));
    let theirs = number(&peer, "utterances") / number(&peer, "seconds");
    let name = format!("{preset}, {utterances} answers of up to {tokens} tokens: against Hugging Face's generate");
    let record = json!({"name": name, "value": ours / theirs, "unit": "x", "better": "higher", "budget": WANTED, "ours": ours,
        "peer": theirs, "of": "utterances/s"});
    println!("{record}");
}

/// Our model and its inputs.
struct Side {
    model: UniMse,
    inputs: Inputs,
    grammar: Grammar,
}

impl Side {
    fn new(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join("config.json")).expect("the peer wrote a configuration");
        let mut config = Config::from_json(&text).expect("it is a T5");
        config.unimse.fusion.layers = 0;
        let store = nn::VarStore::new(Device::Cpu);
        let model = UniMse::new(&store.root(), &config).expect("a valid configuration");
        let files = weights::WeightFiles::of_folder(folder).expect("the peer wrote weights");
        weights::initialise_from_t5(&store, &config, files).expect("the weights of a T5");
        let path = folder.join("batch.safetensors");
        let inputs = Inputs {
            input_ids: read(&path, "input_ids"),
            attention_mask: read(&path, "attention_mask"),
            acoustic: Modality::default(),
            visual: Modality::default(),
        };
        Self { model, inputs, grammar: grammar() }
    }

    /// `[B, TOKENS]`, the best of all tokens each time but for the end.
    fn generate(&self, batch: i64) -> Tensor {
        let Self { model, inputs, .. } = self;
        let t5 = &model.config().t5;
        let encoded = model.encode(inputs, false).expect("there are no features");
        let mut cache = model.start(&encoded, TOKENS);
        let mut token = Tensor::full([batch], t5.decoder_start_token_id, (tch::Kind::Int64, Device::Cpu));
        let mut tokens = Vec::new();
        let eos = Tensor::from_slice(&[t5.eos_token_id]);
        for _ in 0..TOKENS {
            let mut logits = model.logits(&model.step(&token, &mut cache)).squeeze_dim(1);
            token = logits.index_fill_(1, &eos, f64::NEG_INFINITY).argmax(1, false);
            tokens.push(token.shallow_clone());
        }
        Tensor::stack(&tokens, 1)
    }

    /// Answers about sentiment; returns the tokens of the longest.
    fn answer(&self) -> usize {
        let decoder = LabelDecoder::new(&self.model, &self.grammar, Some(Task::Sentiment), Device::Cpu);
        let answers = decoder.decode(&self.model, &self.inputs).expect("there are no features");
        answers.iter().map(|answer| answer.ids.len()).max().unwrap_or(0)
    }
}

/// The grammar of the default labels over a vocabulary of short pieces.
fn grammar() -> Grammar {
    let known: RefCell<Vec<String>> = RefCell::default();
    let pieces = |text: &str| {
        let place = |piece: String| {
            let mut known = known.borrow_mut();
            let at = known.iter().position(|seen| *seen == piece).unwrap_or_else(|| {
                known.push(piece);
                known.len() - 1
            });
            at as i64 + 2
        };
        // Letters go by fours, other signs one by one: much as a learned vocabulary has them.
        let mut found: Vec<String> = Vec::new();
        for letter in text.chars() {
            match found.last_mut() {
                Some(last) if letter.is_alphabetic() && last.len() < 4 && last.chars().all(char::is_alphabetic) => {
                    last.push(letter);
                }
                _ => found.push(letter.to_string()),
            }
        }
        found.into_iter().map(place).collect()
    };
    Grammar::try_new(&LabelSchema::default(), 1, pieces).expect("pieces tell all words apart")
}

/// The seconds that `count` calls take after a first one, and the last result.
fn timed<T>(count: i64, mut call: impl FnMut() -> T) -> (f64, T) {
    tch::no_grad(|| {
        let mut last = call();
        let began = Instant::now();
        for _ in 0..count {
            last = call();
        }
        (began.elapsed().as_secs_f64(), last)
    })
}

fn read(path: &Path, name: &str) -> Tensor {
    let bytes = std::fs::read(path).expect("the peer wrote it");
    let tensors = weights::read_safetensors(&bytes).expect("it is a safetensors file");
    tensors.into_iter().find(|(known, _)| known == name).expect("it has the tensor").1
}

fn run(command: &mut Command) -> Value {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or(Value::Null)
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().expect("a number")
}
