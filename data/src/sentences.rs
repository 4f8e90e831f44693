//! Text for a sentence encoder: token numbers as its own `tokenizer.json` says, special tokens included.

use std::path::Path;

use tokenizers::{Tokenizer, TruncationParams};

use crate::batch::Tokens;
use crate::error::Error;
use crate::tokenizer::json;

/// Prepares sentences.
#[derive(Clone, Debug)]
pub struct SentenceTokenizer {
    inner: Tokenizer,
}

impl SentenceTokenizer {
    /// Reads the `tokenizer.json` of an encoder's folder; sentences are cut at `longest` tokens, or earlier where the file says so.
    pub fn open(folder: &Path, longest: usize) -> Result<Self, Error> {
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|cause| Error::io("read", &path, cause))?;
        let refuse = |cause: tokenizers::Error| Error::Tokenizer {
            problem: format!("cannot use {}: {cause}", path.display()),
            hint: "give the folder of a BERT with its tokenizer.json, as transformers saves it".to_owned(),
        };
        json::check(&bytes, &path.display().to_string())?;
        let mut inner = Tokenizer::from_bytes(bytes).map_err(refuse)?;
        let own = inner.get_truncation().map_or(longest, |truncation| truncation.max_length.min(longest));
        let truncation = TruncationParams { max_length: own, ..TruncationParams::default() };
        inner.with_truncation(Some(truncation)).map_err(refuse)?;
        inner.with_padding(None);
        Ok(Self { inner })
    }

    /// Encodes sentences as one matrix.
    pub fn encode(&self, sentences: &[&str]) -> Result<Tokens, Error> {
        let encoded = self.inner.encode_batch_fast(sentences.to_vec(), true).map_err(|cause| Error::Tokenizer {
            problem: format!("cannot encode a sentence: {cause}"),
            hint: "check the encoder's tokenizer.json".to_owned(),
        })?;
        let rows: Vec<Vec<i64>> =
            encoded.iter().map(|row| row.get_ids().iter().map(|&id| i64::from(id)).collect()).collect();
        Ok(Tokens::pad(&rows))
    }
}
