//! What real trainers compute does not depend on where and how often they ran.

use std::path::PathBuf;

use crate::harness::{Cluster, Trainers, program, ran, real_data};

/// Makes small stores; gives their paths.
fn sample(cluster: &Cluster) -> Vec<PathBuf> {
    let folder = cluster.path("data");
    let text = folder.display().to_string();
    cluster.ok(&["data", "sample", "--out", &text, "--train", "192", "--valid", "48", "--test", "8"]);
    stores(&folder)
}

fn stores(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the folder was made").flatten().map(|entry| entry.path());
    let mut stores: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "arrow")).collect();
    stores.sort();
    assert_eq!(stores.len(), 2, "{stores:?}");
    stores
}

fn training(stores: &[PathBuf], slots: u32, steps: u64, more: &str) -> String {
    let list: Vec<String> = stores.iter().map(|path| format!("{{path: {}}}", path.display())).collect();
    let list = list.join(", ");
    format!(
        "name: numbers\nmodel: {{preset: tiny}}\ndata: {{train: [{list}], valid: [{list}], vocab_size: 600}}\n\
         train: {{max_steps: {steps}, global_batch: 24, micro_batch: 4, learning_rate: 1e-3, schedule: {{type: linear, warmup: 5}}, \
         evaluate_every: {steps}, seed: 7{more}}}\n\
         resources: {{slots: {slots}, min_slots: {slots}}}\ncheckpoint: {{every: 10}}\nlog: {{every: 1}}\n"
    )
}

/// The digests of the samples that each step consumed.
fn digests(cluster: &Cluster, job: &str) -> Vec<(u64, String)> {
    let text = cluster.ok(&["metrics", job, "--digests", "-o", "jsonl"]);
    let read = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
        (row["step"].as_u64().expect("a step"), row["digest"].as_str().expect("a digest").to_owned())
    };
    text.lines().map(read).collect()
}

#[test]
fn one_two_and_three_ranks_consume_the_same_samples_and_see_the_same_losses() {
    let cluster = Cluster::start(Trainers::Real, &[1, 1, 1]);
    let stores = sample(&cluster);
    let mut seen = Vec::new();
    for world in 1..=3 {
        let job = cluster.submit(&training(&stores, world, 20, ", dropout: 0"));
        cluster.completes(&job);
        let losses: Vec<f64> = cluster.metric(&job, "train/loss").iter().map(|point| point.value).collect();
        assert_eq!(losses.len(), 20);
        seen.push((digests(&cluster, &job), losses));
    }
    let (digests, losses) = &seen[0];
    assert_eq!(digests.len(), 20);
    for (other_digests, other_losses) in &seen[1..] {
        assert_eq!(other_digests, digests);
        for (step, (a, b)) in losses.iter().zip(other_losses).enumerate() {
            assert!((a - b).abs() <= 1e-4 * a.abs(), "step {}: {a} and {b}", step + 1);
        }
    }
    assert!(losses[19] < losses[0], "it learns: {losses:?}");
}

#[test]
fn a_job_whose_processes_were_all_killed_ends_with_bit_equal_weights() {
    let mut cluster = Cluster::start(Trainers::Real, &[1, 1]);
    let stores = sample(&cluster);
    let calm = cluster.submit(&training(&stores, 2, 60, ""));
    cluster.completes(&calm);
    let job = cluster.submit(&training(&stores, 2, 60, ""));
    cluster.wait_for(&job, "has a checkpoint", |view| view.durable_step >= 20);
    cluster.kill_everything();
    cluster.start_coordinator();
    for agent in 0..2 {
        cluster.start_agent(agent);
    }
    let view = cluster.completes(&job);
    assert!(view.generation >= 2, "{view:?}");
    let pulled = |job: &str, folder: &str| {
        let folder = cluster.path(folder);
        cluster.ok(&["ckpt", "pull", &format!("{job}:60"), &folder.display().to_string()]);
        std::fs::read(folder.join("model.safetensors")).expect("the pulled weights")
    };
    assert!(pulled(&calm, "calm") == pulled(&job, "killed"), "the weights differ");
}

#[test]
fn a_pulled_checkpoint_evaluates_and_predicts() {
    let cluster = Cluster::start(Trainers::Real, &[1]);
    let stores = sample(&cluster);
    let job = cluster.submit(&training(&stores, 1, 30, ""));
    let view = cluster.completes(&job);
    let folder = cluster.path("best").display().to_string();
    cluster.ok(&["ckpt", "pull", &format!("{job}:best"), &folder]);
    for file in ["config.json", "model.safetensors", "tokenizer.json", "labels.json"] {
        assert!(cluster.path("best").join(file).is_file(), "{file} is missing");
    }
    let lines = cluster.path("predictions.jsonl").display().to_string();
    let mut evaluate = vec!["evaluate".to_owned(), folder.clone()];
    evaluate.extend(stores.iter().map(|path| path.display().to_string()));
    evaluate.extend(["--split", "valid", "--output", &lines, "-o", "json"].map(ToOwned::to_owned));
    let evaluated = cluster.ok(&evaluate.iter().map(String::as_str).collect::<Vec<_>>());
    let evaluated: serde_json::Value = serde_json::from_str(&evaluated).expect("JSON");
    // The evaluation of the pulled folder is that of the job, to the last digit that matters.
    for (name, value) in &view.metrics {
        let Some(other) = find(&evaluated, name.trim_start_matches("valid/")) else { continue };
        assert!((value - other).abs() < 1e-6, "{name}: {value} in the job, {other} afterwards");
    }
    let rows = std::fs::read_to_string(cluster.path("predictions.jsonl")).expect("one line a sample");
    assert_eq!(rows.lines().count(), 96);
    let first: serde_json::Value = serde_json::from_str(rows.lines().next().expect("a line")).expect("JSON");
    for field in ["id", "dataset", "input_ids", "target_ids", "target", "prediction", "nll"] {
        assert!(!first[field].is_null(), "{field} is missing in {first}");
    }
    let predicted = cluster.ok(&["predict", &folder, "--text", "what a wonderful day", "-o", "json"]);
    for field in ["polarity", "score", "emotion"] {
        assert!(predicted.contains(field), "{predicted}");
    }
}

/// Looks a metric up by its path, such as `mosi/mae`.
fn find(value: &serde_json::Value, name: &str) -> Option<f64> {
    match value {
        serde_json::Value::Object(map) => map
            .get(name)
            .and_then(serde_json::Value::as_f64)
            .or_else(|| map.values().find_map(|value| find(value, name))),
        serde_json::Value::Array(items) => items.iter().find_map(|item| find(item, name)),
        _ => None,
    }
}

#[test]
fn the_real_releases_import_with_the_published_counts() {
    let Some(data) = real_data() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let import = |arguments: &[String], out: &str, counts: &[&str]| {
        let out = folder.path().join(out).display().to_string();
        let mut command = program("unimse");
        command.args(["data", "import"]).args(arguments).args(["--out", &out, "-o", "json"]);
        let imported = ran(command);
        assert_eq!(imported.code, 0, "{}", imported.err);
        for count in counts {
            assert!(imported.out.contains(count), "{count} is not in {}", imported.out);
        }
    };
    let path = |name: &str| data.join(name).display().to_string();
    import(&[path("mosi_utterance.pkl")], "mosi.arrow", &["1284", "229"]);
    let meld =
        [format!("train={}", path("meld_train_sent_emo.csv")), format!("valid={}", path("meld_dev_sent_emo.csv"))];
    import(&meld, "meld.arrow", &["9989", "1109"]);
}
