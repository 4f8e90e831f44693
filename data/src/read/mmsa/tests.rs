use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::read::pickle::Limits;
use crate::schema::Features;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

fn rows(bytes: Vec<u8>) -> Result<Vec<Row>, Error> {
    let cause = |cause| Error::Pickle { path: "file".to_owned(), cause };
    let document = Document::read(Box::new(bytes), Limits::default()).map_err(cause)?;
    let mut reader = MmsaReader::of(document, "file".to_owned(), "file".to_owned(), &ImportOptions::default())?;
    let mut rows = Vec::new();
    reader.for_each(&mut |row| {
        rows.push(row);
        Ok(())
    })?;
    Ok(rows)
}

fn samples(name: &str) -> Vec<Sample> {
    rows(fixture(name)).unwrap().into_iter().map(|row| row.sample.unwrap()).collect()
}

#[test]
fn all_protocols_give_the_same_samples() {
    let expected = samples("mmsa_p4.pkl");
    assert_eq!(expected.len(), 9);
    for protocol in [2, 3, 5] {
        assert_eq!(samples(&format!("mmsa_p{protocol}.pkl")), expected, "protocol {protocol}");
    }
}

#[test]
fn a_sample_has_its_words_labels_and_frames_of_true_length() {
    let samples = samples("mmsa_p4.pkl");
    let first = &samples[0];
    assert_eq!((first.id.as_str(), first.split), ("video0$_$0", Split::Train));
    assert_eq!(first.text, "train utterance 0 it's");
    assert_eq!((first.dialogue.as_deref(), first.turn), (Some("video0"), Some(0)));
    assert_eq!((first.labels.polarity, first.labels.score), (Some(Polarity::Negative), Some(-1.2)));
    assert_eq!(first.acoustic.as_ref().unwrap().data(), [1., 2.]);
    // Padded in front, without a length.
    assert_eq!(first.visual.as_ref().unwrap().data(), [0.5, 0.5, 0.5]);
    assert_eq!(samples[1].visual.as_ref().unwrap().frames(), 2);
    // The test split has no lengths, so the silent frames behind the end tell.
    let last = &samples[8];
    assert_eq!((last.split, last.acoustic.as_ref().unwrap().frames()), (Split::Test, 3));
}

#[test]
fn bad_values_become_zero_and_missing_modalities_stay_missing() {
    let rows = rows(fixture("mmsa_p5.pkl")).unwrap();
    assert_eq!(rows.iter().map(|row| row.bad_values).collect::<Vec<_>>(), [0, 2, 0, 0, 0, 0, 0, 0, 0]);
    let sample = |row: usize| rows[row].sample.as_ref().unwrap();
    assert_eq!(sample(1).acoustic.as_ref().unwrap().data(), [0., 0., 3., 4.]);
    assert!(sample(2).acoustic.is_none() && sample(2).visual.is_some());
    assert!(sample(3).visual.is_none() && sample(3).acoustic.is_some());
}

#[test]
fn one_array_a_sample_is_read_with_its_own_length() {
    let samples = samples("mmsa_ragged.pkl");
    let frames: Vec<_> = samples.iter().map(|sample| sample.acoustic.as_ref().map(Features::frames)).collect();
    assert_eq!(frames, [Some(3), Some(1), Some(2)]);
    let visual: Vec<_> = samples.iter().map(|sample| sample.visual.as_ref().map(Features::data)).collect();
    assert_eq!(visual, [Some(&[1., 2.][..]), None, Some(&[3., 4.])]);
    // Without annotations the score tells the polarity.
    let polarity: Vec<_> = samples.iter().filter_map(|sample| sample.labels.polarity).collect();
    assert_eq!(polarity, Polarity::ALL);
    assert_eq!(samples[2].id, "c");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// A damaged file is read, refused, or has rows that are refused; the reader never panics and always ends.
    #[test]
    fn damaged_bytes_never_panic(
        protocol in 2..=5,
        ragged in any::<bool>(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let name = if ragged { "mmsa_ragged.pkl".to_owned() } else { format!("mmsa_p{protocol}.pkl") };
        let mut bytes = fixture(&name);
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let _ = rows(bytes);
    }
}
