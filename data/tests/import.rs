//! Imports of whole files: made-up ones with every flaw, and the real ones where they are.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use unimse_data::Error;
use unimse_data::import::{ImportOptions, Report, check, import, inspect};
use unimse_data::read::{BadFeatures, Format, Source, detect};
use unimse_data::schema::{ContextWindow, Polarity, Split, Task};
use unimse_data::store::Store;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The real releases, where a developer has put them; `None` says so.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn real(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if !path.exists() {
        eprintln!("skipped: no real data");
        return None;
    }
    Some(path)
}

struct Import {
    folder: TempDir,
    options: ImportOptions,
}

impl Import {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), options: ImportOptions::default() }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("set.arrow")
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> Source {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        Source::new(path)
    }

    fn run(&self, sources: &[Source]) -> Result<Report, Error> {
        import(sources, None, &self.options, &self.out())
    }

    fn meld(&self, rows: &str) -> Result<Report, Error> {
        self.run(&[self.file("train_sent_emo.csv", meld_file(rows))])
    }

    fn store(&self) -> Store {
        Store::open(&self.out()).unwrap()
    }
}

fn meld_file(rows: &str) -> String {
    let header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime";
    let rows = rows.lines().map(|row| format!("1,{row},8,21,\"00:16:16,059\",\"00:16:21,731\"\n"));
    format!("{header}\n{}", rows.collect::<String>())
}

const DIALOGUE: &str = "Hi there.,Ann,neutral,neutral,0,0
\"Oh, no!\",Bo,surprise,negative,0,1
It’s fine.,Ann,joy,positive,0,3
Who?,Cy,anger,negative,1,0";

#[test]
fn a_pickle_becomes_a_store_with_a_report() {
    let run = Import::new();
    let report = run.run(&[Source::new(fixture("mmsa_p4.pkl"))]).unwrap();
    let train = &report.splits[&Split::Train];
    assert_eq!((train.samples, train.missing_acoustic, train.missing_visual), (4, 1, 1));
    assert_eq!((train.bad_values, train.samples_with_bad_values), (2, 1));
    assert_eq!(train.polarity[&Polarity::Negative], 2);
    assert_eq!(report.splits[&Split::Test].scores[&2], 1);
    assert_eq!((report.acoustic_dim, report.visual_dim), (Some(2), Some(3)));
    let store = run.store();
    assert_eq!((store.metadata().name.as_str(), store.metadata().task), ("set", Task::Sentiment));
    assert_eq!(store.metadata().source.files[0].name, "mmsa_p4.pkl");
    assert_eq!(store.metadata().content_hash, report.content_hash);
    let check = check(&run.out()).unwrap();
    assert!(check.is_ok() && check.samples == 9, "{check}");
    let expected = [
        "                        train  valid  test",
        "samples                     4      2     3",
        "no acoustic                 1      0     0",
        "no visual                   1      0     0",
        "NaN or infinite values      2      0     0",
        "  in samples                1      0     0",
        "polarity",
        "  negative                  2      1     1",
        "  neutral                   1      1     1",
        "  positive                  1      0     1",
        "score, rounded",
        "  -3                        0      0     0",
        "  -2                        0      0     0",
        "  -1                        2      1     1",
        "  0                         1      1     1",
        "  1                         0      0     0",
        "  2                         1      0     1",
        "  3                         0      0     0",
    ];
    let shown = report.to_string();
    assert_eq!(shown.lines().skip(1).collect::<Vec<_>>(), expected);
    assert!(shown.starts_with("set (mmsa) -> "), "{shown}");
    let back: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(back, report);
}

#[test]
fn the_policy_for_bad_features_is_the_users() {
    let mut run = Import::new();
    run.options.bad_features = BadFeatures::Drop;
    let source = Source::new(fixture("mmsa_p4.pkl"));
    let report = run.run(std::slice::from_ref(&source)).unwrap();
    assert_eq!((report.splits[&Split::Train].missing_acoustic, report.splits[&Split::Train].bad_values), (2, 2));
    run.options = ImportOptions { bad_features: BadFeatures::Error, force: true, ..ImportOptions::default() };
    let error = run.run(std::slice::from_ref(&source)).unwrap_err().to_string();
    assert_eq!(
        error,
        "mmsa_p4.pkl: train[1], id `video0$_$1`: audio frame 0 value 0 is NaN\n  \
         hint: replace such values with --bad-features zero, or drop"
    );
    run.options.skip_bad = true;
    let report = run.run(&[source]).unwrap();
    assert_eq!((report.splits[&Split::Train].samples, report.rejected_count), (3, 1));
    assert!(report.to_string().contains("left out, 1 rows:\n  mmsa_p4.pkl: train[1], id `video0$_$1`: audio frame 0"));
}

