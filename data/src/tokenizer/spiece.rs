//! A T5 tokenizer from `spiece.model`, the SentencePiece file that older T5 directories have instead of a
//! `tokenizer.json`.
//!
//! It becomes what transformers 5 makes of it: the table of replaced characters, words by whitespace, `▁` before each,
//! the pieces with their scores, `</s>` behind, and `<extra_id_99>` to `<extra_id_0>` after the last piece.
//! `tests/golden.rs` compares the two.
//!
//! - `wire` reads protocol buffers, `proto` the fields of SentencePiece's.

use std::collections::HashMap;

use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::Precompiled;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer as Inner};

use self::proto::{Kind, Model, Normalizer, Piece, Trainer};
use self::wire::Fault;
use super::{EOS, SPECIAL, UNK, charsmap};
use crate::error::Error;

mod proto;
mod wire;

#[cfg(test)]
mod tests;

/// What T5 has, where nothing else is said.
pub(super) const EXTRA_IDS: usize = 100;

/// How to get round what this cannot read.
pub(super) const CONVERT: &str = "save the tokenizer with transformers (`save_pretrained`) and give the tokenizer.json that it writes, which is read first";
const WHOLE: &str = "copy spiece.model again from where the model was published, as a whole";

/// Builds the tokenizer of a SentencePiece file; `name` appears in errors.
pub(super) fn build(bytes: &[u8], name: &str, extra_ids: usize) -> Result<Inner, Error> {
    let refuse =
        |problem: String, hint: &str| Error::Tokenizer { problem: format!("{name}{problem}"), hint: hint.to_owned() };
    recognise(bytes).map_err(|(problem, hint)| refuse(format!(" {problem}"), hint))?;
    let at = |fault: Fault, hint| refuse(format!(" at byte {}: {}", fault.place, fault.problem), hint);
    let model = Model::read(bytes).map_err(|fault| at(fault, WHOLE))?;
    unigram_of_t5(&model.trainer, &model.normalizer).map_err(|problem| refuse(format!(": {problem}"), CONVERT))?;
    fitting(&model.pieces, extra_ids).map_err(|(fault, hint)| at(fault, hint))?;
    assemble(&model, extra_ids).map_err(|(problem, hint)| refuse(format!(": {problem}"), hint))
}

/// Tells files that are often in the place of a SentencePiece file.
fn recognise(bytes: &[u8]) -> Result<(), (&'static str, &'static str)> {
    if bytes.is_empty() {
        return Err(("is empty", WHOLE));
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(("is a pointer of Git LFS, not the file itself", "fetch the file with `git lfs pull`"));
    }
    if bytes.trim_ascii_start().starts_with(b"<") {
        return Err(("is a web page, not a SentencePiece model", WHOLE));
    }
    Ok(())
}

/// Refuses what T5's way of cutting would silently get wrong.
fn unigram_of_t5(trainer: &Trainer, normalizer: &Normalizer<'_>) -> Result<(), String> {
    if trainer.model_type != 1 {
        let name = match trainer.model_type {
            2 => "BPE",
            3 => "words",
            4 => "characters",
            _ => "unknown",
        };
        return Err(format!("trainer_spec.model_type is {} ({name}), T5's is 1 (unigram)", trainer.model_type));
    }
    let flags = [
        ("trainer_spec.treat_whitespace_as_suffix", trainer.space_behind, false),
        ("trainer_spec.byte_fallback", trainer.byte_fallback, false),
        ("normalizer_spec.add_dummy_prefix", normalizer.add_dummy_prefix, true),
        ("normalizer_spec.remove_extra_whitespaces", normalizer.remove_extra_whitespaces, true),
        ("normalizer_spec.escape_whitespaces", normalizer.escape_whitespaces, true),
    ];
    match flags.into_iter().find(|(_, found, expected)| found != expected) {
        Some((flag, found, expected)) => Err(format!("{flag} is {found}, T5's is {expected}")),
        None => Ok(()),
    }
}

