//! Where a tokenizer is: a `tokenizer.json`, a `spiece.model`, or the folder of a T5 with one of them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Tokenizer, spiece};
use crate::error::Error;

/// T5's `spiece.model` has 0.8 MB, that of the multilingual T5 4.3 MB.
const LARGEST_MODEL: u64 = 16 << 20;
/// A `tokenizer.json` has everything in words, and the table of characters with it.
const LARGEST_JSON: u64 = 256 << 20;
const LARGEST_CONFIG: u64 = 16 << 20;
/// T5 has 100.
const MOST_EXTRA_IDS: usize = 10_000;

/// What `tokenizer_config.json` says beside a `spiece.model`.
#[derive(Debug, Default, Deserialize)]
struct Config {
    extra_ids: Option<usize>,
    #[serde(default)]
    added_tokens_decoder: std::collections::BTreeMap<String, AddedToken>,
}

#[derive(Debug, Deserialize)]
struct AddedToken {
    content: String,
}

/// A tokenizer's file, read.
pub(super) enum Source {
    /// The text of a `tokenizer.json`.
    Json { bytes: Vec<u8>, name: String },
    /// What became of a `spiece.model`.
    Built(Box<Tokenizer>),
}

/// Reads the tokenizer at a path. In a folder `tokenizer.json` comes first: it says more than `spiece.model` does.
pub(super) fn read(path: &Path) -> Result<Source, Error> {
    let file = if path.is_dir() { in_folder(path)? } else { path.to_owned() };
    let name = file.display().to_string();
    let json = file.extension().is_some_and(|end| end.eq_ignore_ascii_case("json"));
    let bytes = bounded(&file, if json { LARGEST_JSON } else { LARGEST_MODEL })?;
    // No SentencePiece file begins like this: it would be a field that protocol buffers no longer have.
    if json || bytes.starts_with(b"{") {
        return Ok(Source::Json { bytes, name });
    }
    let beside = file.with_file_name("tokenizer_config.json");
    let config = if beside.is_file() { Config::read(&beside)? } else { Config::default() };
    let extra_ids = config.extra_ids.unwrap_or(spiece::EXTRA_IDS);
    let tokenizer = Tokenizer::checked(spiece::build(&bytes, &name, extra_ids)?, &name)?;
    config.agree(&tokenizer, &beside)?;
    Ok(Source::Built(Box::new(tokenizer)))
}

fn in_folder(folder: &Path) -> Result<PathBuf, Error> {
    let known = ["tokenizer.json", "spiece.model"].map(|name| folder.join(name));
    known.into_iter().find(|file| file.is_file()).ok_or_else(|| Error::Tokenizer {
        problem: format!("{} has neither tokenizer.json nor spiece.model", folder.display()),
        hint: "copy the tokenizer of the model into its folder, or name one with `data.tokenizer`".to_owned(),
    })
}

/// Reads a file that must not be larger than a limit, whatever its length was a moment ago.
fn bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(|cause| Error::io("read", path, cause))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|cause| Error::io("read", path, cause))?;
    if bytes.len() as u64 > limit {
        let length = path.metadata().map_or(bytes.len() as u64, |metadata| metadata.len());
        return Err(Error::Tokenizer {
            problem: format!("{} has {length} bytes, more than the {limit} that one may have", path.display()),
            hint: "name the tokenizer.json or spiece.model of a T5, which have a few MB".to_owned(),
        });
    }
    Ok(bytes)
}

impl Config {
    fn read(path: &Path) -> Result<Self, Error> {
        let refuse = |problem: String| Error::Tokenizer {
            problem: format!("{}: {problem}", path.display()),
            hint: "copy it again with the model, or remove it: then T5's 100 extra ids are taken".to_owned(),
        };
        let config: Self =
            serde_json::from_slice(&bounded(path, LARGEST_CONFIG)?).map_err(|error| refuse(error.to_string()))?;
        match config.extra_ids {
            Some(count) if count > MOST_EXTRA_IDS => {
                Err(refuse(format!("extra_ids is {count}, more than {MOST_EXTRA_IDS}")))
            }
            _ => Ok(config),
        }
    }

    /// Refuses tokens that someone has added to T5's: transformers would number them, and this would not.
    fn agree(&self, tokenizer: &Tokenizer, path: &Path) -> Result<(), Error> {
        for (number, AddedToken { content }) in &self.added_tokens_decoder {
            let found = tokenizer.id(content);
            if found.map(|id| id.to_string()).as_ref() != Some(number) {
                let found = found.map_or_else(|| "does not have it".to_owned(), |id| format!("has it as {id}"));
                return Err(Error::Tokenizer {
                    problem: format!("{} adds `{content}` as {number}, spiece.model {found}", path.display()),
                    hint: spiece::CONVERT.to_owned(),
                });
            }
        }
        Ok(())
    }
}
