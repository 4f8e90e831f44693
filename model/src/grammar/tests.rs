use proptest::prelude::*;

use super::*;
use crate::labels::{EmotionVocabulary, Polarity};

pub(crate) const END: i64 = 1;

/// Tokenises like SentencePiece does: greedily into known pieces, the first of a text with a mark for the word's start.
pub(crate) fn pieces(text: &str) -> Vec<i64> {
    const PIECES: [&str; 24] = [
        "negative", "neutral", "positive", "none", "sad", "ness", "joy", ",", "-", "0", "1", "2", "3", ".", ".5", "1.",
        "an", "ger", "fear", "disgust", "surprise", "excited", "frustrat", "ed",
    ];
    let mut tokens = vec![];
    let mut rest = text;
    while !rest.is_empty() {
        let known = (0..PIECES.len()).filter(|&piece| rest.starts_with(PIECES[piece]));
        let (token, length) = match known.max_by_key(|&piece| PIECES[piece].len()) {
            Some(piece) => (10 + piece as i64, PIECES[piece].len()),
            None => (100 + i64::from(rest.as_bytes()[0]), 1),
        };
        tokens.push(if tokens.is_empty() { token + 300 } else { token });
        rest = &rest[length..];
    }
    tokens
}

pub(crate) fn schema() -> LabelSchema {
    LabelSchema::try_new(vec![EmotionVocabulary::meld(), EmotionVocabulary::iemocap()]).unwrap()
}

pub(crate) fn grammar() -> Grammar {
    Grammar::try_new(&schema(), END, pieces).unwrap()
}

fn arbitrary_labels() -> impl Strategy<Value = Labels> {
    let polarity = prop::option::of(prop::sample::select(Polarity::ALL.to_vec()));
    let score = prop::option::of((-30_i64..=30).prop_map(|step| step as f64 / 10.0));
    let emotions = (prop::option::of(0_usize..7), prop::option::of(0_usize..6));
    (polarity, score, emotions).prop_map(|(polarity, score, (meld, iemocap))| Labels {
        polarity,
        score,
        emotions: vec![meld, iemocap],
    })
}

proptest! {
    #[test]
    fn targets_read_back_as_the_labels_they_were_made_of(labels in arbitrary_labels()) {
        let grammar = grammar();
        let ids = grammar.target_ids(&labels);
        prop_assert!(ids.len() <= grammar.max_tokens());
        prop_assert_eq!(ids.last(), Some(&END));
        prop_assert_eq!(grammar.parse_ids(&ids), Some(labels.clone()));
        let padded = [ids.as_slice(), &[0, 0, -100]].concat();
        prop_assert_eq!(grammar.parse_ids(&padded), Some(labels));
        prop_assert_eq!(grammar.parse_ids(&ids[..ids.len() - 1]), None);
    }
}

#[test]
fn a_target_has_the_tokens_of_its_whole_string() {
    let grammar = grammar();
    let labels = Labels { polarity: Some(Polarity::Negative), score: Some(-1.5), emotions: vec![Some(3), None] };
    let mut expected = pieces("negative,-1.5,sadness,none");
    expected.push(END);
    assert_eq!(grammar.target_ids(&labels), expected);
}

#[test]
fn a_tokenizer_that_merges_across_commas_still_gives_a_grammar() {
    // Every comma swallows the character before it, so no anchor is a prefix of its continuation.
    let merging = |text: &str| -> Vec<i64> {
        let bytes = text.as_bytes();
        let mut tokens = vec![];
        let mut at = 0;
        while at < bytes.len() {
            let glued = at + 1 < bytes.len() && (bytes[at] == b',' || bytes[at + 1] == b',');
            let pair = || 1000 + i64::from(bytes[at]) * 256 + i64::from(bytes[at + 1]);
            tokens.push(if glued { pair() } else { i64::from(bytes[at]) });
            at += if glued { 2 } else { 1 };
        }
        tokens
    };
    let grammar = Grammar::try_new(&schema(), END, merging).unwrap();
    let labels = Labels { polarity: None, score: Some(0.5), emotions: vec![Some(6), Some(0)] };
    assert_eq!(grammar.parse_ids(&grammar.target_ids(&labels)), Some(labels));
}

#[test]
fn words_that_tokenise_alike_are_refused_by_name() {
    let check = |encode: fn(&str) -> Vec<i64>| {
        let error = Grammar::try_new(&schema(), END, encode).unwrap_err().to_string();
        assert!(error.contains("hint:"), "{error}");
        error
    };
    let all_unknown = check(|text| text.split(',').map(|_| 2).collect());
    assert!(all_unknown.contains("`neutral`"), "{all_unknown}");
    check(|_| vec![]);
    // `sadness,` would start with all of `sad,` if commas had no token.
    let sad = LabelSchema::try_new(vec![EmotionVocabulary::from_words("e", &["sad", "sadness"])]).unwrap();
    let without_commas = |text: &str| pieces(&text.replace(',', ""));
    assert!(Grammar::try_new(&sad, 2, |text| without_commas(text)).is_ok(), "the end token tells them apart");
    let vocabulary = |name| EmotionVocabulary::from_words(name, &["sad", "sadness"]);
    let two = LabelSchema::try_new(vec![vocabulary("d"), vocabulary("e")]).unwrap();
    assert!(Grammar::try_new(&two, END, without_commas).is_err());
}

#[test]
fn a_task_forbids_none_in_its_own_fields_only() {
    let grammar = grammar();
    let accepts = |task: Option<Task>, labels: &Labels| {
        let permitted = grammar.permitted(task);
        let mut state = START;
        grammar.target_ids(labels).iter().all(|id| {
            let place = grammar.alphabet().binary_search(id).unwrap();
            let edge = permitted.iter().find(|(from, token, _)| (*from, *token) == (state, place));
            state = edge.map_or(state, |(.., target)| *target);
            edge.is_some()
        })
    };
    let schema = schema();
    let scored = Labels::of_score(&schema, 1.0);
    let sad = Labels::of_emotion(&schema, 0, 3, None);
    assert!(accepts(None, &scored) && accepts(None, &sad));
    assert!(accepts(Some(Task::Sentiment), &scored) && !accepts(Some(Task::Sentiment), &sad));
    assert!(accepts(Some(Task::Emotion(0)), &sad) && !accepts(Some(Task::Emotion(0)), &scored));
    assert!(!accepts(Some(Task::Emotion(1)), &sad));
}
