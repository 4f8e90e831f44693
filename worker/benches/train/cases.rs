//! What is compared, and with whom.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::ours;

/// Times that ours and theirs run in turn.
const ROUNDS: usize = 3;

/// A comparison: how the folder is prepared, and what runs in it on either side.
struct Case {
    name: &'static str,
    script: &'static str,
    prepare: &'static [&'static str],
    ours: &'static [&'static str],
    peer: (&'static str, &'static str),
    theirs: &'static [&'static str],
    /// The ratio of the goals.
    wanted: f64,
    /// The losses agree to this; none where they are not of the same batch.
    apart: Option<f64>,
}

const STEP: &str = "train_step.py";
const CASES: &[Case] = &[
    Case {
        name: "tiny",
        script: STEP,
        prepare: &["tiny", "16", "32", "12"],
        ours: &["ours", "FOLDER", "60", "1"],
        peer: ("Hugging Face", STEP),
        theirs: &["run", "FOLDER", "60", "1"],
        wanted: 2.0,
        apart: Some(1e-3),
    },
    Case {
        name: "small",
        script: STEP,
        prepare: &["small", "8", "64", "12"],
        ours: &["ours", "FOLDER", "8", "1"],
        peer: ("Hugging Face", STEP),
        theirs: &["run", "FOLDER", "8", "1"],
        wanted: 1.15,
        apart: Some(1e-3),
    },
    Case {
        name: "frozen",
        script: STEP,
        prepare: &["small", "8", "64", "12", "--frozen", "paper"],
        ours: &["ours", "FOLDER", "10", "1"],
        peer: ("Hugging Face", STEP),
        theirs: &["run", "FOLDER", "10", "1"],
        wanted: 1.3,
        apart: Some(1e-3),
    },
    Case {
        name: "ranks",
        script: STEP,
        prepare: &["small", "8", "64", "12"],
        ours: &["ranks", "FOLDER", "8", "1", "2"],
        peer: ("DDP over Gloo", "ddp_step.py"),
        theirs: &["run", "FOLDER", "8", "1", "2"],
        wanted: 1.5,
        apart: Some(1e-2),
    },
    Case {
        name: "lengths",
        script: "lengths.py",
        prepare: &["DATA", "1", "40", "32"],
        ours: &["lengths", "FOLDER", "1", "32"],
        peer: ("PyTorch", "lengths.py"),
        theirs: &["run", "FOLDER", "1"],
        wanted: 2.0,
        apart: Some(1e-2),
    },
    Case {
        name: "lengths-cut",
        script: "lengths.py",
        prepare: &["DATA", "1", "40", "32"],
        ours: &["lengths", "FOLDER", "1", "8"],
        peer: ("PyTorch", "lengths.py"),
        theirs: &["run", "FOLDER", "1"],
        wanted: 2.0,
        apart: None,
    },
];

/// Runs the cases that are named, or all.
pub(super) fn compare(arguments: &[String]) {
    let Some(python) = std::env::var_os("UNIMSE_PEER_PYTHON") else {
        eprintln!("skipped: UNIMSE_PEER_PYTHON names no Python with torch and transformers");
        return;
    };
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/peers");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let own = std::env::current_exe().expect("this program has a path");
    let speed = run(Command::new(&own).args(["speed", "1"]))["flops"].as_f64().unwrap_or(f64::NAN);
    for case in CASES {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| *wanted == case.name) {
            continue;
        }
        if case.prepare.contains(&"DATA") && !data.is_dir() {
            eprintln!("skipped: no real data for `{}`", case.name);
            continue;
        }
        let folder = std::env::temp_dir().join(format!("unimse-bench-{}-{}", std::process::id(), case.name));
        let filled = |words: &[&str]| -> Vec<PathBuf> {
            let fill = |word: &&str| match *word {
                "FOLDER" => folder.clone(),
                "DATA" => data.clone(),
                word => PathBuf::from(word),
            };
            words.iter().map(fill).collect()
        };
        run(Command::new(&python).arg(peers.join(case.script)).arg("prepare").arg(&folder).args(filled(case.prepare)));
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(run(Command::new(&own).args(filled(case.ours))));
            theirs.push(run(Command::new(&python).arg(peers.join(case.peer.1)).args(filled(case.theirs))));
        }
        report(case, &ours, &theirs, speed);
        let _ = std::fs::remove_dir_all(folder);
    }
    if wanted.is_empty() || wanted.iter().any(|wanted| *wanted == "saving") {
        saving(&python, &peers);
    }
    if data.is_dir() && (wanted.is_empty() || wanted.iter().any(|wanted| *wanted == "slow")) {
        slow(&python, &peers, &data);
    }
}

