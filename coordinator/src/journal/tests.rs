//! One conformance suite for every journal, and what only a file can suffer.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rusqlite::Connection;
use unimse_core::id::{Generation, JobId, Rank, Step, WorkerId};
use unimse_core::job::{ExitCause, Readiness};
use unimse_core::machine::{Report, ReportKind, Submission};
use unimse_core::spec::{JobSpec, parse_job};
use unimse_core::worker::{Slot, WorkerInfo};

use super::*;

fn spec(slots: u32, min: u32) -> Arc<JobSpec> {
    let text = format!(
        "name: t\nmodel: {{preset: tiny}}\ndata: {{train: [{{path: a.arrow}}]}}\ntrain: {{max_steps: 50, global_batch: 8}}\n\
         resources: {{slots: {slots}, min_slots: {min}}}"
    );
    Arc::new(parse_job(&text, "test").unwrap())
}

fn submit(key: &str) -> Event {
    Event::Submit(Submission { key: Some(key.to_owned()), spec: spec(2, 1), checkpoint_uri: "memory://".to_owned() })
}

fn turn(at: u64, events: &[Event]) -> Turn {
    Turn { at: Timestamp(at), events: events.iter().map(Encoded::event).collect() }
}

/// Runs a check on each kind of journal; `open` gives another view of the same one, as a restart does.
fn each(check: impl Fn(&mut dyn FnMut() -> Box<dyn Journal>)) {
    let memory = MemoryJournal::default();
    check(&mut || Box::new(memory.clone()));
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("journal.db");
    check(&mut || Box::new(SqliteJournal::open(&place).unwrap()));
}

#[test]
fn what_was_appended_comes_back_in_order() {
    each(|open| {
        let turns = [turn(5, &[submit("a"), submit("b")]), turn(9, &[Event::Wake])];
        let mut journal = open();
        for turn in &turns {
            journal.append(turn).unwrap();
        }
        drop(journal);
        let loaded = open().load().unwrap();
        assert_eq!(loaded.turns, [(Timestamp(5), vec![submit("a"), submit("b")]), (Timestamp(9), vec![Event::Wake])]);
    });
}

#[test]
fn a_snapshot_stands_for_all_turns_before_it() {
    each(|open| {
        let mut journal = open();
        journal.append(&turn(1, &[submit("a")])).unwrap();
        let (machine, _) = journal.load().unwrap().replay();
        journal.snapshot(&serde_json::to_vec(machine.state()).unwrap()).unwrap();
        journal.append(&turn(2, &[submit("b")])).unwrap();
        drop(journal);
        let mut journal = open();
        let loaded = journal.load().unwrap();
        assert_eq!(loaded.turns.len(), 1);
        let (machine, newest) = loaded.replay();
        assert_eq!((machine.state().jobs.len(), newest), (2, Timestamp(2)));
        journal.append(&turn(3, &[submit("c")])).unwrap();
        drop(journal);
        assert_eq!(open().load().unwrap().replay().0.state().jobs.len(), 3);
    });
}

#[test]
fn the_cluster_stays_and_the_epoch_grows() {
    each(|open| {
        let first = open().claim("one").unwrap();
        let second = open().claim("two").unwrap();
        assert_eq!(first, Identity { cluster: "one".to_owned(), epoch: 1 });
        assert_eq!(second, Identity { cluster: "one".to_owned(), epoch: 2 });
    });
}

#[test]
fn an_empty_journal_is_an_empty_state() {
    each(|open| {
        let (machine, newest) = open().load().unwrap().replay();
        assert_eq!((machine.state(), newest), (&State::default(), Timestamp(0)));
        open().probe().unwrap();
    });
}

