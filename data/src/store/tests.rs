use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::writer::Encoder;
use super::*;
use crate::error::Error;
use crate::schema::{Donor, Features, Labels, Polarity, Provenance, Sample, Split, Task, Vocabulary};

fn new_store(name: &str) -> NewStore {
    NewStore {
        name: name.to_owned(),
        task: Task::Emotion,
        vocabularies: vec![Vocabulary::meld()],
        source: Provenance { format: "test".to_owned(), ..Provenance::default() },
    }
}

fn sample(id: &str, split: Split) -> Sample {
    Sample {
        id: id.to_owned(),
        split,
        text: format!("words of {id}"),
        context: None,
        speaker: None,
        dialogue: None,
        turn: None,
        labels: Labels::default(),
        acoustic: None,
        visual: None,
    }
}

fn features(frames: usize, dim: usize) -> Option<Features> {
    Features::try_new(frames, dim, (0..frames * dim).map(|value| value as f32 + 0.5).collect())
}

fn write(samples: &[Sample]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.arrow");
    let mut writer = StoreWriter::create(&path, new_store("set"), false).unwrap();
    for sample in samples {
        writer.push(sample).unwrap();
    }
    writer.finish().unwrap();
    (folder, path)
}

fn read(path: &std::path::Path) -> Vec<Sample> {
    let store = Store::open(path).unwrap();
    (0..store.len()).map(|row| store.sample(row).unwrap()).collect()
}

fn several() -> Vec<Sample> {
    let full = Sample {
        context: Some("before </s> now </s>".to_owned()),
        speaker: Some("Ann".to_owned()),
        dialogue: Some("3".to_owned()),
        turn: Some(7),
        labels: Labels {
            polarity: Some(Polarity::Positive),
            score: Some(-2.6),
            emotions: BTreeMap::from([("meld".to_owned(), "joy".to_owned())]),
            filled: BTreeMap::from([("meld".to_owned(), Donor { from: "meld/dia0_utt3".to_owned(), similarity: 0.5 })]),
        },
        acoustic: features(3, 5),
        visual: features(1, 2),
        ..sample("full", Split::Valid)
    };
    let late = Sample { acoustic: features(2, 5), ..sample("late", Split::Train) };
    vec![sample("bare", Split::Train), full, late, sample("bare", Split::Test)]
}

#[test]
fn what_is_written_is_read() {
    let (_folder, path) = write(&several());
    assert_eq!(read(&path), several());
    let store = Store::open(&path).unwrap();
    assert_eq!(store.rows(Split::Train), [0, 2]);
    assert_eq!((store.metadata().counts.train, store.metadata().counts.total()), (2, 4));
    assert_eq!((store.metadata().acoustic_dim, store.metadata().visual_dim), (Some(5), Some(2)));
    assert_eq!((store.source_text(1), store.text(1)), ("before </s> now </s>", "words of full"));
    assert_eq!(store.frames(1), (Some(3), Some(1)));
    assert_eq!(store.labels(1), several()[1].labels);
    let check = Store::check(&path).unwrap();
    assert!(check.is_ok(), "{check}");
    assert_eq!(check.samples, 4);
}

#[test]
fn a_store_without_samples_can_be_opened() {
    let (_folder, path) = write(&[]);
    assert!(Store::open(&path).unwrap().is_empty());
    assert!(Store::check(&path).unwrap().is_ok());
}

#[test]
fn many_batches_read_like_one() {
    let samples: Vec<Sample> = (0..2500)
        .map(|index| Sample {
            acoustic: if index % 3 == 0 { None } else { features(index % 7 + 1, 4) },
            ..sample(&format!("s{index}"), Split::ALL[index % 3])
        })
        .collect();
    let (_folder, path) = write(&samples);
    assert_eq!(read(&path), samples);
    assert!(Store::check(&path).unwrap().is_ok());
}

#[test]
fn equal_samples_make_equal_files() {
    let (_first, one) = write(&several());
    let (_second, two) = write(&several());
    assert_eq!(fs::read(one).unwrap(), fs::read(two).unwrap());
}

