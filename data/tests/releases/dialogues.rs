//! Releases of MELD and IEMOCAP.

use super::*;

const MELD: [&str; 3] = ["meld/train_sent_emo.csv", "meld/dev_sent_emo.csv", "meld/test_sent_emo.csv"];

fn meld_with(more: &[&'static str]) -> Import {
    Import::of(&[&MELD[..], more].concat())
}

#[test]
fn meld_alone_has_words_and_context() {
    let (report, samples) = meld_with(&[]).samples(Format::Meld);
    assert_eq!(counts(&samples), [3, 1, 2]);
    assert_eq!(of(&samples, Split::Train, "dia0_utt0").source_text(), "</s> Ann Hi. </s> Bo Oh no!");
    assert!(report.findings.unmatched.is_empty());
}

#[test]
fn meld_takes_its_features_by_utterance_or_by_dialogue() {
    let files = [
        "meld/audio_embeddings_feature_selection_emotion.pkl",
        "meld/visual_emotion.pkl",
        "meld/text_glove_average_emotion.pkl",
    ];
    let (report, samples) = meld_with(&files).samples(Format::Meld);
    let second = of(&samples, Split::Train, "dia0_utt2");
    // Its number is 2, and it is the second of its dialogue.
    assert_eq!((second.acoustic.as_ref(), visual(second)), (None, &[2.0, 2.0][..]));
    assert_eq!(acoustic(of(&samples, Split::Test, "dia0_utt1")), [2., 3., 4.]);
    assert_eq!(unmatched(&report, "train rows without acoustic features in audio_embeddings"), ["dia0_utt2"]);
    assert_eq!(unmatched(&report, "acoustic features of train in audio_embeddings"), ["7_7"]);
    assert_noted(&report, "text_glove_average_emotion.pkl has vectors of text, which are not used");
}

#[test]
fn unimses_meld_has_universal_labels_and_gives_back_its_utterances() {
    let names = [
        "unimse/new_train_sent_emo-v4.csv",
        "unimse/new_dev_sent_emo-v4.csv",
        "unimse/new_test_sent_emo-v4.csv",
        "unimse/meld_data_0610.pkl",
    ];
    let (report, samples) = Import::of(&names).samples(Format::Unimse);
    assert_eq!(counts(&samples), [3, 1, 2]);
    let second = of(&samples, Split::Train, "dia0_utt2");
    assert_eq!((second.text.as_str(), second.source_text()), ("Oh no!", "Ann Hi. </s> Bo Oh no! </s>"));
    assert_eq!((second.labels.score, second.labels.emotions["iemocap"].as_str()), (Some(0.6), "excited"));
    assert_eq!(second.visual.as_ref().unwrap().frames(), 4);
    assert_eq!(unmatched(&report, "test rows without visual features in meld_data_0610.pkl"), ["dia0_utt1"]);
    assert_noted(&report, "new_dev_sent_emo-v4.csv: 1 rows of ids -1, which mark the end");
}

const IEMOCAP: [&str; 2] = ["unimse/new-iemocap-label-v4.csv", "unimse/iemocap_data_0610.pkl"];

#[test]
fn unimses_iemocap_is_split_by_its_pickle_and_has_the_context_of_one_speaker() {
    let mut import = Import::of(&IEMOCAP);
    import.options.skip_bad = true;
    let (report, samples) = import.samples(Format::Unimse);
    assert_eq!(counts(&samples), [5, 3, 2]);
    let first = of(&samples, Split::Train, "Ses01F_impro01_F000");
    assert_eq!(first.source_text(), "</s> Line 0. </s> Line 1. Line 2.");
    assert_eq!((first.speaker.as_deref(), first.dialogue.as_deref()), (Some("F"), Some("Ses01F_impro01")));
    let second = of(&samples, Split::Train, "Ses01F_impro01_F001");
    assert_eq!((second.labels.polarity, second.labels.score), (Some(Polarity::Positive), Some(0.5)));
    assert_eq!((second.labels.emotions["iemocap"].as_str(), second.labels.emotions["meld"].as_str()), ("joy", "joy"));
    // One row has `sur`, which is none of the six, and one is in no split.
    assert_eq!(report.rejected[0].problem.split(',').next(), Some("label is `sur`"));
    assert_eq!(unmatched(&report, "whose id is in no split of the pickle"), ["Ses01F_impro01_M002"]);
    let mut import = Import::of(&IEMOCAP);
    import.options = ImportOptions {
        context: ContextWindow::new(1, 0),
        turns: Some(Turns::All),
        names: Some(true),
        skip_bad: true,
        ..import.options
    };
    let (_, samples) = import.samples(Format::Unimse);
    assert_eq!(of(&samples, Split::Train, "Ses01F_impro01_M000").source_text(), "F Line 2. </s> M Line 0. </s>");
}

#[test]
fn the_copied_labels_of_unimses_iemocap_are_found_and_not_taken() {
    let contexts = "unimse/new-iemocap-label-v4-contexts.csv";
    let run = |names: &[&str]| {
        let mut import = Import::of(names);
        import.options.skip_bad = true;
        import.samples(Format::Unimse)
    };
    let (alone, samples) = run(&[contexts, IEMOCAP[1]]);
    assert_noted(&alone, "score_label and meld_label never change within a document, so they were copied");
    assert!(samples.iter().all(|sample| sample.labels.score.is_none() && !sample.labels.emotions.contains_key("meld")));
    let (beside, samples) = run(&[contexts, IEMOCAP[0], IEMOCAP[1]]);
    assert_noted(&beside, "new-iemocap-label-v4-contexts.csv: 8 rows have labels copied from other rows");
    let (_, right) = run(&IEMOCAP);
    assert_eq!(samples, right);
}

#[test]
fn dialoguernns_iemocap_has_its_splits_and_the_first_tenth_as_valid() {
    let (report, samples) = Import::of(&["dialoguernn/IEMOCAP_features.pkl"]).samples(Format::DialogueRnn);
    assert_eq!(counts(&samples).iter().sum::<usize>(), 30);
    let dialogues = |split| {
        let named = samples.iter().filter(|sample| sample.split == split).map(|sample| sample.dialogue.clone());
        named.collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(Split::ALL.map(dialogues), [9, 1, 2]);
    let last = of(&samples, Split::Test, "Ses02F_impro11_F002");
    assert_eq!((last.labels.emotions["iemocap"].as_str(), last.labels.polarity), ("excited", Some(Polarity::Positive)));
    assert_eq!(last.source_text(), "Ses02F_impro11 says 0 </s> Ses02F_impro11 says 2 </s>");
    assert_eq!((acoustic(last), visual(last)), (&[3.0; 4][..], &[4.0; 6][..]));
    assert_noted(&report, "the first tenth of the training dialogues is it, as in COGMEN");
}

#[test]
fn dialoguernns_meld_knows_speakers_by_number_and_has_no_sight() {
    let (_, samples) = Import::of(&["dialoguernn/MELD_features_raw.pkl"]).samples(Format::DialogueRnn);
    let first = of(&samples, Split::Valid, "0_0");
    assert_eq!((first.speaker.as_deref(), first.labels.emotions["meld"].as_str()), (Some("0"), "sadness"));
    assert_eq!(first.source_text(), "</s> 0 says 0 </s> 0 says 1");
    assert!(samples.iter().all(|sample| sample.visual.is_none() && sample.acoustic.is_some()));
    assert_eq!(counts(&samples), [23, 2, 2]);
}

#[test]
fn cogmens_mosei_has_scores_words_and_a_dev_list() {
    let (report, samples) = Import::of(&["dialoguernn/tbje_mosei.pkl"]).samples(Format::DialogueRnn);
    assert_eq!(counts(&samples), [2, 3, 2]);
    let second = of(&samples, Split::Train, "vid a_M001");
    assert_eq!((second.labels.score, second.text.as_str()), (Some(0.0), "two words1"));
    assert_eq!(second.acoustic.as_ref().unwrap().frames(), 3);
    assert!(report.findings.notes.is_empty());
}