#[test]
fn a_csv_becomes_a_store_with_context() {
    let run = Import::new();
    let report = run.meld(DIALOGUE).unwrap();
    assert_eq!(report.splits[&Split::Train].emotions["meld"]["surprise"], 1);
    let store = run.store();
    assert_eq!(store.metadata().emotion_vocabulary().unwrap().classes[1], "surprise");
    let sample = store.sample(1).unwrap();
    assert_eq!((sample.id.as_str(), sample.text.as_str()), ("dia0_utt1", "Oh, no!"));
    assert_eq!(sample.context.as_deref(), Some("Ann Hi there. </s> Bo Oh, no! </s> Ann It’s fine."));
    assert_eq!((sample.speaker.as_deref(), sample.dialogue.as_deref(), sample.turn), (Some("Bo"), Some("0"), Some(1)));
    assert_eq!((sample.labels.polarity, sample.labels.score), (Some(Polarity::Negative), None));
    assert_eq!(sample.labels.emotions["meld"], "surprise");
    // Numbers have gaps, and dialogues do not run into each other.
    assert_eq!(store.source_text(2), "Ann Hi there. Bo Oh, no! </s> Ann It’s fine. </s>");
    assert_eq!(store.source_text(3), "</s> Cy Who? </s>");
}

#[test]
fn a_causal_import_has_no_future_in_its_text() {
    let mut run = Import::new();
    run.options.context = ContextWindow::new(1, 0);
    run.meld(DIALOGUE).unwrap();
    assert_eq!(run.store().source_text(1), "Ann Hi there. </s> Bo Oh, no! </s>");
    assert_eq!(run.store().metadata().source.context, Some(ContextWindow::new(1, 0)));
}

#[test]
fn columns_are_found_by_name_in_any_order_and_encoding() {
    let run = Import::new();
    let bytes =
        b"\xef\xbb\xbfUtterance_ID,Dialogue_ID,Sentiment,Emotion,Speaker,Utterance\r\n0,5,Neutral,JOY,Ann,It\x92s\r\n";
    run.run(&[run.file("dev.csv", bytes)]).unwrap();
    let sample = run.store().sample(0).unwrap();
    assert_eq!((sample.id.as_str(), sample.split, sample.text.as_str()), ("dia5_utt0", Split::Valid, "It’s"));
}

#[test]
fn files_of_several_splits_make_one_store() {
    let run = Import::new();
    let train = run.file("a.csv", meld_file(DIALOGUE));
    let test = run.file("b.csv", meld_file(DIALOGUE));
    let sources =
        [Source { split: Some(Split::Test), ..test.clone() }, Source { split: Some(Split::Train), ..train.clone() }];
    run.run(&sources).unwrap();
    // The same ids in two splits are two samples.
    assert_eq!(run.store().metadata().counts.total(), 8);
    assert_eq!(run.store().sample(0).unwrap().split, Split::Train);
    let unknown = run.run(&[train]).unwrap_err().to_string();
    assert!(unknown.contains("a.csv: the file's name does not tell its split\n  hint: write train="), "{unknown}");
    let twice = [Source { split: Some(Split::Test), ..test.clone() }, Source { split: Some(Split::Test), ..test }];
    assert!(run.run(&twice).unwrap_err().to_string().contains("split `test` is in "));
}