/// Draws requests and reports of every kind, sensible and not.
fn random_event(rng: &mut ChaCha8Rng, seq: &mut u64) -> Event {
    let job = JobId(rng.random_range(0..6));
    let worker = WorkerId(rng.random_range(0..4));
    let generation = Generation(rng.random_range(0..4));
    let rank = Rank(rng.random_range(0..3));
    let step = Step(rng.random_range(0..50));
    let kind = match rng.random_range(0..6) {
        0 | 1 => ReportKind::Ready(Readiness { address: "h:1".to_owned(), nccl_id: None, holds: Some(step) }),
        2 => ReportKind::Evaluated { step, metrics: [("valid/score".to_owned(), rng.random())].into() },
        3 => ReportKind::PeerLost { step, detail: "gone".to_owned() },
        4 => ReportKind::Finished { step },
        _ => {
            let cause = ExitCause::Failed { code: 1, message: "x".to_owned() };
            ReportKind::Exited { cause, step: Some(step) }
        }
    };
    match rng.random_range(0..12) {
        0 | 1 => Event::Submit(Submission {
            key: (rng.random_range(0..2) == 0).then(|| format!("k{}", rng.random_range(0..5))),
            spec: spec(rng.random_range(1..4), 1),
            checkpoint_uri: "memory://".to_owned(),
        }),
        2 => Event::Cancel { job },
        3 => Event::Pause { job },
        4 => Event::Resume { job, from: None, spec: None },
        5 => Event::Retry { job },
        6 => Event::Wake,
        7 => Event::WorkerLost { worker, reason: "silent".to_owned() },
        8 => {
            let node = format!("n{}", rng.random_range(0..3));
            let incarnation = format!("{node}-{}", rng.random_range(0..3));
            let slots = vec![Slot::Cpu { threads: 1 }; rng.random_range(1..4)];
            let info = WorkerInfo { node, incarnation, host: "h".to_owned(), slots, version: "0".to_owned() };
            Event::Register { info, trainers: Vec::new() }
        }
        _ => {
            *seq += 1;
            Event::Report { worker, seq: *seq, report: Report { job, generation, rank, kind } }
        }
    }
}

#[test]
fn replay_leads_to_the_very_same_state() {
    let mut running = 0;
    for seed in 0..40 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("journal.db");
        let mut journal = SqliteJournal::open(&place).unwrap();
        let mut machine = Machine::default();
        let (mut now, mut seq) = (1000, 0);
        for _ in 0..60 {
            now += rng.random_range(0..20_000);
            let events: Vec<Event> = (0..rng.random_range(1..4)).map(|_| random_event(&mut rng, &mut seq)).collect();
            // As the loop does it: what is refused is not written.
            let accepted: Vec<Event> =
                events.into_iter().filter(|event| machine.step(Timestamp(now), event.clone()).answer.is_ok()).collect();
            if !accepted.is_empty() {
                journal.append(&turn(now, &accepted)).unwrap();
            }
            if rng.random_range(0..15) == 0 {
                journal.snapshot(&serde_json::to_vec(machine.state()).unwrap()).unwrap();
            }
        }
        drop(journal);
        let (replayed, _) = SqliteJournal::open(&place).unwrap().load().unwrap().replay();
        assert_eq!(replayed.state(), machine.state(), "seed {seed}");
        running += machine.state().jobs.values().filter(|job| job.generation > Generation(0)).count();
    }
    assert!(running > 40, "the storm never reaches deep water: {running} jobs got slots");
}

fn filled(place: &Path) {
    let mut journal = SqliteJournal::open(place).unwrap();
    journal.append(&turn(1, &[submit("a")])).unwrap();
    let (machine, _) = journal.load().unwrap().replay();
    journal.snapshot(&serde_json::to_vec(machine.state()).unwrap()).unwrap();
    for at in 2..6 {
        journal.append(&turn(at, &[submit(&at.to_string())])).unwrap();
    }
}

