//! Bad input gets one clear message with place, value and hint, the right exit code, and does no damage.

use std::fmt::Write as _;
use std::path::Path;

use crate::cluster::counting;
use crate::harness::{Cluster, Ran, Trainers, View, program, ran};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn unimse(arguments: &[&str]) -> Ran {
    let mut command = program("unimse");
    command.args(arguments).env("UNIMSE_COORDINATOR", "http://127.0.0.1:9");
    ran(command)
}

/// Validates a job file and expects a refusal that holds all of `words`.
fn refused(text: &str, words: &[&str]) {
    let folder = folder();
    let file = folder.path().join("job.yaml");
    std::fs::write(&file, text).expect("a file");
    let validated = unimse(&["validate", &file.display().to_string()]);
    let said = format!("{}{}", validated.out, validated.err);
    assert_eq!(validated.code, 2, "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

const JOB: &str = "name: t\nmodel: {preset: tiny}\ndata: {train: [{path: a.arrow}]}\n";

#[test]
fn a_misspelt_field_is_named_with_its_place_and_what_was_meant() {
    refused(&format!("{JOB}resources:\n  min_slot: 2\n"), &["job.yaml:5:3", "min_slot", "did you mean `min_slots`"]);
    refused(&format!("{JOB}resorces: {{slots: 2}}\n"), &["job.yaml:4:1", "resorces", "resources"]);
}

#[test]
fn a_wrong_type_is_named_with_its_value() {
    refused(&format!("{JOB}train: {{max_steps: many}}\n"), &["job.yaml:4:", "many", "max_steps"]);
}

#[test]
fn a_value_out_of_range_is_named_with_the_range() {
    refused(&format!("{JOB}train: {{max_steps: 5, global_batch: 0}}\n"), &["job.yaml:4:", "global_batch", "0"]);
    refused(&format!("{JOB}train: {{max_steps: 5, learning_rate: .nan}}\n"), &["learning_rate"]);
    refused(&format!("{JOB}resources: {{slots: 2, min_slots: 4}}\n"), &["min_slots"]);
}

#[test]
fn a_key_given_twice_is_refused() {
    refused(&format!("{JOB}name: again\n"), &["job.yaml:4:1", "name", "twice"]);
}

#[test]
fn a_yaml_bomb_is_refused_at_once() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = vec![format!("*a{}", level - 1); 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{before}]").expect("writing to a String cannot fail");
    }
    refused(&bomb, &["error"]);
    refused(&format!("name: {}x{}\n", "[".repeat(20_000), "]".repeat(20_000)), &["error"]);
}

#[test]
fn a_file_of_a_hundred_megabytes_is_refused_before_it_is_read() {
    let folder = folder();
    let file = folder.path().join("large.yaml");
    std::fs::File::create(&file).and_then(|file| file.set_len(100 << 20)).expect("a sparse file");
    let validated = unimse(&["validate", &file.display().to_string()]);
    let said = format!("{}{}", validated.out, validated.err);
    assert_eq!(validated.code, 2, "{said}");
    assert!(said.contains("large.yaml") && said.contains("MiB"), "{said}");
}