#[test]
fn samples_that_break_a_rule_are_refused_and_leave_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.arrow");
    let mut writer = StoreWriter::create(&path, new_store("set"), false).unwrap();
    writer.push(&Sample { acoustic: features(2, 5), ..sample("a", Split::Train) }).unwrap();
    let mut refused = |sample: Sample| match writer.push(&sample).unwrap_err() {
        Error::Invalid { problem, .. } => problem,
        other => panic!("{other}"),
    };
    let with_labels = |labels: Labels| Sample { labels, ..sample("b", Split::Train) };
    let emotion = |class: &str| BTreeMap::from([("meld".to_owned(), class.to_owned())]);
    assert_eq!(refused(sample("a", Split::Train)), "the id appears twice in split `train`");
    assert_eq!(refused(sample("", Split::Train)), "the id is empty");
    assert_eq!(
        refused(Sample { acoustic: features(2, 6), ..sample("b", Split::Train) }),
        "acoustic vectors have 6 values, those of earlier samples 5"
    );
    let nan = Features::try_new(1, 5, vec![0., 0., f32::NAN, 0., 0.]);
    assert_eq!(refused(Sample { acoustic: nan, ..sample("b", Split::Train) }), "acoustic value 2 is NaN");
    let score = |score| Labels { score: Some(score), ..Labels::default() };
    assert_eq!(refused(with_labels(score(3.5))), "the score 3.5 is outside -3 to 3");
    assert_eq!(refused(with_labels(score(f32::NAN))), "the score NaN is outside -3 to 3");
    let labels = Labels { emotions: emotion("rage"), ..Labels::default() };
    assert!(refused(with_labels(labels)).starts_with("the emotion `rage` is not one of `meld`: neutral, "));
    writer.push(&sample("a", Split::Valid)).unwrap();
    writer.finish().unwrap();
    assert_eq!(read(&path).iter().map(|sample| sample.split).collect::<Vec<_>>(), [Split::Train, Split::Valid]);
}

#[test]
fn an_existing_file_is_replaced_only_when_asked_and_only_at_the_end() {
    let (_folder, path) = write(&several());
    let refused = StoreWriter::create(&path, new_store("set"), false).unwrap_err();
    assert!(matches!(refused, Error::Exists { .. }), "{refused}");
    let mut writer = StoreWriter::create(&path, new_store("set"), true).unwrap();
    writer.push(&sample("new", Split::Train)).unwrap();
    assert_eq!(read(&path).len(), 4);
    writer.finish().unwrap();
    assert_eq!(read(&path).len(), 1);
}

#[test]
fn an_import_that_ends_early_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.arrow");
    let mut writer = StoreWriter::create(&path, new_store("set"), false).unwrap();
    writer.push(&sample("a", Split::Train)).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_a_killed_process_left_is_swept_away_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.arrow");
    // A process that has ended, so that its number is free.
    let mut ended = std::process::Command::new("true").spawn().unwrap();
    let process = ended.id();
    ended.wait().unwrap();
    let stale = folder.path().join(format!(".set.arrow.{process}.partial"));
    let alive = folder.path().join(".set.arrow.1.partial");
    let other = folder.path().join(format!(".other.arrow.{process}.partial"));
    for file in [&stale, &alive, &other] {
        fs::write(file, "half a store").unwrap();
    }
    drop(StoreWriter::create(&path, new_store("set"), false).unwrap());
    assert!(!stale.exists() && alive.exists() && other.exists());
}

