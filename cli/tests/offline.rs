//! Commands that need no coordinator, run as people run them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const JOB: &str = "name: t\nmodel: {preset: tiny}\ndata: {train: [{path: a.arrow}]}\n";

/// Runs `unimse` in a folder, without anything of this machine's environment that could decide.
fn unimse(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unimse"));
    command.current_dir(folder).args(arguments).env_remove("UNIMSE_COORDINATOR").env_remove("UNIMSE_LOG");
    command.output().expect("the program was built for this test")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("stdout is not JSON ({error}): {}\n{}", stdout(output), stderr(output));
    });
    assert_eq!(value["schema_version"], 1, "every document says its version");
    value
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a scratch folder")
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the scratch folder can be written");
    path
}

#[test]
fn a_valid_job_is_summed_up_on_stdout() {
    let folder = scratch();
    write(folder.path(), "job.yaml", JOB);
    let output = unimse(folder.path(), &["validate", "job.yaml"]);
    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
    assert!(stdout(&output).starts_with("job.yaml: valid job t: "), "{}", stdout(&output));
}

#[test]
fn a_typing_error_is_shown_at_its_place_with_exit_code_2() {
    let folder = scratch();
    write(folder.path(), "job.yaml", &format!("{JOB}resources:\n  min_slot: 2\n"));
    let output = unimse(folder.path(), &["validate", "job.yaml"]);
    assert_eq!((code(&output), stdout(&output)), (2, String::new()));
    let text = stderr(&output);
    for part in ["error[E0103]: unknown field `min_slot`", "--> job.yaml:5:3", "did you mean `min_slots`?"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    assert!(!text.contains('\u{1b}'), "no colour in a pipe");
    let value = json(&unimse(folder.path(), &["validate", "job.yaml", "-o", "json"]));
    assert_eq!(value["files"][0]["valid"], false);
    assert_eq!(value["files"][0]["diagnostics"][0]["code"], "E0103");
    assert_eq!(value["files"][0]["diagnostics"][0]["place"]["line"], 5);
}

#[test]
fn all_files_are_checked_and_one_bad_one_decides() {
    let folder = scratch();
    write(folder.path(), "bad.yaml", "nmae: x\n");
    write(folder.path(), "good.yaml", JOB);
    let output = unimse(folder.path(), &["validate", "bad.yaml", "good.yaml", "missing.yaml"]);
    assert_eq!(code(&output), 2);
    assert!(stdout(&output).contains("good.yaml: valid job t"), "{}", stdout(&output));
    assert!(stderr(&output).contains("cannot read missing.yaml"), "{}", stderr(&output));
}

#[test]
fn a_sweep_finds_its_job_beside_it_and_can_be_previewed() {
    let folder = scratch();
    std::fs::create_dir(folder.path().join("sub")).expect("a folder");
    write(folder.path(), "sub/job.yaml", &JOB.replace("]}", "], valid: [{path: a.arrow}]}"));
    let sweep = "name: s\njob: ./job.yaml\nmethod: grid\nmetric: {name: valid/mae, goal: minimize}\n\
                 parameters:\n  train.seed: {values: [1, 2, 3]}\nmax_trials: 3\n";
    write(folder.path(), "sub/sweep.yaml", sweep);
    let output = unimse(folder.path(), &["validate", "sub/sweep.yaml"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("valid sweep s: 3 trials by grid"), "{}", stdout(&output));
    let preview = unimse(folder.path(), &["sweep", "run", "sub/sweep.yaml", "--preview"]);
    assert_eq!(stdout(&preview), "TRIAL  TRAIN.SEED\n    0           1\n    1           2\n    2           3\n");
    let value = json(&unimse(folder.path(), &["sweep", "run", "sub/sweep.yaml", "--preview", "-o", "json"]));
    assert_eq!(value["trials_total"], 3);
    assert_eq!(value["trials"][2]["parameters"]["train.seed"], 3);
}

#[test]
fn a_file_of_100_mb_is_refused_at_once() {
    let folder = scratch();
    let file = std::fs::File::create(folder.path().join("huge.yaml")).expect("a file");
    file.set_len(100_000_000).expect("a sparse file");
    let output = unimse(folder.path(), &["submit", "huge.yaml"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("too large for a job or sweep file: 95.4 MiB"), "{}", stderr(&output));
    assert!(stderr(&output).contains("\nhint: "), "{}", stderr(&output));
}

#[test]
fn an_unreachable_coordinator_is_exit_code_5_with_the_address_and_a_hint() {
    let folder = scratch();
    write(folder.path(), "job.yaml", JOB);
    for arguments in [
        &["ps"][..],
        &["show", "@last"],
        &["logs", "-f", "j-0000"],
        &["wait", "j-0000"],
        &["submit", "job.yaml"],
        &["cancel", "x"],
        &["ckpt", "ls", "x"],
        &["sweep", "ls"],
        &["nodes", "-w"],
        &["drain", "lab1"],
        &["metrics", "x", "-o", "csv"],
        &["explain", "x"],
    ] {
        let mut line = vec!["--coordinator", "http://127.0.0.1:1"];
        line.extend(arguments);
        let output = unimse(folder.path(), &line);
        assert_eq!((code(&output), stdout(&output)), (5, String::new()), "{arguments:?}: {}", stderr(&output));
        let text = stderr(&output);
        assert!(text.starts_with("error: no coordinator answers at http://127.0.0.1:1: "), "{arguments:?}: {text}");
        assert!(text.contains("\nhint: start one with `unimse up`"), "{arguments:?}: {text}");
    }
}

#[test]
fn a_dry_run_validates_without_a_coordinator() {
    let folder = scratch();
    write(folder.path(), "job.yaml", JOB);
    let line = [
        "--coordinator",
        "127.0.0.1:1",
        "submit",
        "job.yaml",
        "--dry-run",
        "-n",
        "7",
        "--set",
        "train.seed=9",
        "-o",
        "json",
    ];
    let output = unimse(folder.path(), &line);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let value = json(&output);
    assert_eq!((&value["spec"]["name"], &value["spec"]["train"]["seed"]), (&"7".into(), &9.into()));
    assert!(stderr(&output).contains("not checked against a cluster"), "{}", stderr(&output));
}

#[test]
fn a_bad_set_is_told_before_anything_is_sent() {
    let folder = scratch();
    write(folder.path(), "job.yaml", JOB);
    let output =
        unimse(folder.path(), &["--coordinator", "127.0.0.1:1", "submit", "job.yaml", "--set", "train.sede=9"]);
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("did you mean `seed`?") || stderr(&output).contains("train.seed"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn schemas_are_draft_07_json() {
    let folder = scratch();
    for kind in ["job", "sweep"] {
        let output = unimse(folder.path(), &["schema", kind]);
        let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(value["$schema"].as_str().is_some_and(|text| text.contains("draft-07")), "{value}");
        assert_eq!(value["additionalProperties"], false);
    }
}

#[test]
fn samples_are_made_inspected_and_checked() {
    let folder = scratch();
    let made =
        unimse(folder.path(), &["data", "sample", "--out", "data", "--train", "20", "--valid", "5", "--test", "5"]);
    assert_eq!(code(&made), 0, "{}", stderr(&made));
    assert_eq!(stdout(&made), "data/sample-sentiment.arrow\ndata/sample-emotion.arrow\n");
    let again = unimse(folder.path(), &["data", "sample", "--out", "data"]);
    assert_eq!(code(&again), 1, "stores are not replaced by accident");
    assert!(stderr(&again).contains("--force"), "{}", stderr(&again));

    let value = json(&unimse(folder.path(), &["data", "inspect", "data/sample-sentiment.arrow", "-o", "json"]));
    assert_eq!(value["store"]["metadata"]["counts"]["train"], 20);
    let checked = unimse(folder.path(), &["data", "check", "data/sample-sentiment.arrow", "data/sample-emotion.arrow"]);
    assert_eq!((code(&checked), stdout(&checked).lines().count()), (0, 2), "{}", stderr(&checked));

    // One flipped bit is found, and is a failure to scripts.
    let path = folder.path().join("data/sample-emotion.arrow");
    let mut bytes = std::fs::read(&path).expect("it was just made");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("it can be written");
    let damaged = unimse(folder.path(), &["data", "check", "data/sample-emotion.arrow"]);
    assert_eq!(code(&damaged), 1, "{}{}", stdout(&damaged), stderr(&damaged));
}

#[test]
#[expect(clippy::print_stderr, reason = "whoever runs the tests should see that this one had nothing to do")]
fn a_real_release_is_imported_by_a_child_process() {
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let meld = real.join("meld_train_sent_emo.csv");
    let mosi = real.join("mosi_utterance.pkl");
    if !meld.exists() || !mosi.exists() {
        eprintln!("skipped: no real data");
        return;
    }
    let folder = scratch();
    let (meld, mosi) = (meld.display().to_string(), mosi.display().to_string());
    let value = json(&unimse(folder.path(), &["data", "import", &mosi, "--out", "mosi.arrow", "-o", "json"]));
    assert_eq!(value["import"]["format"], "mmsa");
    assert!(value["import"]["splits"]["train"]["samples"].as_u64().is_some_and(|samples| samples > 1000), "{value}");
    let output = unimse(folder.path(), &["data", "import", &format!("train={meld}"), "--out", "meld.arrow"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("meld"), "{}", stdout(&output));
    let missing = unimse(folder.path(), &["data", "import", "nowhere.pkl", "--out", "x.arrow"]);
    assert_eq!(code(&missing), 3, "{}", stderr(&missing));
}

#[test]
fn a_pickle_that_wants_code_to_run_is_refused_and_runs_nothing() {
    let folder = scratch();
    // c os\nsystem\n(S'touch pwned'\ntR.
    std::fs::write(folder.path().join("evil.pkl"), b"cos\nsystem\n(S'touch pwned'\ntR.").expect("it can be written");
    let output = unimse(folder.path(), &["data", "import", "--format", "mmsa", "evil.pkl", "--out", "x.arrow"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).starts_with("error: evil.pkl"), "{}", stderr(&output));
    assert!(!folder.path().join("pwned").exists() && !folder.path().join("x.arrow").exists());
}

#[test]
fn error_codes_are_explained_without_a_coordinator() {
    let output = unimse(&std::env::temp_dir(), &["explain", "e0103"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).starts_with("E0103: The field does not exist."), "{}", stdout(&output));
}

#[test]
fn usage_errors_are_exit_code_2_and_help_is_0() {
    let folder = scratch();
    let wrong = unimse(folder.path(), &["pss"]);
    assert_eq!(code(&wrong), 2);
    assert!(stderr(&wrong).contains("ps"), "{}", stderr(&wrong));
    assert_eq!(code(&unimse(folder.path(), &["--help"])), 0);
    let codes = unimse(folder.path(), &["help", "exit-codes"]);
    assert!(stdout(&codes).starts_with("  0  done\n  1  "), "{}", stdout(&codes));
    for shell in ["bash", "zsh", "fish"] {
        let output = unimse(folder.path(), &["completions", shell]);
        assert!(code(&output) == 0 && stdout(&output).contains("submit"), "{shell}");
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let script =
        format!("{} schema job | head -c 10 > /dev/null; exit ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_unimse"));
    let output = Command::new("bash").args(["-c", &script]).output().expect("bash is there");
    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
}

#[test]
fn a_worker_that_does_not_load_is_our_error_with_a_hint() {
    use std::os::unix::fs::PermissionsExt;
    let folder = scratch();
    let fake = write(
        folder.path(),
        "unimse-worker",
        "#!/bin/sh\necho \"$0: error while loading shared libraries: libtorch_cpu.so: cannot open shared object file\" >&2\nexit 127\n",
    );
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut command = Command::new(env!("CARGO_BIN_EXE_unimse"));
    command.args(["predict", ".", "--text", "fine"]).current_dir(folder.path());
    command.env("UNIMSE_WORKER", &fake).env("PATH", folder.path()).env_remove("LIBTORCH").env_remove("UNIMSE_LIBTORCH");
    let output = command.output().expect("it starts");
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    assert!(
        stderr(&output)
            .starts_with("error: unimse-worker cannot start: libtorch is not found (libtorch_cpu.so)\nhint: "),
        "{}",
        stderr(&output)
    );
    assert!(!stderr(&output).contains("error while loading"), "{}", stderr(&output));
}

#[test]
fn a_worker_that_is_not_there_is_exit_code_3() {
    let output = Command::new(env!("CARGO_BIN_EXE_unimse"))
        .args(["worker", "--help"])
        .env("UNIMSE_WORKER", "/no/such/program")
        .output()
        .expect("it starts");
    assert_eq!(code(&output), 3);
    assert!(stderr(&output).contains("UNIMSE_WORKER"), "{}", stderr(&output));
}