#[test]
fn bad_rows_are_told_with_place_value_and_hint_or_left_out_and_listed() {
    let cases = [
        (
            "Hi.,Ann,rage,neutral,0,0",
            "line 2, dialogue 0 utterance 0: Emotion is `rage`, not one of neutral, surprise,",
        ),
        ("Hi.,Ann,joy,glad,0,0", "line 2, dialogue 0 utterance 0: Sentiment: unknown polarity `glad`"),
        ("Hi.,Ann,joy,neutral,x,0", "line 2, dialogue x utterance 0: Dialogue_ID `x`, Utterance_ID `0`: not numbers"),
        ("Hi.,Ann,joy,neutral,0,-1", "Utterance_ID `-1`: not numbers"),
        ("A.,Ann,joy,neutral,0,0\nB.,Ann,joy,neutral,0,0", "line 3, dialogue 0 utterance 0: the id appears twice"),
    ];
    for (rows, expected) in cases {
        let mut run = Import::new();
        let error = run.meld(rows).unwrap_err().to_string();
        assert!(error.starts_with("train_sent_emo.csv: line ") && error.contains(expected), "{error}");
        assert!(error.ends_with("hint: correct the row, or leave such rows out with --skip-bad"), "{error}");
        assert!(!run.out().exists());
        run.options.skip_bad = true;
        let report = run.meld(&format!("Fine.,Bo,joy,positive,7,0\n{rows}")).unwrap();
        assert_eq!(report.rejected_count, 1, "{report}");
        assert!(report.splits[&Split::Train].samples >= 1);
    }
}

#[test]
fn ragged_rows_and_missing_columns_are_errors() {
    let run = Import::new();
    let short = format!("{}1,too short\n", meld_file(DIALOGUE));
    let error = run.run(&[run.file("train.csv", short)]).unwrap_err().to_string();
    assert!(error.starts_with("train.csv: line 6: 2 fields, the header has 11\n  hint: "), "{error}");
    let source = run.file("train.csv", "Utterance,Dialogue_ID,Utterance_ID,Speaker,Emotion\nHi,0,0,Ann,joy\n");
    let error = run.run(&[source]).unwrap_err().to_string();
    assert!(error.contains("the column `Sentiment` is missing; it has `Utterance`, `Dialogue_ID`"), "{error}");
    assert_eq!(fs::read_dir(run.folder.path()).unwrap().count(), 1, "nothing but the source is there");
}

#[test]
fn a_file_with_nothing_but_bad_rows_is_an_error() {
    let mut run = Import::new();
    run.options.skip_bad = true;
    let error = run.meld("Hi.,Ann,rage,neutral,0,0").unwrap_err().to_string();
    assert!(error.contains("no samples were found, 1 rows were left out"), "{error}");
    assert!(!run.out().exists());
}

#[test]
fn formats_are_told_apart_by_content() {
    let run = Import::new();
    let found = |content: &[u8]| detect(&[run.file("data.bin", content)]);
    assert_eq!(detect(&[Source::new(fixture("mmsa_p2.pkl"))]).unwrap(), Format::Mmsa);
    assert_eq!(detect(&[Source::new(fixture("arrays_p0.pkl"))]).unwrap(), Format::Mmsa);
    assert_eq!(found(meld_file(DIALOGUE).as_bytes()).unwrap(), Format::Meld);
    assert_eq!(found(b"\x89HDF\r\n\x1a\n").unwrap(), Format::Csd);
    assert_eq!(found(b"id,text,score\na,b,1\n").unwrap(), Format::Plain);
    for (content, expected) in [
        (&b""[..], "the file is empty"),
        (b"ARROW1\0\0", "it is an Arrow file already"),
        (b"PK\x03\x04", "zip files, .npz and torch.save files are not supported"),
        (b"id,label\n1,2\n", "the format is not known"),
    ] {
        let error = found(content).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("hint: "), "{error}");
    }
    let error = detect(&[Source::new("/dev/zero")]).unwrap_err().to_string();
    assert!(error.contains("it is not a regular file"), "{error}");
    assert!(detect(&[Source::new("no/such/file")]).unwrap_err().to_string().contains("hint: check the path"));
}