/// Imports a file and expects a refusal that holds all of `words`, and no store.
fn not_imported(folder: &Path, name: &str, bytes: &[u8], format: &str, words: &[&str]) {
    let file = folder.join(name);
    std::fs::write(&file, bytes).expect("a file");
    let out = folder.join("out.arrow");
    let source = if format == "meld" { format!("train={}", file.display()) } else { file.display().to_string() };
    let imported = unimse(&["data", "import", "--format", format, &source, "--out", &out.display().to_string()]);
    let said = format!("{}{}", imported.out, imported.err);
    assert!(imported.code == 1 || imported.code == 2 || imported.code == 3, "exit code {}: {said}", imported.code);
    for word in words {
        assert!(said.contains(word), "`{word}` is not in\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    assert!(!out.exists(), "half a store was left behind");
}

#[test]
fn hostile_and_broken_pickles_are_refused_and_nothing_runs() {
    let folder = folder();
    let canary = folder.path().join("canary");
    // cposix\nsystem\n(S'touch ...'\ntR. : what a pickle that wants to execute looks like.
    let evil = format!("cposix\nsystem\n(S'touch {}'\ntR.", canary.display());
    not_imported(folder.path(), "evil.pkl", evil.as_bytes(), "mmsa", &["evil.pkl", "posix"]);
    assert!(!canary.exists(), "the pickle was executed");
    let deep: Vec<u8> = [vec![b'('; 100_000], vec![b't'; 100_000], vec![b'.']].concat();
    not_imported(folder.path(), "deep.pkl", &deep, "mmsa", &["deep.pkl"]);
    let lists: Vec<u8> = [b"\x80\x02".to_vec(), vec![b']'; 100_000], vec![b'a'; 99_999], vec![b'.']].concat();
    not_imported(folder.path(), "lists.pkl", &lists, "mmsa", &["lists.pkl"]);
    not_imported(folder.path(), "keys.pkl", b"\x80\x02}X\x05\x00\x00\x00trainK\x01s.", "mmsa", &["keys.pkl", "train"]);
    not_imported(folder.path(), "short.pkl", b"\x80\x04\x95\xff\xff\xff\xff\x00\x00\x00\x00}", "mmsa", &["short.pkl"]);
    not_imported(folder.path(), "empty.pkl", b"", "mmsa", &["empty.pkl"]);
}

#[test]
fn a_truncated_real_pickle_is_refused() {
    let Some(data) = crate::harness::real_data() else { return };
    let bytes = std::fs::read(data.join("mosi_utterance.pkl")).expect("the release");
    let folder = folder();
    not_imported(folder.path(), "cut.pkl", &bytes[..bytes.len() / 2], "mmsa", &["cut.pkl"]);
}

#[test]
fn labels_out_of_range_and_missing_columns_are_named_with_their_row() {
    let folder = folder();
    let header =
        "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n";
    let row = |emotion: &str| format!("1,Hello there,Joey,{emotion},neutral,0,0,1,1,\"0\",\"1\"\n");
    let bad = format!("{header}{}{}", row("joy"), row("happyish").replacen("1,", "2,", 1).replace(",0,0,1", ",0,1,1"));
    not_imported(folder.path(), "meld.csv", bad.as_bytes(), "meld", &["meld.csv", "happyish"]);
    not_imported(folder.path(), "columns.csv", b"a,b\n1,2\n", "meld", &["columns.csv", "Utterance"]);
}

#[test]
fn a_dataset_that_is_missing_or_damaged_fails_the_job_with_its_name_and_without_retries() {
    let cluster = Cluster::start(Trainers::Real, &[1]);
    let damaged = cluster.write("damaged.arrow", "ARROW1 but not really");
    for path in ["/nowhere/mosi.arrow", damaged.as_str()] {
        let job = cluster.submit(&counting("data", 1, 5, "").replace("unused.arrow", path));
        let view = cluster.wait_for(&job, "fails", View::ended);
        assert_eq!((view.state.as_str(), view.restarts), ("failed", 0), "{view:?}");
        assert!(view.reason.contains(path), "{view:?}");
    }
}

#[test]
fn a_checkpoint_folder_that_cannot_be_written_is_named() {
    let cluster = Cluster::start(Trainers::Fake, &[1]);
    let blocked = cluster.write("a-file", "not a folder");
    let place = format!("checkpoint: {{uri: 'file://{blocked}/ckpt', ");
    let job = cluster.submit(&counting("blocked", 1, 100, "restart: {max: 0}\n").replace("checkpoint: {", &place));
    let view = cluster.wait_for(&job, "fails", View::ended);
    assert_eq!(view.state, "failed");
    assert!(view.reason.contains("a-file"), "{view:?}");
}

#[test]
fn a_full_disk_under_the_checkpoints_is_named_and_the_job_can_go_on_when_there_is_room() {
    let cluster = Cluster::start(Trainers::Fake, &[1]);
    let folder = cluster.path("small");
    std::fs::create_dir_all(&folder).expect("a folder");
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(&folder).output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        eprintln!("skipped: a file system of 4 MiB cannot be mounted here");
        return;
    }
    let _unmount = Unmount(folder.clone());
    let place = format!("checkpoint: {{uri: 'file://{}', ", folder.display());
    let large = counting("full", 1, 60, "restart: {max: 0}")
        .replace("checkpoint: {", &place)
        .replace("'10'", "'10', fake-bytes: '9000000'");
    let job = cluster.submit(&large);
    let view = cluster.wait_for(&job, "fails", View::ended);
    assert_eq!(view.state, "failed");
    assert!(view.reason.contains("No space left") || view.reason.contains("disk is full"), "{view:?}");
    let list = cluster.ok(&["ckpt", "ls", &job, "-o", "json"]);
    assert!(!list.contains("committed\","), "a checkpoint that is not whole was committed: {list}");
    let remounted = std::process::Command::new("mount").args(["-o", "remount,size=64m"]).arg(&folder).output();
    assert!(remounted.is_ok_and(|remounted| remounted.status.success()));
    cluster.ok(&["retry", &job]);
    cluster.completes(&job);
    cluster.ok(&["ckpt", "verify", &format!("{job}:latest")]);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_coordinator_that_is_not_there_has_an_exit_code_of_its_own() {
    for arguments in [&["ps"][..], &["show", "j-0000"], &["nodes"], &["sweep", "ls"]] {
        let asked = unimse(arguments);
        assert_eq!(asked.code, 5, "{arguments:?}: {}{}", asked.out, asked.err);
        assert!(asked.err.contains("http://127.0.0.1:9") && asked.err.contains("hint:"), "{}", asked.err);
        assert!(asked.out.is_empty());
    }
}

#[test]
fn what_does_not_exist_is_not_found() {
    let cluster = Cluster::start(Trainers::Fake, &[]);
    for arguments in [
        &["show", "j-zzzz"][..],
        &["cancel", "nobody"],
        &["logs", "j-zzzz"],
        &["sweep", "show", "s-zzzz"],
        &["drain", "moon"],
    ] {
        let asked = cluster.unimse(arguments);
        assert_eq!(asked.code, 3, "{arguments:?}: {}{}", asked.out, asked.err);
        assert!(asked.err.starts_with("error: "), "{}", asked.err);
    }
}

#[test]
fn a_trainer_without_memory_says_so_and_is_not_retried_for_ever() {
    let cluster = Cluster::start(Trainers::Fake, &[1]);
    let greedy = counting("greedy", 1, 50, "restart: {max: 1, backoff: 100ms}")
        .replace("fake-step-ms: '10'", "fake-fail: '3', fake-fail-how: memory");
    let job = cluster.submit(&greedy);
    let view = cluster.wait_for(&job, "fails", View::ended);
    assert_eq!((view.state.as_str(), view.restarts), ("failed", 2), "{view:?}");
    assert!(view.reason.contains("out of memory"), "{view:?}");
}

#[test]
fn a_sweep_of_a_thousand_million_points_is_refused_at_once() {
    let folder = folder();
    let values = (1..=1000).map(|value| value.to_string()).collect::<Vec<_>>().join(", ");
    let text = format!(
        "name: bomb\njob: {{name: t, model: {{preset: tiny}}, data: {{train: [{{path: a.arrow}}], valid: [{{path: a.arrow}}]}}}}\n\
         method: grid\nmetric: {{name: valid/score, goal: maximize}}\nparameters:\n  train.seed: {{values: [{values}]}}\n  \
         train.global_batch: {{values: [{values}]}}\n  train.evaluate_every: {{values: [{values}]}}\n"
    );
    let file = folder.path().join("sweep.yaml");
    std::fs::write(&file, text).expect("a file");
    let validated = unimse(&["validate", &file.display().to_string()]);
    assert_eq!(validated.code, 2);
    assert!(
        validated.err.contains("1000000000") || validated.out.contains("1000000000"),
        "{}{}",
        validated.out,
        validated.err
    );
}
