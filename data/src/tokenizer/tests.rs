use super::*;
use crate::sample::{SampleOptions, write_samples};
use crate::schema::Split;

fn texts() -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let options = SampleOptions { train: 300, valid: 1, test: 1, ..SampleOptions::default() };
    let reports = write_samples(folder.path(), &options).unwrap();
    let paths: Vec<_> = reports.into_iter().map(|report| report.store).collect();
    let corpus = crate::corpus::Corpus::open(&paths, Split::Train).unwrap();
    corpus.texts().map(str::to_owned).collect()
}

fn trained(vocabulary: usize, extra_ids: usize) -> Tokenizer {
    let options = TokenizerOptions { vocabulary, extra_ids, ..TokenizerOptions::default() };
    Tokenizer::train(texts(), &options).unwrap()
}

#[test]
fn training_twice_gives_the_same_bytes() {
    let once = trained(400, 0).to_json().unwrap();
    assert_eq!(once, trained(400, 0).to_json().unwrap());
    // The order of the texts is not the tokenizer's business.
    let reversed: Vec<String> = texts().into_iter().rev().collect();
    let options = TokenizerOptions { vocabulary: 400, ..TokenizerOptions::default() };
    assert_eq!(once, Tokenizer::train(reversed, &options).unwrap().to_json().unwrap());
}

#[test]
fn every_target_can_be_said_and_comes_back() {
    let tokenizer = trained(400, 0);
    for target in ["negative,-1.2,sadness", "positive,0.67,joy", "neutral,0,neutral", "-3", "0.0", "surprise", "5678.9"]
    {
        let ids = tokenizer.encode(target).unwrap();
        assert!(!ids.contains(&UNK), "{target}: {ids:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), target);
    }
}

#[test]
fn digits_and_punctuation_stand_alone_and_label_words_are_whole() {
    let tokenizer = trained(400, 0);
    let pieces = |text: &str| -> Vec<String> {
        tokenizer.encode(text).unwrap().into_iter().map(|id| tokenizer.piece(id).unwrap()).collect()
    };
    let expected = ["▁negative", ",", "-", "1", ".", "2", "0", ",", "sadness", "</s>"];
    assert_eq!(pieces("negative,-1.20,sadness"), expected);
    let letters = |piece: &str| piece.chars().any(char::is_alphabetic);
    for id in 3..tokenizer.len() as i64 {
        let piece = tokenizer.piece(id).unwrap();
        let marks = piece.chars().filter(|c| c.is_ascii_digit() || c.is_ascii_punctuation()).count();
        assert!(marks == 0 || (marks == 1 && !letters(&piece)), "`{piece}` joins a word and a mark");
    }
}

#[test]
fn special_tokens_are_where_t5_has_them() {
    let tokenizer = trained(300, 3);
    assert!(tokenizer.len() <= 303);
    let numbers = ["<pad>", "</s>", "<unk>"].map(|token| tokenizer.id(token));
    assert_eq!(numbers, [Some(PAD), Some(EOS), Some(UNK)]);
    assert_eq!(tokenizer.id("<extra_id_0>"), Some(tokenizer.len() as i64 - 1));
    let ids = tokenizer.encode("one </s> two").unwrap();
    assert_eq!(ids.iter().filter(|id| **id == EOS).count(), 2);
    assert_eq!(ids.last(), Some(&EOS));
    assert!(tokenizer.encode("☃").unwrap().contains(&UNK));
}

#[test]
fn a_saved_tokenizer_encodes_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let tokenizer = trained(400, 0);
    tokenizer.save(&path).unwrap();
    let opened = Tokenizer::open(&path).unwrap();
    assert_eq!(opened.to_json().unwrap(), tokenizer.to_json().unwrap());
    for text in texts().iter().take(50) {
        assert_eq!(opened.encode(text).unwrap(), tokenizer.encode(text).unwrap());
    }
    // The file itself tells Hugging Face to end every text.
    let inner = tokenizers::Tokenizer::from_file(&path).unwrap();
    let theirs = inner.encode("honestly the music is dull", true).unwrap();
    let ours = tokenizer.encode("honestly the music is dull").unwrap();
    assert_eq!(theirs.get_ids().iter().map(|id| i64::from(*id)).collect::<Vec<_>>(), ours);
}

