//! Imports in a process of their own: the same results, the same errors, and files that kill only the child.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::path::{Path, PathBuf};

use unimse_data::Error;
use unimse_data::import::{ImportOptions, import};
use unimse_data::read::Source;
use unimse_data::read::isolated::{Bounds, Isolation, child, import_isolated};

/// Not a test: what the tests below start in a new process. Without a request on stdin it does nothing.
#[test]
#[ignore = "the child process of other tests"]
fn child_process() {
    let _ = child(std::io::stdin(), std::io::stdout());
}

fn isolation(bounds: Bounds) -> Isolation {
    let arguments = ["--ignored", "--exact", "child_process", "--nocapture", "--quiet"];
    Isolation {
        program: std::env::current_exe().unwrap(),
        arguments: arguments.into_iter().map(Into::into).collect(),
        bounds,
    }
}

fn fixture(name: &str) -> Source {
    Source::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name))
}

fn run(source: Source, bounds: Bounds, out: &Path) -> Result<unimse_data::import::Report, Error> {
    import_isolated(&isolation(bounds), &[source], None, &ImportOptions::default(), out)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_child_makes_the_same_store_and_the_same_report() {
    let folder = tempfile::tempdir().unwrap();
    let (near, far) = (folder.path().join("near/set.arrow"), folder.path().join("far/set.arrow"));
    for path in [&near, &far] {
        std::fs::create_dir(path.parent().unwrap()).unwrap();
    }
    let source = fixture("mmsa_p5.pkl");
    let mut here = import(std::slice::from_ref(&source), None, &ImportOptions::default(), &near).unwrap();
    let there = run(source, Bounds::default(), &far).unwrap();
    here.store.clone_from(&far);
    assert_eq!(here, there);
    assert_eq!(std::fs::read(near).unwrap(), std::fs::read(far).unwrap());
}

#[test]
fn a_child_tells_errors_in_the_same_words() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("set.arrow");
    let source = fixture("arrays_p3.pkl");
    let here = import(std::slice::from_ref(&source), None, &ImportOptions::default(), &out).unwrap_err();
    let there = run(source, Bounds::default(), &out).unwrap_err();
    assert_eq!(here.to_string(), there.to_string());
    assert!(files(folder.path()).is_empty());
}

#[test]
fn a_file_that_asks_for_too_much_memory_kills_only_the_child() {
    let folder = tempfile::tempdir().unwrap();
    let bomb = folder.path().join("bomb.pkl");
    // Twenty million values, each of them one byte in the file.
    std::fs::write(&bomb, [b"\x80\x04(".to_vec(), vec![b'N'; 20_000_000], b"t.".to_vec()].concat()).unwrap();
    let bounds = Bounds { memory: 400 << 20, ..Bounds::default() };
    let error = run(Source::new(&bomb), bounds, &folder.path().join("set.arrow")).unwrap_err();
    assert!(matches!(error, Error::ReaderDied { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("bomb.pkl: malformed file: the process that read it gave up"), "{error}");
    assert_eq!(files(folder.path()), [bomb]);
}

#[test]
fn a_child_that_may_not_write_any_more_leaves_no_half_store() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds { file: 66_000, ..Bounds::default() };
    let error = run(fixture("mmsa_p5.pkl"), bounds, &folder.path().join("set.arrow")).unwrap_err();
    assert!(matches!(error, Error::ReaderDied { .. }), "{error}");
    assert!(error.to_string().contains("wrote more than 66000 bytes"), "{error}");
    assert!(files(folder.path()).is_empty());
}

#[test]
fn a_program_that_does_not_answer_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let silent = Isolation { program: "true".into(), arguments: vec![], bounds: Bounds::default() };
    let out = folder.path().join("set.arrow");
    let error = import_isolated(&silent, &[fixture("mmsa_p5.pkl")], None, &ImportOptions::default(), &out).unwrap_err();
    assert!(error.to_string().contains("ended with exit code 0 and no answer"), "{error}");
    let absent = Isolation { program: "no-such-program".into(), ..silent };
    let error = import_isolated(&absent, &[fixture("mmsa_p5.pkl")], None, &ImportOptions::default(), &out).unwrap_err();
    assert!(error.to_string().starts_with("cannot start no-such-program: "), "{error}");
}
