use std::collections::BTreeMap;

use unimse_core::view::Progress;
use unimse_proto::session::StepRecord;

use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("telemetry.db")).unwrap();
    (folder, store)
}

fn steps(generation: u64, range: std::ops::Range<u64>, loss: f64) -> Write {
    let record = |step: u64| StepRecord {
        step: Step(step),
        at: Timestamp(step * 10),
        digest: format!("{generation:08x}{step:08x}"),
        values: BTreeMap::from([("train/loss".to_owned(), loss), ("train/lr".to_owned(), 0.1)]),
    };
    Write::Steps(Steps {
        job: JobId(7),
        generation: Generation(generation),
        rank: Rank(0),
        progress: Progress::default(),
        records: range.map(record).collect(),
    })
}

fn logs(generation: u64, rank: u32, numbers: std::ops::Range<u64>, text: &str) -> Write {
    let line = |number| LogLine { number, at: Timestamp(number), level: "info".to_owned(), text: text.to_owned() };
    Write::Logs(Logs {
        job: JobId(7),
        generation: Generation(generation),
        rank: Rank(rank),
        lines: numbers.map(line).collect(),
    })
}

fn query(names: &[&str], since: u64) -> MetricQuery {
    MetricQuery { names: names.iter().map(|&name| name.to_owned()).collect(), since: Step(since), max_points: None }
}

#[test]
fn the_newest_generation_wins_each_step_and_repeating_changes_nothing() {
    let (_folder, mut store) = store();
    let writes = [steps(1, 0..10, 1.0), steps(2, 5..8, 2.0), steps(1, 0..10, 1.0)];
    store.write(writes.iter()).unwrap();
    store.write(writes.iter()).unwrap();
    let loss = store.metrics(JobId(7), &query(&["train/loss"], 0)).unwrap();
    let values: Vec<f64> = loss.iter().map(|point| point.value).collect();
    assert_eq!(values, [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 1.0, 1.0]);
    let digests = store.digests(JobId(7)).unwrap();
    assert_eq!(digests[5], (Step(5), "0000000200000005".to_owned()));
    assert_eq!(digests.len(), 10);
}

#[test]
fn curves_are_found_by_name_beginning_and_step() {
    let (_folder, mut store) = store();
    store.write([steps(1, 0..10, f64::NAN)].iter()).unwrap();
    let count = |names: &[&str], since| store.metrics(JobId(7), &query(names, since)).unwrap().len();
    assert_eq!(count(&["train/loss"], 0), 10);
    assert_eq!(count(&["train/"], 8), 4);
    assert_eq!(count(&[], 0), 20);
    assert_eq!(count(&["train"], 0), 0, "only a name that ends with / is a beginning");
    assert_eq!(count(&["valid/"], 0), 0);
    assert!(store.metrics(JobId(7), &query(&["train/loss"], 9)).unwrap()[0].value.is_nan());
    assert!(store.metrics(JobId(8), &query(&[], 0)).unwrap().is_empty());
}

#[test]
fn names_are_known_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("telemetry.db");
    let mut store = Store::open(&place).unwrap();
    store.write([steps(1, 0..1, 1.0)].iter()).unwrap();
    store.close();
    let mut store = Store::open(&place).unwrap();
    store.write([steps(1, 1..2, 1.0)].iter()).unwrap();
    assert_eq!(store.metrics(JobId(7), &query(&["train/loss"], 0)).unwrap().len(), 2);
}

#[test]
fn a_log_is_read_in_pages_of_one_or_all_ranks() {
    let (_folder, mut store) = store();
    store.write([logs(1, 0, 0..5, "a"), logs(1, 1, 0..5, "b"), logs(1, 0, 3..8, "again")].iter()).unwrap();
    let all = store.log(JobId(7), None, 0, 100, 1 << 20).unwrap();
    assert_eq!(all.len(), 13, "the repeated lines 3 and 4 count once");
    assert!(all.is_sorted_by_key(|entry| entry.offset));
    let first = store.log(JobId(7), Some(Rank(0)), 0, 3, 1 << 20).unwrap();
    let rest = store.log(JobId(7), Some(Rank(0)), first[2].offset + 1, 100, 1 << 20).unwrap();
    assert_eq!((first.len(), rest.len()), (3, 5));
    let small = store.log(JobId(7), None, 0, 100, 2).unwrap();
    assert_eq!(small.len(), 2, "a page is bounded in bytes too");
    assert!(store.log(JobId(7), None, u64::MAX, 10, 10).unwrap().is_empty());
}

#[test]
fn a_line_without_end_is_cut_at_a_letter() {
    let (_folder, mut store) = store();
    store.write([logs(1, 0, 0..1, &"€".repeat(100_000))].iter()).unwrap();
    let line = &store.log(JobId(7), None, 0, 1, 1).unwrap()[0].line.text;
    assert!(line.len() <= LONGEST_LINE && line.len() > LONGEST_LINE - 4);
}