#[test]
fn spaces_and_compatibility_characters_are_normalised() {
    let tokenizer = trained(400, 0);
    let plain = tokenizer.encode("the music is fine").unwrap();
    assert_eq!(tokenizer.encode("  the\tmusic \n is ﬁne ").unwrap(), plain);
}

#[test]
fn a_vocabulary_too_small_for_the_characters_is_an_error() {
    let options = TokenizerOptions { vocabulary: 20, ..TokenizerOptions::default() };
    let error = Tokenizer::train(texts(), &options).unwrap_err().to_string();
    assert!(error.contains("20 tokens are too few"), "{error}");
    assert!(error.contains("hint: use a larger --vocabulary"), "{error}");
}

#[test]
fn a_tokenizer_that_is_not_of_t5_is_refused() {
    let error = Tokenizer::parse(b"{}", "some.json").unwrap_err().to_string();
    assert!(error.contains("some.json is not a tokenizer.json"), "{error}");
    let vocabulary = r#"{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0.0],["a",-1.0]]}"#;
    let other = format!(
        r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":null,"post_processor":null,"decoder":null,"model":{vocabulary}}}"#
    );
    let error = Tokenizer::parse(other.as_bytes(), "other.json").unwrap_err().to_string();
    assert!(error.contains("other.json has <pad> = None"), "{error}");
}

#[test]
fn a_folder_is_read_by_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let error = Tokenizer::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("has neither tokenizer.json nor spiece.model"), "{error}");

    // Three pieces: <pad>, </s>, <unk>.
    let model = b"\x0a\x09\x0a\x05<pad>\x18\x03\x0a\x08\x0a\x04</s>\x18\x03\x0a\x09\x0a\x05<unk>\x18\x02";
    std::fs::write(file("spiece.model"), model).unwrap();
    assert_eq!(Tokenizer::open(folder.path()).unwrap().len(), 103);
    assert_eq!(Tokenizer::open(&file("spiece.model")).unwrap().len(), 103);
    std::fs::write(file("tokenizer_config.json"), r#"{"extra_ids": 5, "eos_token": "</s>"}"#).unwrap();
    let five = Tokenizer::open(folder.path()).unwrap();
    assert_eq!((five.len(), five.id("<extra_id_0>")), (8, Some(7)));
    assert_eq!(Tokenizer::open_json(folder.path()).unwrap(), five.to_json().unwrap());

    let json = trained(300, 0).to_json().unwrap();
    std::fs::write(file("tokenizer.json"), &json).unwrap();
    assert_eq!(Tokenizer::open_json(folder.path()).unwrap(), json);
    assert_eq!(Tokenizer::open(folder.path()).unwrap().to_json().unwrap(), json);
}

#[test]
fn what_stands_beside_a_sentencepiece_model_must_fit_it() {
    let folder = tempfile::tempdir().unwrap();
    let model = b"\x0a\x09\x0a\x05<pad>\x18\x03\x0a\x08\x0a\x04</s>\x18\x03\x0a\x09\x0a\x05<unk>\x18\x02";
    std::fs::write(folder.path().join("spiece.model"), model).unwrap();
    for (config, said) in [
        (r#"{"extra_ids": -1}"#, "tokenizer_config.json: invalid value"),
        (r#"{"extra_ids": 4000000000}"#, "extra_ids is 4000000000, more than 10000"),
        (
            r#"{"added_tokens_decoder": {"103": {"content": "<who>"}}}"#,
            "adds `<who>` as 103, spiece.model does not have it",
        ),
        (r#"{"added_tokens_decoder": {"9": {"content": "</s>"}}}"#, "adds `</s>` as 9, spiece.model has it as 1"),
    ] {
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        let error = Tokenizer::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert!(error.contains("hint: "), "{error}");
    }
    let known = r#"{"added_tokens_decoder": {"1": {"content": "</s>"}, "102": {"content": "<extra_id_0>"}}}"#;
    std::fs::write(folder.path().join("tokenizer_config.json"), known).unwrap();
    assert_eq!(Tokenizer::open(folder.path()).unwrap().len(), 103);

    // A sparse file: it takes no room, and its length is told.
    let huge = folder.path().join("huge.model");
    std::fs::File::create(&huge).unwrap().set_len(40 << 30).unwrap();
    let error = Tokenizer::open(&huge).unwrap_err().to_string();
    assert!(error.contains("has 42949672960 bytes, more than the 16777216 that one may have"), "{error}");
}
