//! The training step beside Hugging Face's T5 with PyTorch's fused AdamW: same weights, same batch, in turn.
//!
//! `UNIMSE_PEER_PYTHON` names a Python that has torch and transformers; without it only our step is measured.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints what it measured")]

fn main() {
    #[cfg(feature = "torch")]
    compare::main();
    #[cfg(not(feature = "torch"))]
    eprintln!("built without training");
}

#[cfg(feature = "torch")]
mod compare {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use serde_json::{Value, json};
    use unimse_worker::trainer::torch::step_bench::{self, Options};

    /// Preset, batch size, input tokens, target tokens, timed steps.
    const CASES: [(&str, u32, u32, u32, u64); 3] =
        [("tiny", 16, 32, 12, 60), ("tiny", 32, 64, 12, 30), ("small", 8, 64, 12, 8)];
    const ROUNDS: usize = 3;

    pub(crate) fn main() {
        let arguments: Vec<String> = std::env::args().collect();
        if arguments.get(1).is_some_and(|first| first == "ours") {
            let number = |place: usize| arguments[place].parse().expect("a number");
            let options = Options { steps: number(3), warm: 3, threads: number(4) as u32 };
            match step_bench::run(Path::new(&arguments[2]), options) {
                Ok(outcome) => println!("{}", serde_json::to_string(&outcome).expect("plain data")),
                Err(error) => {
                    eprintln!("error: {error}");
                    std::process::exit(1);
                }
            }
            return;
        }
        let threads = std::env::var("UNIMSE_BENCH_THREADS").unwrap_or_else(|_| "1".to_owned());
        let Some(python) = std::env::var_os("UNIMSE_PEER_PYTHON") else {
            eprintln!("skipped: UNIMSE_PEER_PYTHON names no Python with torch and transformers");
            return;
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/peers/train_step.py");
        let wanted: Vec<&String> = arguments[1..].iter().filter(|argument| !argument.starts_with("--")).collect();
        for (preset, batch, input, target, steps) in CASES {
            if !wanted.is_empty() && !wanted.iter().any(|wanted| *wanted == preset) {
                continue;
            }
            let folder = std::env::temp_dir().join(format!("unimse-bench-{}-{preset}-{batch}", std::process::id()));
            let shape = [preset.to_owned(), batch.to_string(), input.to_string(), target.to_string()];
            run(Command::new(&python).arg(&script).arg("prepare").arg(&folder).args(&shape));
            let own = std::env::current_exe().expect("this program has a path");
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let steps = steps.to_string();
                ours.push(run(Command::new(&own).arg("ours").arg(&folder).args([&steps, &threads])));
                theirs.push(run(Command::new(&python).arg(&script).arg("run").arg(&folder).args([&steps, &threads])));
            }
            let name = format!("{preset} {batch}x{input}/{target}, {threads} thread(s)");
            report(&name, &ours, &theirs);
            let _ = std::fs::remove_dir_all::<PathBuf>(folder);
        }
    }

    fn run(command: &mut Command) -> Value {
        let output = command.output().expect("the program starts");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or(Value::Null)
    }

    fn report(name: &str, ours: &[Value], theirs: &[Value]) {
        let (own, other) = (milliseconds(ours), milliseconds(theirs));
        let record = |what: &str, value: f64, unit: &str, better: &str| {
            println!("{}", json!({"name": format!("{name}: {what}"), "value": value, "unit": unit, "better": better}));
        };
        record("step", own, "ms", "lower");
        record("step of Hugging Face", other, "ms", "lower");
        record("speed against Hugging Face", other / own, "x", "higher");
        for (place, part) in ["forward", "backward", "update"].into_iter().enumerate() {
            record(part, ours[0]["parts"][place].as_f64().unwrap_or(f64::NAN) * 1e3, "ms", "lower");
            record(
                &format!("{part} of Hugging Face"),
                theirs[0]["parts"][place].as_f64().unwrap_or(f64::NAN) * 1e3,
                "ms",
                "lower",
            );
        }
        let peak = |values: &[Value]| values[0]["peak_bytes"].as_f64().unwrap_or(f64::NAN) / 1e6;
        record("peak memory", peak(ours), "MB", "lower");
        record("peak memory of Hugging Face", peak(theirs), "MB", "lower");
        record("largest difference of losses", difference(&ours[0], &theirs[0]), "relative", "lower");
    }

    fn milliseconds(runs: &[Value]) -> f64 {
        let seconds = |run: &Value| run["seconds"].as_array().cloned().unwrap_or_default();
        let mut all: Vec<f64> = runs.iter().flat_map(seconds).filter_map(|value| value.as_f64()).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2] * 1e3
    }

    fn difference(ours: &Value, theirs: &Value) -> f64 {
        let losses = |run: &Value| run["losses"].as_array().cloned().unwrap_or_default();
        let pairs = losses(ours).into_iter().zip(losses(theirs));
        let apart = |(a, b): (Value, Value)| {
            let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
            (a - b).abs() / b.abs().max(1e-9)
        };
        pairs.map(apart).fold(0.0, f64::max)
    }
}
