//! Releases of MOSI and MOSEI, and people's own tables.

use super::*;

#[test]
fn mmsa_unaligned_is_cut_to_its_lengths() {
    let (report, samples) = Import::of(&["mmsa/unaligned.pkl"]).samples(Format::Mmsa);
    assert_eq!(counts(&samples), [4, 2, 2]);
    let third = of(&samples, Split::Train, "trainvid_x$_$2");
    assert_eq!((third.text.as_str(), third.labels.polarity), ("train sentence 2", Some(Polarity::Negative)));
    assert_eq!((third.acoustic.as_ref().unwrap().frames(), third.visual.as_ref().unwrap().frames()), (3, 3));
    assert!(acoustic(third).iter().all(|value| *value == 3.0));
    assert_eq!(report.splits[&Split::Train].bad_values, 1);
}

#[test]
fn mmsa_aligned_gives_the_same_samples_as_unaligned() {
    let (_, unaligned) = Import::of(&["mmsa/unaligned.pkl"]).samples(Format::Mmsa);
    let (_, aligned) = Import::of(&["mmsa/aligned.pkl"]).samples(Format::Mmsa);
    assert_eq!(aligned, unaligned);
}

#[test]
fn mult_without_words_is_read_and_says_that_it_has_none() {
    let (report, samples) = Import::of(&["mult/mosi_data_noalign.pkl"]).samples(Format::Mult);
    assert_eq!(counts(&samples), [4, 2, 2]);
    let second = of(&samples, Split::Train, "train-v_1");
    assert_eq!((second.text.as_str(), second.labels.score), ("", Some(-1.5)));
    assert_eq!((second.dialogue.as_deref(), second.turn), (Some("train-v"), Some(1)));
    assert_eq!((acoustic(second), visual(second)), (&[2.0; 6][..], &[2.0; 8][..]));
    assert_noted(&report, "note: the pickle has no words: give the CSV");
}

#[test]
fn mult_takes_its_words_from_a_table_by_id() {
    let (report, samples) = Import::of(&["mult/mosi_data_noalign.pkl", "mult/label.csv"]).samples(Format::Mult);
    let last = of(&samples, Split::Test, "test-v_1");
    assert_eq!((last.text.as_str(), last.labels.score), ("sentence 1 of test", Some(-1.5)));
    assert_noted(&report, "8 of 8 rows have their sentence by id in label.csv");
}

#[test]
fn mults_iemocap_has_one_of_four_emotions() {
    let import = Import::of(&["mult/iemocap_data.pkl"]);
    let (report, samples) = import.samples(Format::Mult);
    let emotions: Vec<&str> = samples.iter().map(|sample| sample.labels.emotions["iemocap4"].as_str()).collect();
    assert_eq!(emotions, ["neutral", "joy", "sadness", "anger", "neutral", "joy", "neutral", "joy"]);
    assert_eq!(samples[5].id, "valid_1");
    assert_eq!(Store::open(&import.out()).unwrap().metadata().task, Task::Emotion);
    assert_eq!(report.samples(), 8);
}

