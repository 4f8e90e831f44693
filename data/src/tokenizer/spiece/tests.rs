use super::*;
use crate::tokenizer::Tokenizer;

/// Writes a SentencePiece file: the few bytes of protocol buffers that one needs.
struct File(Vec<u8>);

fn varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

impl File {
    fn message(&mut self, number: u64, inner: &[u8]) -> &mut Self {
        varint(number << 3 | 2, &mut self.0);
        varint(inner.len() as u64, &mut self.0);
        self.0.extend(inner);
        self
    }

    fn number(&mut self, number: u64, value: u64) -> &mut Self {
        varint(number << 3, &mut self.0);
        varint(value, &mut self.0);
        self
    }

    fn piece(&mut self, text: &str, score: f32, kind: u64) -> &mut Self {
        let mut piece = Self(Vec::new());
        piece.message(1, text.as_bytes());
        piece.0.push(2 << 3 | 5);
        piece.0.extend(score.to_le_bytes());
        piece.number(3, kind);
        self.message(1, &piece.0)
    }

    fn spec(&mut self, number: u64, field: u64, value: u64) -> &mut Self {
        let mut spec = Self(Vec::new());
        spec.number(field, value);
        self.message(number, &spec.0)
    }

    fn special() -> Self {
        let mut file = Self(Vec::new());
        file.piece("<pad>", 0.0, 3).piece("</s>", 0.0, 3).piece("<unk>", 0.0, 2);
        file
    }

    /// A whole small model: `▁`, three words and their letters.
    fn t5() -> Self {
        let mut file = Self::special();
        for (text, score) in [("▁", -2.0), ("▁good", -3.0), ("▁film", -3.5), ("s", -4.0), ("a", -5.0), ("b", -5.0)]
        {
            file.piece(text, score, 1);
        }
        file.spec(2, 3, 1);
        file
    }
}

fn read(file: &File, extra_ids: usize) -> Result<Tokenizer, Error> {
    Tokenizer::checked(build(&file.0, "a.model", extra_ids)?, "a.model")
}

fn refused(file: &File) -> String {
    read(file, 2).unwrap_err().to_string()
}

#[test]
fn a_model_cuts_text_as_t5_does() {
    let tokenizer = read(&File::t5(), 100).unwrap();
    assert_eq!(tokenizer.len(), 109);
    assert_eq!((tokenizer.id("<extra_id_99>"), tokenizer.id("<extra_id_0>")), (Some(9), Some(108)));
    assert_eq!(tokenizer.encode("  good\tfilms \n").unwrap(), [4, 5, 6, EOS]);
    assert_eq!(tokenizer.encode("good<extra_id_0> films</s>☃☃a").unwrap(), [4, 108, 5, 6, EOS, 3, UNK, 7, EOS]);
    assert_eq!(tokenizer.encode("").unwrap(), [EOS]);
    assert_eq!(tokenizer.decode(&[4, 5, 6, 108, EOS]).unwrap(), "good films");
    // It can be written and read as a tokenizer.json.
    let json = tokenizer.to_json().unwrap();
    let again = Tokenizer::parse(json.as_bytes(), "again").unwrap();
    assert_eq!(again.to_json().unwrap(), json);
    assert_eq!(again.encode("good<extra_id_0> films").unwrap(), [4, 108, 5, 6, EOS]);
}

#[test]
fn marks_and_symbols_of_the_user_are_found_wherever_they_stand() {
    let mut file = File::t5();
    file.piece("<who>", 0.0, 4).piece("<ctl>", 0.0, 3);
    let tokenizer = read(&file, 1).unwrap();
    assert_eq!(tokenizer.encode("a<who>b<ctl>").unwrap(), [3, 7, 9, 3, 8, 10, EOS]);
    // A mark is left out of text, a symbol is a part of it.
    assert_eq!(tokenizer.decode(&[4, 9, 10]).unwrap(), "good<who>");
}