/// Saving the state of the small preset (726 MB) while training, beside PyTorch's distributed checkpoints of the same size.
fn saving(python: &std::ffi::OsStr, peers: &Path) {
    let folder = std::env::temp_dir().join(format!("unimse-bench-{}-saving", std::process::id()));
    let shape = ["small", "2", "32", "12"];
    run(Command::new(python).arg(peers.join(STEP)).arg("prepare").arg(&folder).args(shape));
    let own = std::env::current_exe().expect("this program has a path");
    let ours = run(Command::new(&own).arg("saving").arg(&folder).args(["12", "1"]).arg(folder.join("saves")).arg("3"));
    let theirs = run(Command::new(python).arg(peers.join("dcp_save.py")).arg(&folder).args(["726", "12", "1"]));
    let number = |side: &Value, name: &str| side[name].as_f64().unwrap_or(f64::NAN);
    for (what, name, budget) in
        [("training blocked against async_save", "blocked", 0.1), ("durable against async_save", "durable", 0.6)]
    {
        let [mine, its] = [&ours, &theirs].map(|side| number(side, name) * 1e3);
        let record = json!({"name": format!("saving: {what}"), "value": mine / its, "unit": "x", "better": "lower",
            "budget": budget, "ours": mine, "peer": its, "of": "ms"});
        println!("{record}");
    }
    let [mine, its] = [&ours, &theirs].map(|side| number(side, "throughput") * 100.0);
    let record = json!({"name": "saving: throughput meanwhile", "value": mine, "unit": "%", "better": "higher", "budget": 95.0,
        "peer": its});
    println!("{record}");
    for (side, name) in [(&ours, "ours"), (&theirs, "DCP")] {
        let size = number(side, "bytes") / 1e6;
        println!(
            "{}",
            json!({"name": format!("saving: size, {name}"), "value": size, "unit": "MB", "better": "lower"})
        );
    }
    let _ = std::fs::remove_dir_all(folder);
}

