//! Tokens against transformers: 1,000 texts, from `spiece.model` and from the `tokenizer.json` that transformers makes
//! of it.
//!
//! The fixtures are made by `golden/make_tokens.py`. Numbers and decoded text must be identical, all of them.
//! SentencePiece's own library cuts 51 of the 894 texts without T5's marks otherwise than transformers does, and there
//! this program stays with transformers, with which published T5 models are used:
//!
//! - 26 have loose combining marks. The table of characters is asked for a letter with its marks, and gives the
//!   replacement of the longest that it knows or of its first part; then the rest is lost, where SentencePiece goes on
//!   behind that part.
//! - 21 have U+0085, which is whitespace here and an unknown character there.
//! - 2 have a mark that appears only through normalisation (`＜/s＞`): the mark here, its characters there.
//! - 2 can be cut in two ways with the same score (`...` as `.` `..` or `..` `.`): sums of 64 bits here, of 32 there.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use unimse_data::tokenizer::Tokenizer;

#[derive(Deserialize)]
struct Golden {
    /// Text, numbers of its tokens, and what transformers decodes them to.
    rows: Vec<(String, Vec<i64>, String)>,
    sentencepiece_differs: Vec<usize>,
}

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

fn golden() -> Golden {
    serde_json::from_slice(&fixture("tokens.json.gz")).unwrap()
}

fn of_spiece() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("spiece.model"), fixture("spiece.model.gz")).unwrap();
    Tokenizer::open(folder.path()).unwrap()
}

/// The file of transformers, with the table of characters, which the fixture leaves out because it is that of
/// spiece.model.
fn theirs() -> serde_json::Value {
    let ours: serde_json::Value = serde_json::from_str(&of_spiece().to_json().unwrap()).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&fixture("tokenizer.json.gz")).unwrap();
    json["normalizer"]["precompiled_charsmap"] = ours["normalizer"]["precompiled_charsmap"].clone();
    json
}

/// Fails unless all texts have the numbers that transformers gives them; the line that is printed is what `cargo xtask
/// bench golden` makes a table of.
#[expect(clippy::print_stdout, reason = "the line is read by a program")]
fn compare(tokenizer: &Tokenizer, from: &str) {
    let golden = golden();
    assert_eq!(golden.rows.len(), 1000);
    let mut other = Vec::new();
    for (text, expected, decoded) in &golden.rows {
        let ids = tokenizer.encode(text).unwrap();
        let said = tokenizer.decode(expected).unwrap();
        if ids != *expected {
            other.push(format!("{text:?}: {ids:?}, transformers {expected:?}"));
        } else if said != *decoded {
            other.push(format!("{text:?}: decoded {said:?}, transformers {decoded:?}"));
        }
    }
    println!("golden {from} texts-with-other-tokens {} 5e-4", other.len() as f64 / golden.rows.len() as f64);
    assert!(other.is_empty(), "{} of 1000 differ:\n{}", other.len(), other.join("\n"));
}

#[test]
fn tokens_from_spiece_model_are_those_of_transformers() {
    compare(&of_spiece(), "spiece.model");
}

#[test]
fn tokens_from_tokenizer_json_are_those_of_transformers() {
    let json = theirs().to_string();
    compare(&Tokenizer::parse(json.as_bytes(), "tokenizer.json").unwrap(), "tokenizer.json");
}

#[test]
fn what_is_made_of_spiece_model_is_the_tokenizer_json_of_transformers() {
    let ours: serde_json::Value = serde_json::from_str(&of_spiece().to_json().unwrap()).unwrap();
    let theirs = theirs();
    for part in theirs.as_object().unwrap().keys() {
        assert!(ours[part] == theirs[part], "{part} differs");
    }
}

#[test]
fn ordinary_texts_are_cut_as_sentencepiece_does() {
    let golden = golden();
    assert_eq!(golden.sentencepiece_differs.len(), 51);
    let texts = golden.sentencepiece_differs.iter().map(|&index| &golden.rows[index].0);
    let strange = |c: char| c == '\u{85}' || !c.is_ascii() && !c.is_whitespace();
    let ordinary: Vec<&String> = texts.filter(|text| !text.contains(strange)).collect();
    // The ties.
    assert_eq!(ordinary.len(), 2);
    assert!(ordinary.iter().all(|text| text.contains("...")), "{ordinary:?}");
}

#[test]
fn a_damaged_model_is_refused_or_read_and_never_panics() {
    let whole = fixture("spiece.model.gz");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spiece.model");
    let texts: Vec<String> = golden().rows.into_iter().step_by(40).map(|(text, ..)| text).collect();
    let (mut refused, mut read) = (0, 0);
    for round in 0..80_usize {
        let mut bytes = whole.clone();
        // Strides that have no common divisor with the length reach all parts of the file.
        for place in 1..=(round % 4 + 1) {
            bytes[(round * 7919 + place * 104_729) % whole.len()] ^= 1 << (round % 8);
        }
        std::fs::write(&path, &bytes[..]).unwrap();
        match Tokenizer::open(&path) {
            Ok(tokenizer) => {
                read += 1;
                for text in &texts {
                    tokenizer.encode(text).unwrap();
                }
            }
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("hint: "), "{error}");
            }
        }
    }
    assert!(refused > 10 && read > 10, "{refused} refused, {read} read");
}
