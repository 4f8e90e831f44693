use super::*;

fn schema() -> LabelSchema {
    LabelSchema::try_new(vec![EmotionVocabulary::meld(), EmotionVocabulary::iemocap()]).unwrap()
}

#[test]
fn labels_are_written_field_by_field_with_none_for_the_unknown() {
    let schema = schema();
    assert_eq!(schema.render(&Labels::of_score(&schema, -1.2)), "negative,-1.2,none,none");
    assert_eq!(schema.render(&Labels::of_score(&schema, 0.666_666_686_534_881_6)), "positive,0.7,none,none");
    assert_eq!(schema.render(&Labels::of_score(&schema, 0.0)), "neutral,0.0,none,none");
    let sad = Labels::of_emotion(&schema, 0, 3, Some(Polarity::Negative));
    assert_eq!(schema.render(&sad), "negative,none,sadness,none");
    assert_eq!(schema.render(&Labels::of_emotion(&schema, 1, 5, None)), "none,none,none,frustrated");
    assert_eq!(schema.render(&Labels::default()), "none,none,none,none");
}

#[test]
fn scores_are_clamped_and_rounded_half_to_even() {
    let check = |score: f64, expected: &str| assert_eq!(score_word(score_step(score)), expected, "{score}");
    check(3.4, "3.0");
    check(-17.0, "-3.0");
    check(0.25, "0.2");
    check(0.75, "0.8");
    check(-0.04, "0.0");
    check(-0.0, "0.0");
    check(2.96, "3.0");
    check(-0.3, "-0.3");
}

#[test]
fn polarity_agrees_with_the_written_score() {
    for step in -320..=320 {
        let score = f64::from(step) / 100.0;
        let written = quantise_score(score);
        let expected = match written {
            w if w < 0.0 => Polarity::Negative,
            w if w > 0.0 => Polarity::Positive,
            _ => Polarity::Neutral,
        };
        assert_eq!(Polarity::of_score(score), expected, "{score}");
        assert!((written - score.clamp(-3.0, 3.0)).abs() <= 0.05 + 1e-12, "{score} became {written}");
    }
}

#[test]
fn every_label_string_reads_back() {
    let schema = schema();
    for polarity in [None, Some(Polarity::Negative), Some(Polarity::Neutral), Some(Polarity::Positive)] {
        for step in -31..=30 {
            // Step -31 stands for an unknown score.
            let score = (step >= -30).then(|| f64::from(step) / 10.0);
            for class in 0..=7 {
                let emotions = vec![(class < 7).then_some(class), (class < 6).then_some(class)];
                let labels = Labels { polarity, score, emotions };
                assert_eq!(schema.parse(&schema.render(&labels)).unwrap(), labels);
            }
        }
    }
}

#[test]
fn a_string_that_does_not_follow_the_schema_is_refused_by_field() {
    let schema = schema();
    let check = |text: &str, part: &str| {
        let error = schema.parse(text).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(text), "{error}");
    };
    check("negative,-1.2,sadness", "3 fields, the schema has 4");
    check("bad,-1.2,sadness,none", "`bad` is not a word of field polarity");
    check("negative,-1.23,sadness,none", "`-1.23` is not a word of field score");
    check("negative,-1.2,excited,none", "`excited` is not a word of field meld");
}

#[test]
fn a_vocabulary_that_cannot_be_written_is_refused() {
    let check = |words: &[&str], part: &str| {
        let error = LabelSchema::try_new(vec![EmotionVocabulary::from_words("e", words)]).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    check(&[], "no classes");
    check(&["a", "none"], "`none`");
    check(&["a,b"], "`a,b`");
    check(&["a", "a"], "twice");
    let twice = LabelSchema::try_new(vec![EmotionVocabulary::meld(), EmotionVocabulary::meld()]);
    assert!(twice.unwrap_err().to_string().contains("`meld` is listed twice"));
}

#[test]
fn a_schema_survives_json_and_a_bad_one_does_not_load() {
    let schema = schema();
    let json = serde_json::to_string(&schema).unwrap();
    assert_eq!(serde_json::from_str::<LabelSchema>(&json).unwrap(), schema);
    assert!(serde_json::from_str::<LabelSchema>(r#"{"emotions": [{"name": "e", "classes": []}]}"#).is_err());
}

#[test]
fn labels_are_made_of_a_stores_words_and_a_known_score_decides_the_polarity() {
    let schema = schema();
    let words = |name: &str| (name == "iemocap").then_some("excited");
    let labels = schema.labels_of(Some(Polarity::Positive), None, words).unwrap();
    assert_eq!(labels, Labels::of_emotion(&schema, 1, 4, Some(Polarity::Positive)));
    // A store may call 0.04 positive; it is written 0.0.
    let labels = schema.labels_of(Some(Polarity::Positive), Some(0.04), |_| None).unwrap();
    assert_eq!(labels, Labels::of_score(&schema, 0.04));
    let error = schema.labels_of(None, None, |_| Some("joyous")).unwrap_err().to_string();
    assert!(error.contains("`joyous`") && error.contains("`meld`"), "{error}");
    for polarity in Polarity::ALL {
        assert_eq!(Polarity::from_word(polarity.word()), Some(polarity));
    }
    assert_eq!(Polarity::from_word("Neutral"), None);
}