#[test]
fn other_kinds_of_models_are_refused() {
    let mut bpe = File::t5();
    bpe.spec(2, 3, 2);
    let error = refused(&bpe);
    assert!(error.contains("a.model: trainer_spec.model_type is 2 (BPE), T5's is 1 (unigram)"), "{error}");
    assert!(error.contains("hint: save the tokenizer with transformers"), "{error}");
    for (spec, field, value, said) in [
        (2, 35, 1, "trainer_spec.byte_fallback is true, T5's is false"),
        (2, 24, 1, "trainer_spec.treat_whitespace_as_suffix is true, T5's is false"),
        (3, 3, 0, "normalizer_spec.add_dummy_prefix is false, T5's is true"),
        (3, 4, 0, "normalizer_spec.remove_extra_whitespaces is false, T5's is true"),
        (3, 5, 0, "normalizer_spec.escape_whitespaces is false, T5's is true"),
    ] {
        let mut file = File::t5();
        file.spec(spec, field, value);
        let error = refused(&file);
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn tokens_that_are_not_where_t5_has_them_are_refused() {
    let mut no_end = File(Vec::new());
    no_end.piece("<pad>", 0.0, 3).piece("<s>", 0.0, 3).piece("<unk>", 0.0, 2);
    let error = refused(&no_end);
    assert!(error.contains("a.model at byte 16: `</s>` is missing, a T5 has it as piece 1"), "{error}");
    let mut moved = File(Vec::new());
    moved.piece("<unk>", 0.0, 2).piece("</s>", 0.0, 3).piece("<pad>", 0.0, 3);
    assert!(refused(&moved).contains("`<pad>` is piece 2, a T5 has it as piece 0"), "{}", refused(&moved));
    let mut twice = File::t5();
    twice.piece("a", -9.0, 1);
    assert!(refused(&twice).contains("piece 9 is `a`, as piece 7 is"), "{}", refused(&twice));
    let mut own = File::t5();
    own.piece("<extra_id_1>", 0.0, 4);
    let error = refused(&own);
    assert!(error.contains("piece 9 is `<extra_id_1>`, which would come a second time"), "{error}");
    assert!(error.contains("hint: write \"extra_ids\": 0 into tokenizer_config.json"), "{error}");
    assert_eq!(read(&own, 0).unwrap().len(), 10);
    let mut unknown = File::t5();
    unknown.piece("<what>", 0.0, 2);
    assert!(refused(&unknown).contains("piece 9 (`<what>`) is of type Unknown"), "{}", refused(&unknown));
}

#[test]
fn pieces_that_cannot_be_are_refused() {
    let with = |text: &str, score, kind| {
        let mut file = File::t5();
        file.piece(text, score, kind);
        refused(&file)
    };
    assert!(with("", 0.0, 1).contains("a piece has no text"));
    assert!(with("c", f32::NAN, 1).contains("the score of `c` is NaN, not a finite number"));
    assert!(with("c", 0.0, 9).contains("a piece is of type 9, SentencePiece has 1 to 6"));
    assert!(with(&"c".repeat(100_000), 0.0, 1).contains("a piece has 100000 bytes, more than 512"));
    let mut many = File::t5();
    for number in 0..9_000 {
        many.piece(&format!("{number:0>500}"), 0.0, 1);
    }
    let said = "there are more than 1000000 pieces, or than 4194304 bytes in them";
    assert!(refused(&many).contains(said), "{}", refused(&many));
    let mut binary = File::t5();
    binary.message(1, b"\x0a\x02\xff\xfe");
    assert!(refused(&binary).contains("the text of a piece is not UTF-8"), "{}", refused(&binary));
    let mut table = File::t5();
    table.message(3, b"\x12\x04\xff\xff\xff\xff");
    let error = refused(&table);
    assert!(error.contains("precompiled_charsmap: its trie has 4294967295 bytes, of 0 that are there"), "{error}");
}

#[test]
fn files_that_are_something_else_are_told() {
    for (bytes, said) in [
        (&b""[..], "a.model is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "hint: fetch the file with `git lfs pull`"),
        (b"\n<!DOCTYPE html>", "a.model is a web page"),
        (b"PK\x03\x04", "a.model at byte "),
        (b"\x80\x02}q\x00.", "a.model at byte "),
        (b"\x28\x01", "there are no pieces: it is not a SentencePiece model"),
    ] {
        let error = refused(&File(bytes.to_vec()));
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_file_cut_anywhere_or_with_any_byte_changed_never_panics() {
    let whole = File::t5().0;
    let pieces = File::special().0.len();
    for length in 0..whole.len() {
        // Between two pieces a cut cannot be seen; before the third it is missed.
        let outcome = read(&File(whole[..length].to_vec()), 2);
        assert!(length >= pieces || outcome.is_err(), "{length}");
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            if let Ok(tokenizer) = read(&File(bytes), 2) {
                tokenizer.encode("good films, ab").unwrap();
            }
        }
    }
}