#[test]
fn misa_is_aligned_to_words_and_keeps_silent_ones() {
    let (_, samples) = Import::of(&["misa/train.pkl", "misa/dev.pkl", "misa/test.pkl"]).samples(Format::Misa);
    assert_eq!(counts(&samples), [3, 1, 2]);
    let second = of(&samples, Split::Train, "vi-d_0[1]");
    assert_eq!((second.text.as_str(), second.labels.score), ("word1 and more", Some(0.5)));
    assert_eq!((second.dialogue.as_deref(), second.turn), (Some("vi-d_0"), Some(1)));
    assert_eq!(visual(second)[..8], [1.25, 1.25, 1.25, 1.25, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(acoustic(second), [-2.0; 6]);
    assert_eq!(of(&samples, Split::Valid, "vi-d_1[0]").labels.score, Some(-1.25));
}

#[test]
fn unimses_mosi_is_matched_by_id_and_its_front_padding_stripped() {
    let (report, samples) =
        Import::of(&["unimse/mosi_data_0610.pkl", "unimse/new_MOSI-label-v4.csv"]).samples(Format::Unimse);
    assert_eq!(counts(&samples), [4, 2, 2]);
    let fourth = of(&samples, Split::Train, "train-v_3");
    assert_eq!(fourth.text, "sentence 3 of train");
    // The silence at the end of the sequence is no padding.
    assert_eq!(acoustic(fourth), [4., 4., 4., 4., 4., 4., 4., 4., 4., 0., 0., 0.]);
    assert_eq!((fourth.labels.polarity, fourth.labels.score), (Some(Polarity::Negative), Some(-1.5)));
    assert_eq!(fourth.labels.emotions["meld"], "anger");
    // `sur` is none of the six emotions.
    assert_eq!(fourth.labels.emotions.get("iemocap"), None);
    assert_eq!(of(&samples, Split::Train, "train-v_2").labels.emotions["iemocap"], "excited");
    assert_eq!(unmatched(&report, "without features in mosi_data_0610.pkl"), ["lost_1"]);
    assert_eq!(unmatched(&report, "emotions outside of their vocabulary").len(), 4);
}

#[test]
fn unimses_mosei_is_matched_by_row() {
    let (report, samples) =
        Import::of(&["unimse/mosei_data_0610.pkl", "unimse/new_MOSEI-label-v4.csv"]).samples(Format::Unimse);
    assert_eq!(samples[4].text, "sentence 0 of valid");
    assert_eq!((samples[4].id.as_str(), samples[4].split), ("valid[0]x", Split::Valid));
    assert_noted(&report, "the ids of 0 of 8 rows are in new_MOSEI-label-v4.csv: matched by row");
}

#[test]
fn a_table_in_another_order_is_not_matched_by_row() {
    let import = Import::of(&["unimse/mosei_data_0610.pkl"]);
    let text = std::fs::read_to_string(&layout("unimse/new_MOSEI-label-v4.csv").path).unwrap();
    let (header, rows) = text.split_once('\n').unwrap();
    let mut rows: Vec<&str> = rows.lines().collect();
    rows.swap(0, 1);
    let path = import.folder.path().join("swapped.csv");
    std::fs::write(&path, format!("{header}\n{}\n", rows.join("\n"))).unwrap();
    let error =
        Import { sources: vec![import.sources[0].clone(), Source::new(path)], ..import }.run().unwrap_err().to_string();
    assert!(error.contains("2 of 8 scores differ from those of the table in the same row: train[0]x"), "{error}");
    assert!(error.contains("hint: the table is not in the order of the pickle"), "{error}");
}

#[test]
fn ones_own_tables_and_arrays_make_a_dataset() {
    let import = Import::of(&["plain/train.csv", "plain/valid.csv"]);
    let (report, samples) = import.samples(Format::Plain);
    assert_eq!(counts(&samples), [3, 1, 0]);
    let first = of(&samples, Split::Train, "a1");
    assert_eq!(
        (acoustic(first), visual(first)),
        (&[1., 2., 3., 4., 5., 6.][..], &[1., 2., 3., 4., 5., 6., 7., 8.][..])
    );
    assert_eq!(first.context.as_deref(), Some("</s> Ann Good morning. </s> Bo Is it, though?"));
    assert_eq!((first.labels.score, first.labels.emotions["meld"].as_str()), (Some(1.5), "joy"));
    assert!(of(&samples, Split::Train, "a2").visual.is_none());
    assert_eq!(unmatched(&report, "rows of train.csv without acoustic features"), ["a3"]);
    assert!(report.findings.unmatched.iter().any(|unmatched| unmatched.ids.iter().any(|id| id.ends_with("stray.npy"))));
}

#[test]
fn computational_sequences_are_aligned_to_words_and_split_by_the_folds() {
    let names =
        ["TimestampedWords", "Labels", "COVAREP", "VisualFacet42"].map(|name| format!("csd/CMU_MOSEI_{name}.csd"));
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.push("csd/cmu_mosei_std_folds.py");
    let (report, samples) = Import::of(&names).samples(Format::Csd);
    assert_eq!(counts(&samples), [2, 2, 2]);
    let first = of(&samples, Split::Train, "v-0[0]");
    // The pause is gone.
    assert_eq!((first.text.as_str(), first.labels.score), ("so it goes", Some(1.0)));
    // Frames 0 and 1 overlap 0.0 to 0.4; an infinite value became zero before the mean. Then 2 and 3, then 4 and 5.
    assert_eq!(acoustic(first), [0.5, 1.0, 2.5, 2.0, 4.5, 2.0]);
    assert!(first.visual.is_none());
    let second = of(&samples, Split::Test, "v2[1]");
    assert_eq!((second.text.as_str(), second.labels.score, second.turn), ("on", Some(-2.0), Some(1)));
    assert_eq!((acoustic(second), visual(second)), (&[9.0, 2.0][..], &[1.0, 1.0, 1.0][..]));
    assert_eq!(unmatched(&report, "videos of the folds without labels"), ["gone"]);
    assert_eq!(unmatched(&report, "that are in no fold, left out"), ["other"]);
    assert_eq!(report.splits[&Split::Train].bad_values, 1);
}

#[test]
fn sequences_that_were_aligned_before_keep_their_utterances() {
    let names = ["csd/aligned/words.csd", "csd/aligned/Opinion_Labels.csd", "csd/cmu_mosei_std_folds.py"];
    let (report, samples) = Import::of(&names).samples(Format::Csd);
    assert_eq!(samples.iter().map(|sample| sample.id.as_str()).collect::<Vec<_>>(), ["v-0[0]", "v-0[2]", "v-0[10]"]);
    assert!(samples.iter().all(|sample| sample.text == "so" && sample.labels.score == Some(0.5)));
    assert_noted(&report, "note: split `valid` has no samples");
}