#[test]
fn names_that_would_not_fit_into_metrics_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["", "a/b", "..", "a b", &"x".repeat(65)] {
        let refused = StoreWriter::create(&folder.path().join("set.arrow"), new_store(name), false);
        assert!(matches!(refused, Err(Error::Format { .. })), "{name}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A disk with room for so many bytes.
struct SmallDisk(Cursor<Vec<u8>>, usize);

impl Write for SmallDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.position() as usize + bytes.len() > self.1 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SmallDisk {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

#[test]
fn a_full_disk_is_a_clear_error_wherever_it_happens() {
    let target = PathBuf::from("set.arrow");
    let run = |room: usize| -> Result<usize, Error> {
        let disk = SmallDisk(Cursor::new(Vec::new()), room);
        let mut encoder = Encoder::start(disk, target.clone(), new_store("set"))?;
        for index in 0..1100 {
            encoder.push(&Sample { acoustic: features(2, 5), ..sample(&format!("s{index}"), Split::Train) })?;
        }
        Ok(encoder.finish()?.1.0.into_inner().len())
    };
    let needed = run(usize::MAX).unwrap();
    assert_eq!(run(needed).unwrap(), needed);
    for room in [0, 1000, 70_000, needed / 2, needed - 1] {
        let error = run(room).unwrap_err().to_string();
        assert!(error.starts_with("cannot write set.arrow: "), "{error}");
        assert!(error.contains("hint: free some space"), "{error}");
    }
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let (_folder, path) = write(&several());
    let bytes = fs::read(&path).unwrap();
    let steps = (0..bytes.len()).step_by(997).chain(bytes.len() - 40..bytes.len());
    for length in steps {
        fs::write(&path, &bytes[..length]).unwrap();
        let refused = Store::open(&path).unwrap_err();
        assert!(matches!(refused, Error::NotAStore { .. } | Error::Damaged { .. }), "{length}: {refused}");
    }
}

#[test]
fn a_changed_byte_never_passes_unseen() {
    let (_folder, path) = write(&several());
    let bytes = fs::read(&path).unwrap();
    let before = several();
    // Every seventh byte, and a few of the header's padding.
    let padding = 4096..262_144;
    for place in (0..bytes.len()).filter(|place| place % if padding.contains(place) { 4001 } else { 7 } == 0) {
        let mut changed = bytes.clone();
        changed[place] ^= 0x10;
        fs::write(&path, &changed).unwrap();
        if let Ok(store) = Store::open(&path) {
            for (row, expected) in before.iter().enumerate() {
                match store.sample(row) {
                    Ok(sample) => assert_eq!(sample, *expected, "byte {place}"),
                    Err(error) => assert!(matches!(error, Error::Damaged { .. }), "byte {place}: {error}"),
                }
            }
            assert!(!Store::check(&path).unwrap().is_ok(), "byte {place} was changed and check did not see it");
        }
    }
}

#[test]
fn files_of_others_are_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.arrow");
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Store::open(&path).unwrap_err().to_string()
    };
    assert!(refused(b"").contains("it has only 0 bytes"));
    assert!(refused(&vec![7; 300_000]).contains("it does not end like an Arrow file"));
    // An Arrow file with the same columns, made by someone else.
    let schema = layout::schema(None);
    let mut other = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &schema).unwrap();
    other.finish().unwrap();
    let mut bytes = other.into_inner().unwrap();
    bytes.splice(8..8, vec![0; 270_000]);
    assert!(refused(&bytes).contains("another program"), "{}", refused(&bytes));
}

fn any_text() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[a-zé☃ '\"\\\\,]{0,12}").unwrap()
}

fn any_features(dim: usize) -> impl Strategy<Value = Option<Features>> {
    let values = (1..6usize).prop_flat_map(move |frames| proptest::collection::vec(-1e30f32..1e30, frames * dim));
    proptest::option::of(values.prop_map(move |data| Features::try_new(data.len() / dim, dim, data).unwrap()))
}

fn any_labels() -> impl Strategy<Value = Labels> {
    let polarity = proptest::option::of(proptest::sample::select(Polarity::ALL.to_vec()));
    let class = proptest::option::of(proptest::sample::select(Vocabulary::meld().classes));
    (polarity, proptest::option::of(-3.0f32..=3.0), class).prop_map(|(polarity, score, class)| Labels {
        polarity,
        score,
        emotions: class.into_iter().map(|class| ("meld".to_owned(), class)).collect(),
        ..Labels::default()
    })
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let texts = (any_text(), proptest::option::of(any_text()), proptest::option::of(any_text()));
    let place = (proptest::option::of(any_text()), proptest::option::of(any::<i32>()));
    let split = proptest::sample::select(Split::ALL.to_vec());
    (texts, place, split, any_labels(), any_features(3), any_features(2)).prop_map(
        |((text, context, speaker), (dialogue, turn), split, labels, acoustic, visual)| Sample {
            id: String::new(),
            split,
            text,
            context,
            speaker,
            dialogue,
            turn,
            labels,
            acoustic,
            visual,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_samples_come_back_as_they_went_in(mut samples in proptest::collection::vec(any_sample(), 0..30)) {
        for (index, sample) in samples.iter_mut().enumerate() {
            sample.id = format!("é{index}");
        }
        let (_folder, path) = write(&samples);
        prop_assert_eq!(read(&path), samples);
        prop_assert!(Store::check(&path).unwrap().is_ok());
    }
}
