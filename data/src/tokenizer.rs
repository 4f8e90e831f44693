//! Text to numbers and back, as T5 does it: a Unigram model over words marked by `▁`, `</s>` at the end.
//!
//! A tokenizer of a pretrained T5 is loaded from its `tokenizer.json`, or its `spiece.model` where it has no other; for
//! training from scratch [`Tokenizer::train`] makes one from a corpus. All use `<pad>` = 0, `</s>` = 1 and `<unk>` = 2,
//! and what they write loads in Hugging Face.

use std::path::Path;

use tokenizers::Tokenizer as Inner;

use self::folder::Source;
use crate::error::Error;

mod charsmap;
mod folder;
pub(crate) mod json;
mod spiece;
mod train;

pub use train::TokenizerOptions;

#[cfg(test)]
mod tests;

/// The number of `<pad>`, which fills rows of a batch and starts every decoded sequence.
pub const PAD: i64 = 0;
/// The number of `</s>`, which ends every sequence.
pub const EOS: i64 = 1;
/// The number of `<unk>`, for characters that no piece has.
pub const UNK: i64 = 2;

/// The special tokens in the order of their numbers.
pub(crate) const SPECIAL: [&str; 3] = ["<pad>", "</s>", "<unk>"];

/// Turns text into token numbers and back.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Inner,
}

impl Tokenizer {
    /// Trains a tokenizer on texts; the same texts and options give the same tokenizer, byte for byte.
    pub fn train<T: AsRef<str>>(texts: impl IntoIterator<Item = T>, options: &TokenizerOptions) -> Result<Self, Error> {
        Self::checked(train::train(texts, options)?, "the trained tokenizer")
    }

    /// Reads a `tokenizer.json`, a `spiece.model`, or the folder of a T5 that has one of them; where it has both,
    /// `tokenizer.json` is read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        match folder::read(path)? {
            Source::Json { bytes, name } => Self::parse(&bytes, &name),
            Source::Built(tokenizer) => Ok(*tokenizer),
        }
    }

    /// Reads the same as the text of a `tokenizer.json`: word for word where there is one.
    pub fn open_json(path: &Path) -> Result<String, Error> {
        match folder::read(path)? {
            Source::Json { bytes, name } => String::from_utf8(bytes).map_err(|error| Error::Tokenizer {
                problem: format!("{name} is not UTF-8 at byte {}", error.utf8_error().valid_up_to()),
                hint: "give the tokenizer.json of a T5, or one made by this program".to_owned(),
            }),
            Source::Built(tokenizer) => tokenizer.to_json(),
        }
    }

    /// Reads the bytes of a `tokenizer.json`; `name` appears in errors.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self, Error> {
        json::check(bytes, name)?;
        let inner = Inner::from_bytes(bytes).map_err(|cause| Error::Tokenizer {
            problem: format!("{name} is not a tokenizer.json: {cause}"),
            hint: "give the tokenizer.json of a T5, or one made by this program".to_owned(),
        })?;
        Self::checked(inner, name)
    }

    fn checked(mut inner: Inner, name: &str) -> Result<Self, Error> {
        for (expected, token) in SPECIAL.into_iter().enumerate() {
            let found = inner.token_to_id(token);
            if found != Some(expected as u32) {
                return Err(Error::Tokenizer {
                    problem: format!("{name} has {token} = {found:?}, a T5 tokenizer has {expected}"),
                    hint: "give the tokenizer.json of a T5, or one made by this program".to_owned(),
                });
            }
        }
        // Batches do both, in their own way.
        let _ = inner.with_padding(None).with_truncation(None);
        Ok(Self { inner })
    }

    /// Writes a `tokenizer.json`.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        std::fs::write(path, self.to_json()?).map_err(|cause| Error::io("write", path, cause))
    }

    /// Renders the tokenizer as the text of a `tokenizer.json`.
    pub fn to_json(&self) -> Result<String, Error> {
        self.inner.to_string(true).map_err(|cause| failed("render the tokenizer", &cause))
    }

    /// The number of tokens, the special ones included; numbers are below it.
    pub fn len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether there are no tokens, which cannot be.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Encodes a text and ends it with [`EOS`].
    pub fn encode(&self, text: &str) -> Result<Vec<i64>, Error> {
        let mut ids = self.encode_open(text)?;
        ids.push(EOS);
        Ok(ids)
    }

    /// Encodes a text without an end.
    pub fn encode_open(&self, text: &str) -> Result<Vec<i64>, Error> {
        let encoding = self.inner.encode_fast(text, false).map_err(|cause| failed("encode a text", &cause))?;
        Ok(encoding.get_ids().iter().map(|id| i64::from(*id)).collect())
    }

    /// Decodes token numbers; special tokens are left out, and so are numbers that no token has.
    pub fn decode(&self, ids: &[i64]) -> Result<String, Error> {
        let ids: Vec<u32> = ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        self.inner.decode(&ids, true).map_err(|cause| failed("decode tokens", &cause))
    }

    /// The piece of text that a number stands for, `▁` for a space.
    pub fn piece(&self, id: i64) -> Option<String> {
        self.inner.id_to_token(u32::try_from(id).ok()?)
    }

    /// The number of a piece.
    pub fn id(&self, piece: &str) -> Option<i64> {
        self.inner.token_to_id(piece).map(i64::from)
    }
}

fn failed(action: &str, cause: &tokenizers::Error) -> Error {
    Error::Tokenizer { problem: format!("cannot {action}: {cause}"), hint: "check the tokenizer.json".to_owned() }
}
