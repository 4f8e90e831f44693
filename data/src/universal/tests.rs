use std::collections::BTreeSet;

use super::*;
use crate::schema::{Provenance, Sample};

/// Sentences are as similar as the share of words that they have in common.
struct Words(Vec<usize>);

impl Similarity for Words {
    fn name(&self) -> String {
        "words".to_owned()
    }

    fn nearest(&mut self, queries: &[&str], donors: &[&str]) -> Result<Vec<(usize, f32)>, String> {
        self.0.push(donors.len());
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
        let common = |one: &str, other: &str| {
            let (one, other) = (words(one), words(other));
            one.intersection(&other).count() as f32 / one.len().max(other.len()) as f32
        };
        let nearest = |query: &&str| {
            let mut best = (0, f32::MIN);
            for (place, donor) in donors.iter().enumerate() {
                let found = common(query, donor);
                if found > best.1 {
                    best = (place, found);
                }
            }
            best
        };
        Ok(queries.iter().map(nearest).collect())
    }
}

fn sample(id: &str, split: Split, text: &str, labels: Labels) -> Sample {
    Sample {
        id: id.to_owned(),
        split,
        text: text.to_owned(),
        context: None,
        speaker: None,
        dialogue: None,
        turn: None,
        labels,
        acoustic: None,
        visual: None,
    }
}

fn scored(score: f32) -> Labels {
    Labels { polarity: Some(Polarity::from_score(score)), score: Some(score), ..Labels::default() }
}

fn felt(class: &str, polarity: Polarity) -> Labels {
    let emotions = BTreeMap::from([("meld".to_owned(), class.to_owned())]);
    Labels { polarity: Some(polarity), emotions, ..Labels::default() }
}

fn store(folder: &Path, name: &str, task: Task, vocabularies: Vec<Vocabulary>, samples: &[Sample]) -> PathBuf {
    let path = folder.join(format!("{name}.arrow"));
    let new = NewStore { name: name.to_owned(), task, vocabularies, source: Provenance::default() };
    let mut writer = StoreWriter::create(&path, new, false).unwrap();
    for sample in samples {
        writer.push(sample).unwrap();
    }
    writer.finish().unwrap();
    path
}

fn two(folder: &Path) -> [PathBuf; 2] {
    let mosi = [
        sample("m1", Split::Train, "what a great day", scored(2.4)),
        sample("m2", Split::Train, "so sad an end", scored(-1.0)),
        sample("m3", Split::Train, "it is long", scored(0.0)),
        sample("m4", Split::Test, "a great day", scored(2.0)),
    ];
    let meld = [
        sample("d1", Split::Train, "a great day for all", felt("joy", Polarity::Positive)),
        sample("d2", Split::Train, "what a great day", felt("anger", Polarity::Negative)),
        sample("d3", Split::Train, "the end is so sad", felt("sadness", Polarity::Negative)),
        sample("d4", Split::Test, "what a great day", felt("surprise", Polarity::Positive)),
        sample("d5", Split::Train, "I see", felt("neutral", Polarity::Neutral)),
    ];
    [
        store(folder, "mosi", Task::Sentiment, Vec::new(), &mosi),
        store(folder, "meld", Task::Emotion, vec![Vocabulary::meld()], &meld),
    ]
}

fn by_id(path: &Path) -> BTreeMap<String, Labels> {
    let store = Store::open(path).unwrap();
    (0..store.len()).map(|row| (store.id(row).to_owned(), store.labels(row))).collect()
}

#[test]
fn fields_come_from_the_nearest_training_sample_of_the_same_polarity() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("labelled");
    let mut words = Words(Vec::new());
    let options = LabelOptions { shown: 10, ..LabelOptions::default() };
    let report = label(&two(folder.path()), &out, &mut words, &options).unwrap();

    let mosi = by_id(&out.join("mosi.arrow"));
    let class = |labels: &Labels| labels.emotions.get("meld").cloned();
    // The very same words are in a negative sample, and in a positive one of the test split.
    assert_eq!(class(&mosi["m1"]).as_deref(), Some("joy"));
    assert_eq!(mosi["m1"].filled["meld"].from, "meld/d1");
    assert_eq!(class(&mosi["m2"]).as_deref(), Some("sadness"));
    assert_eq!((class(&mosi["m3"]).as_deref(), mosi["m3"].filled["meld"].from.as_str()), (Some("neutral"), ""));
    assert_eq!(class(&mosi["m4"]), None, "only training samples get labels");
    let meld = by_id(&out.join("meld.arrow"));
    assert_eq!((meld["d1"].score, meld["d3"].score, meld["d5"].score), (Some(2.4), Some(-1.0), Some(0.0)));
    assert_eq!(class(&meld["d2"]).as_deref(), Some("anger"), "own labels stay");
    assert!(meld["d4"].score.is_none());

    let metadata = Store::open(&out.join("mosi.arrow")).unwrap().metadata().clone();
    assert!(metadata.vocabulary("meld").is_some());
    let labelling = metadata.source.labelling.unwrap();
    assert_eq!((labelling.encoder.as_str(), labelling.donors.len(), labelling.all_splits), ("words", 2, false));
    assert!(Store::check(&out.join("mosi.arrow")).unwrap().is_ok());

    let filled = &report.fields["mosi"]["meld"];
    assert_eq!((filled.copied, filled.neutral, filled.lacking), (2, 1, 0));
    assert_eq!(filled.labels, BTreeMap::from([("joy", 1), ("neutral", 1), ("sadness", 1)].map(|(k, v)| (k.into(), v))));
    assert_eq!(report.matches.len(), 2 + 3);
    let shown = report.to_string();
    assert!(shown.contains("meld = joy, as meld/d1"), "{shown}");
}

#[test]
fn donors_of_all_splits_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("labelled");
    let options = LabelOptions { all_splits: true, ..LabelOptions::default() };
    label(&two(folder.path()), &out, &mut Words(Vec::new()), &options).unwrap();
    assert_eq!(by_id(&out.join("mosi.arrow"))["m1"].filled["meld"].from, "meld/d4");
}

#[test]
fn what_cannot_be_labelled_is_refused_and_nothing_is_replaced_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let [mosi, meld] = two(folder.path());
    let run = |paths: &[PathBuf], options: &LabelOptions| {
        label(paths, folder.path(), &mut Words(Vec::new()), options).map_err(|error| error.to_string())
    };
    let none = LabelOptions::default();
    assert!(run(std::slice::from_ref(&mosi), &none).unwrap_err().contains("one is too few"));
    assert!(run(&[mosi.clone(), mosi.clone()], &none).unwrap_err().contains("called `mosi`"));
    assert!(run(&[mosi, meld], &none).unwrap_err().contains("exists already"), "the originals are there");
}

#[test]
fn a_polarity_without_donors_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let mosi = [sample("m1", Split::Train, "what a sad end", scored(-1.0))];
    let meld = [sample("d1", Split::Train, "a great day", felt("joy", Polarity::Positive))];
    let paths = [
        store(folder.path(), "mosi", Task::Sentiment, Vec::new(), &mosi),
        store(folder.path(), "meld", Task::Emotion, vec![Vocabulary::meld()], &meld),
    ];
    let mut words = Words(Vec::new());
    let report = label(&paths, &folder.path().join("out"), &mut words, &LabelOptions::default()).unwrap();
    assert_eq!(report.fields["mosi"]["meld"].lacking, 1);
    assert!(words.0.is_empty(), "nothing was compared");
    assert!(report.to_string().contains("1 without a donor"));
}