#[test]
fn a_pickle_of_another_layout_says_what_it_has() {
    let run = Import::new();
    let error = run.run(&[Source::new(fixture("arrays_p4.pkl"))]).unwrap_err().to_string();
    assert!(error.contains("it has none of the keys train, valid and test; it has `nested`, `f2`"), "{error}");
    let list = run.run(&[run.file("list.pkl", b"\x80\x04].")]).unwrap_err().to_string();
    assert!(list.contains("it holds a list, not a dict of splits"), "{list}");
    // {'train': {'id': ['a'], 'text': [0]}}
    let keys = b"\x80\x04}\x8c\x05train}(\x8c\x02id]\x8c\x01aa\x8c\x04text]K\x00aus.";
    let error = run.run(&[run.file("keys.pkl", keys)]).unwrap_err().to_string();
    assert!(error.contains("split `train`: the key `raw_text` is missing; it has `id`, `text`"), "{error}");
    let evil = run.run(&[run.file("evil.pkl", b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.")]);
    let evil = evil.unwrap_err().to_string();
    assert!(evil.contains("refused to load `posix.system`") && evil.contains("nothing is executed"), "{evil}");
}

#[test]
fn columns_of_different_lengths_are_named() {
    let run = Import::new();
    // {'train': {'id': ['a', 'b'], 'raw_text': ['x'], 'regression_labels': [0, 9]}} and then with two texts.
    let file = |texts: &[u8]| {
        let start = b"\x80\x04}\x8c\x05train}(\x8c\x02id](\x8c\x01a\x8c\x01be\x8c\x08raw_text](";
        [&start[..], texts, b"e\x8c\x11regression_labels](K\x00K\x09eus."].concat()
    };
    let error = run.run(&[run.file("a.pkl", file(b"\x8c\x01x"))]).unwrap_err().to_string();
    assert!(error.contains("split `train`: `raw_text` has 1 rows, `id` has 2"), "{error}");
    let error = run.run(&[run.file("b.pkl", file(b"\x8c\x01x\x8c\x01y"))]).unwrap_err().to_string();
    assert!(error.starts_with("b.pkl: train[1], id `b`: regression_labels is 9, outside -3 to 3\n"), "{error}");
}

#[test]
fn an_inspection_tells_what_is_there() {
    let run = Import::new();
    run.run(&[Source::new(fixture("mmsa_p4.pkl"))]).unwrap();
    let inspection = inspect(&run.out()).unwrap();
    let frames = inspection.acoustic_frames.unwrap();
    assert_eq!((frames.min, frames.median, frames.max), (1, 2, 4));
    assert_eq!(inspection.example.as_deref(), Some("train utterance 0 it's"));
    let shown = inspection.to_string();
    for line in ["set: sentiment, ", "source mmsa_p4.pkl (mmsa), ", "acoustic frames 1 to 4, median 2", "samples"] {
        assert!(shown.contains(line), "{shown}");
    }
    assert!(serde_json::to_string(&inspection).unwrap().contains("\"median\":2"));
}

#[test]
fn the_real_mosi_has_its_published_counts() {
    let Some(path) = real("mosi_utterance.pkl") else { return };
    let run = Import::new();
    let report = run.run(&[Source::new(path)]).unwrap();
    let counts = run.store().metadata().counts;
    assert_eq!((counts.train, counts.valid, counts.test), (1284, 229, 0));
    assert_eq!((report.acoustic_dim, report.visual_dim), (Some(73), Some(100)));
    for split in report.splits.values() {
        assert_eq!((split.missing_acoustic, split.missing_visual, split.bad_values, split.rejected), (0, 0, 0, 0));
    }
    let sample = run.store().sample(0).unwrap();
    assert_eq!((sample.id.as_str(), sample.text.as_str()), ("03bSnISJMiM$_$1", "anyhow it was really good"));
    assert_eq!(sample.labels.score, Some(2.4));
    let acoustic = sample.acoustic.unwrap();
    assert_eq!((acoustic.frames(), acoustic.dim()), (1, 73));
    assert_eq!(acoustic.data()[..4], [211.09, 0.61562, 0.12136, 0.36468]);
    assert_eq!(sample.visual.unwrap().data()[1], 1.38628);
    assert!(check(&run.out()).unwrap().is_ok());
}

#[test]
fn the_real_meld_has_its_published_counts() {
    let (Some(train), Some(dev)) = (real("meld_train_sent_emo.csv"), real("meld_dev_sent_emo.csv")) else { return };
    let run = Import::new();
    let report = run.run(&[Source::new(train), Source::new(dev)]).unwrap();
    let counts = run.store().metadata().counts;
    assert_eq!((counts.train, counts.valid, counts.test), (9989, 1109, 0));
    let emotions = &report.splits[&Split::Train].emotions["meld"];
    let published = ["neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"].map(|class| emotions[class]);
    assert_eq!(published, [4710, 1205, 268, 683, 1743, 271, 1109]);
    assert_eq!(report.splits[&Split::Valid].emotions["meld"]["disgust"], 22);
    let store = run.store();
    assert_eq!(
        store.source_text(0),
        "</s> Chandler also I was the point person on my company’s transition from the KL-5 to GR-6 system. </s> \
         The Interviewer You must’ve had your hands full. Chandler That I did. That I did."
    );
    assert!(check(&run.out()).unwrap().is_ok());
}