#[test]
fn a_damaged_or_missing_row_is_refused_with_its_number() {
    for (damage, what) in [
        ("UPDATE turns SET events = replace(events, 'tiny', 'base') WHERE seq = 3", "turn 3 does not match its digest"),
        ("UPDATE turns SET at = at + 1 WHERE seq = 4", "turn 4 does not match its digest"),
        ("DELETE FROM turns WHERE seq = 3", "turn 3 is missing"),
        ("UPDATE snapshot SET state = '{}'", "the snapshot after turn 1 does not match its digest"),
        ("UPDATE snapshot SET state = CAST('{}' AS BLOB)", "the snapshot after turn 1 does not match its digest"),
        ("DELETE FROM snapshot", "turn 1 is missing"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("journal.db");
        filled(&place);
        // STRICT tables refuse text in a blob; what writes past them may not.
        let connection = Connection::open(&place).unwrap();
        let damage = damage
            .replace("replace(events, 'tiny', 'base')", "CAST(replace(CAST(events AS TEXT), 'tiny', 'base') AS BLOB)");
        if connection.execute(&damage, []).is_err() {
            continue;
        }
        drop(connection);
        let error = SqliteJournal::open(&place).unwrap().load().unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Damaged { .. }), "{damage}: {error:?}");
        assert!(text.contains(what) && text.contains("hint: restore"), "{damage}: {text}");
    }
}

#[test]
fn flipped_bits_in_the_file_never_come_back_as_another_state() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("journal.db");
    filled(&place);
    // Folds the log into the file, so that the flips hit what is read.
    Connection::open(&place).unwrap().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let bytes = std::fs::read(&place).unwrap();
    let (sound, _) = SqliteJournal::open(&place).unwrap().load().unwrap().replay();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut refused = 0;
    for round in 0..200 {
        let mut damaged = bytes.clone();
        for _ in 0..3 {
            let at = rng.random_range(0..damaged.len());
            damaged[at] ^= 1 << rng.random_range(0..8);
        }
        let copy = folder.path().join(format!("{round}.db"));
        std::fs::write(&copy, damaged).unwrap();
        match SqliteJournal::open(&copy).and_then(|mut journal| journal.load()) {
            Ok(loaded) => assert_eq!(loaded.replay().0.state(), sound.state(), "round {round}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 20, "only {refused} of 200 flips hit anything");
}

#[test]
fn a_newer_journal_and_a_file_of_somebody_else_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("journal.db");
    filled(&place);
    Connection::open(&place).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = SqliteJournal::open(&place).unwrap_err();
    assert!(matches!(error, Error::Newer { found: 99, .. }), "{error:?}");

    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a database at all, but long enough to be read as one".repeat(100)).unwrap();
    let error = SqliteJournal::open(&text).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
}

/// A file system of 1 MiB, where the user may mount one.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder.path()).output();
        mount.is_ok_and(|done| done.status.success()).then_some(Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_loses_nothing_and_hinders_nothing_once_there_is_room() {
    let Some(small) = Small::mount() else {
        eprintln!("skipped: mounting a small tmpfs is not permitted");
        return;
    };
    let place = small.0.path().join("journal.db");
    let mut journal = SqliteJournal::open(&place).unwrap();
    let ballast = small.0.path().join("ballast");
    let mut acknowledged = 0;
    let full = loop {
        match journal.append(&turn(acknowledged, &[submit(&acknowledged.to_string())])) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
        if acknowledged == 10 {
            // Takes what is left but for a few rows.
            let room = vec![0; 1 << 20];
            let _as_much_as_fits = std::fs::write(&ballast, &room[..400 << 10]);
        }
        assert!(acknowledged < 10_000, "the disk is never full");
    };
    assert!(matches!(full, Error::Full(_)), "{full:?}");
    assert!(matches!(journal.probe(), Err(Error::Full(_))));
    assert_eq!(journal.load().unwrap().turns.len() as u64, acknowledged);
    std::fs::remove_file(&ballast).unwrap();
    journal.probe().unwrap();
    journal.append(&turn(acknowledged, &[submit("after")])).unwrap();
    drop(journal);
    let loaded = SqliteJournal::open(&place).unwrap().load().unwrap();
    assert_eq!(loaded.turns.len() as u64, acknowledged + 1);
}