/// Two ranks that may send 100 Mbit/s each, beside the same two on a link without a limit, and each on its own: how fast they are, and
/// what they learn meanwhile.
fn slow(python: &std::ffi::OsStr, peers: &Path, data: &Path) {
    let folder = std::env::temp_dir().join(format!("unimse-bench-{}-slow", std::process::id()));
    let shape = ["1", "200", "64"];
    run(Command::new(python).arg(peers.join("lengths.py")).arg("prepare").arg(&folder).arg(data).args(shape));
    let own = std::env::current_exe().expect("this program has a path");
    let of = |way: &str, megabits: &str| run(Command::new(&own).arg("slow").arg(&folder).args([way, "16", megabits]));
    // The steps that factors are warmed up in are left out everywhere: they are a tenth of these 200, but not of a job.
    let seconds = |found: &Value| {
        let all: Vec<f64> = found["seconds"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        all.iter().skip(ours::FACTORS_FROM as usize).sum::<f64>() / (all.len() as f64 - f64::from(ours::FACTORS_FROM))
    };
    let unlimited = seconds(&of("plain", "100000"));
    let alone = seconds(&of("alone", "100000"));
    println!(
        "{}",
        json!({"name": "no limit: step of two ranks", "value": unlimited * 1e3, "unit": "ms", "better": "lower"})
    );
    println!(
        "{}",
        json!({"name": "no other rank: step on half of the batch", "value": alone * 1e3, "unit": "ms", "better": "lower"})
    );
    for way in ["plain", "bf16", "rounds", "factors"] {
        let found = of(way, "100");
        let number = |name: &str| found[name].as_f64().unwrap_or(f64::NAN);
        let losses: Vec<f64> = found["losses"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let around = |step: usize| {
            let near: Vec<f64> = losses.iter().skip(step.saturating_sub(10)).take(10).copied().collect();
            near.iter().sum::<f64>() / near.len() as f64
        };
        let own = seconds(&found);
        let mut share = json!({"name": format!("100 Mbit/s, {way}: throughput against no limit"), "value": unlimited / own * 100.0,
            "unit": "%", "better": "higher", "ours": own * 1e3, "peer": unlimited * 1e3, "of": "ms"});
        if ["rounds", "factors"].contains(&way) {
            share["budget"] = json!(90.0);
        }
        println!("{share}");
        let sent = number("sent_bytes") / 1e6 / losses.len() as f64;
        println!(
            "{}",
            json!({"name": format!("100 Mbit/s, {way}: sent a step"), "value": sent, "unit": "MB", "better": "lower"})
        );
        for step in [50, 100, 150, 200] {
            let name = format!("100 Mbit/s, {way}: loss before step {step}");
            println!("{}", json!({"name": name, "value": around(step), "unit": "nats", "better": "lower"}));
        }
    }
    let _ = std::fs::remove_dir_all(folder);
}

/// Runs a side as agents run their trainers, and reads its last line.
fn run(command: &mut Command) -> Value {
    for (name, value) in [
        (
            "GLIBC_TUNABLES",
            "glibc.malloc.mmap_threshold=4194304:glibc.malloc.trim_threshold=67108864:glibc.malloc.hugetlb=1",
        ),
        ("GOMP_SPINCOUNT", "1000"),
    ] {
        // The peer's allocator and threads are its own affair.
        if command.get_program() == std::env::current_exe().expect("this program has a path").as_os_str() {
            command.env(name, value);
        }
    }
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or(Value::Null)
}

fn report(case: &Case, ours: &[Value], theirs: &[Value], speed: f64) {
    let (name, peer) = (case.name, case.peer.0);
    let (own, other) = (milliseconds(ours), milliseconds(theirs));
    // The matrix products alone, at the speed of large ones here.
    let floor = ours[0]["flops"].as_f64().filter(|flops| *flops > 0.0).map(|flops| flops / speed * 1e3);
    let mut goal = json!({"name": format!("{name}: step against {peer}"), "value": other / own, "unit": "x", "better": "higher",
        "budget": case.wanted, "ours": own, "peer": other, "of": "ms"});
    if let Some(floor) = floor {
        goal["floor"] = json!(floor);
    }
    println!("{goal}");
    let record = |what: &str, value: f64, unit: &str, better: &str| {
        println!("{}", json!({"name": format!("{name}: {what}"), "value": value, "unit": unit, "better": better}));
    };
    for (place, part) in ["forward", "backward", "update"].into_iter().enumerate() {
        let of = |runs: &[Value]| {
            median(runs.iter().filter_map(|run| run["parts"][place].as_f64()).collect()).map(|seconds| seconds * 1e3)
        };
        of(ours).inspect(|value| record(part, *value, "ms", "lower"));
        of(theirs).inspect(|value| record(&format!("{part} of {peer}"), *value, "ms", "lower"));
    }
    let peak = |values: &[Value]| values[0]["peak_bytes"].as_f64().unwrap_or(f64::NAN) / 1e6;
    let memory = json!({"name": format!("{name}: peak memory against {peer}"), "value": peak(ours) / peak(theirs), "unit": "x",
        "better": "lower", "budget": 1.0, "ours": peak(ours), "peer": peak(theirs), "of": "MB"});
    println!("{memory}");
    if name == "ranks" {
        let share = |runs: &[Value]| {
            median(runs.iter().filter_map(|run| run["exposed"].as_f64()).collect()).unwrap_or(f64::NAN) * 1e3
        };
        let (mine, its) = (share(ours) / own * 100.0, share(theirs) / other * 100.0);
        let hidden = json!({"name": "ranks: exposed communication, share of the step", "value": mine, "unit": "%", "better": "lower",
            "budget": 10.0, "peer": its});
        println!("{hidden}");
    }
    let apart = difference(&ours[0], &theirs[0]);
    record("largest difference of losses", apart, "relative", "lower");
    if let Some(limit) = case.apart {
        assert!(apart < limit, "{name}: the two sides do not compute the same: losses differ by {apart}");
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn milliseconds(runs: &[Value]) -> f64 {
    let seconds = |run: &Value| run["seconds"].as_array().cloned().unwrap_or_default();
    median(runs.iter().flat_map(seconds).filter_map(|value| value.as_f64()).collect()).unwrap_or(f64::NAN) * 1e3
}

/// Over the first steps: later ones amplify what rounding made of the first.
fn difference(ours: &Value, theirs: &Value) -> f64 {
    let losses = |run: &Value| run["losses"].as_array().cloned().unwrap_or_default();
    let pairs = losses(ours).into_iter().zip(losses(theirs)).take(4);
    let apart = |(a, b): (Value, Value)| {
        let (a, b) = (a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN));
        (a - b).abs() / b.abs().max(1e-9)
    };
    pairs.map(apart).fold(0.0, f64::max)
}