/// Checks that the numbers are those of a T5 and that no piece is there twice.
fn fitting(pieces: &[Piece<'_>], extra_ids: usize) -> Result<(), (Fault, &'static str)> {
    if pieces.is_empty() {
        return Err((Fault::new(0, "there are no pieces: it is not a SentencePiece model"), WHOLE));
    }
    for (expected, token) in SPECIAL.into_iter().enumerate() {
        let found = pieces.iter().position(|piece| piece.text == token);
        if found != Some(expected) {
            let place = pieces.get(found.unwrap_or(expected)).map_or(0, |piece| piece.place);
            let found = found.map_or_else(|| "missing".to_owned(), |id| format!("piece {id}"));
            let problem = format!("`{token}` is {found}, a T5 has it as piece {expected}");
            return Err((
                Fault::new(place, problem),
                "give the spiece.model of a T5: others number these tokens otherwise",
            ));
        }
    }
    let mut known = HashMap::with_capacity(pieces.len());
    for (id, piece) in pieces.iter().enumerate() {
        if let Some(first) = known.insert(piece.text, id) {
            let problem = format!("piece {id} is `{}`, as piece {first} is", piece.text);
            return Err((Fault::new(piece.place, problem), WHOLE));
        }
        if (piece.kind == Kind::Unknown) != (id == UNK as usize) {
            let kind = piece.kind;
            let problem = format!("piece {id} (`{}`) is of type {kind:?}, only <unk> is Unknown", piece.text);
            return Err((Fault::new(piece.place, problem), WHOLE));
        }
    }
    for token in extra(extra_ids) {
        if let Some(&id) = known.get(token.as_str()) {
            let problem = format!("piece {id} is `{token}`, which would come a second time after the last piece");
            return Err((
                Fault::new(pieces[id].place, problem),
                "write \"extra_ids\": 0 into tokenizer_config.json beside it",
            ));
        }
    }
    Ok(())
}

/// The sentinels in the order of their numbers: T5 counts them downwards.
fn extra(extra_ids: usize) -> impl Iterator<Item = String> {
    (0..extra_ids).rev().map(|index| format!("<extra_id_{index}>"))
}

fn assemble(model: &Model<'_>, extra_ids: usize) -> Result<Inner, (String, &'static str)> {
    let failed = |cause: &dyn std::fmt::Display| (cause.to_string(), CONVERT);
    let pieces = model.pieces.iter().map(|piece| (piece.text.to_owned(), f64::from(piece.score)));
    let vocabulary = pieces.chain(extra(extra_ids).map(|token| (token, 0.0))).collect();
    let unigram = Unigram::from(vocabulary, Some(UNK as usize), false).map_err(|cause| failed(&cause))?;
    let mut tokenizer = Inner::new(unigram);

    let charsmap = model.normalizer.charsmap;
    if !charsmap.is_empty() {
        let damaged = |problem: String| (format!("normalizer_spec.precompiled_charsmap: {problem}"), WHOLE);
        charsmap::check(charsmap).map_err(damaged)?;
        let table = Precompiled::from(charsmap).map_err(|cause| damaged(cause.to_string()))?;
        tokenizer.with_normalizer(Some(table)).map_err(|cause| failed(&cause))?;
    }
    let metaspace = || Metaspace::new('▁', PrependScheme::Always, true);
    let template = TemplateProcessing::builder()
        .try_single("$A </s>")
        .and_then(|template| template.try_pair("$A </s> $B </s>"))
        .map_err(|cause| failed(&cause))?
        .special_tokens(vec![(SPECIAL[EOS as usize], EOS as u32)])
        .build()
        .map_err(|cause| failed(&cause))?;
    tokenizer
        .with_pre_tokenizer(Some(PreTokenizers::new(vec![WhitespaceSplit.into(), metaspace().into()])))
        .with_post_processor(Some(template))
        .with_decoder(Some(DecoderWrapper::Metaspace(metaspace())));
    tokenizer.add_tokens(added(&model.pieces, extra_ids)).map_err(|cause| failed(&cause))?;
    Ok(tokenizer)
}

/// The tokens that are looked for in a text before it is normalised and cut: marks, which decoding leaves out, and
/// symbols of the user.
fn added(pieces: &[Piece<'_>], extra_ids: usize) -> Vec<AddedToken> {
    let own = pieces.iter().filter_map(|piece| match piece.kind {
        Kind::Control | Kind::Unknown => Some(AddedToken::from(piece.text, true)),
        Kind::UserDefined => Some(AddedToken::from(piece.text, SPECIAL.contains(&piece.text)).normalized(false)),
        // They are marks for transformers, of whatever type the file has them.
        Kind::Normal | Kind::Byte if SPECIAL.contains(&piece.text) => Some(AddedToken::from(piece.text, true)),
        Kind::Normal | Kind::Byte => None,
    });
    own.chain(extra(extra_ids).map(|token| AddedToken::from(token, true))).collect()
}
