//! Readers of public dataset formats, chosen by what a file contains.
//!
//! Source files come from strangers. They are decoded, never executed; every length is checked before it is believed;
//! and [`isolated`] runs the whole import in a process of its own with bounded memory and time.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Problem};
use crate::schema::{ContextWindow, Sample, Split, Task, Vocabulary};

pub(crate) mod context;
mod detect;
mod features;
pub mod isolated;
pub(crate) mod meld;
pub(crate) mod mmsa;
pub mod pickle;
mod text;

pub use detect::detect;
pub use features::BadFeatures;
pub use text::decode;

/// A release format that can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// The pickles of the MMSA platform: `split -> raw_text, audio, vision, id, regression_labels, ...`.
    Mmsa,
    /// The CSV files of the official MELD release.
    Meld,
}

impl Format {
    /// The word that stands for the format on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mmsa => "mmsa",
            Self::Meld => "meld",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "mmsa" => Ok(Self::Mmsa),
            "meld" => Ok(Self::Meld),
            _ => Err(format!("unknown format `{text}`, expected mmsa or meld")),
        }
    }
}

/// One source file, and the split it holds if its format needs to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// The split, for formats with one file a split; `None` takes it from the file's name.
    pub split: Option<Split>,
}

impl Source {
    /// A file whose split is known from its contents or its name.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), split: None }
    }

    /// The file's name without its folder.
    pub fn name(&self) -> String {
        self.path
            .file_name()
            .map_or_else(|| self.path.display().to_string(), |name| name.to_string_lossy().into_owned())
    }

    /// Opens the file, which must be a regular one: a pipe or a device could keep the reader waiting for ever.
    pub(crate) fn open(&self) -> Result<File, Error> {
        let file = File::open(&self.path).map_err(|cause| Error::io("open", &self.path, cause))?;
        let metadata = file.metadata().map_err(|cause| Error::io("read", &self.path, cause))?;
        if metadata.is_file() {
            return Ok(file);
        }
        Err(Error::Format {
            path: self.path.display().to_string(),
            problem: "it is not a regular file".to_owned(),
            hint: "give the file itself".to_owned(),
        })
    }
}

impl FromStr for Source {
    type Err = std::convert::Infallible;

    /// Reads `PATH` or `SPLIT=PATH`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((split, path)) = text.split_once('=')
            && let Ok(split) = split.parse()
        {
            return Ok(Self { path: path.into(), split: Some(split) });
        }
        Ok(Self::new(text))
    }
}

/// What a reader knows about a dataset before its rows.
#[derive(Clone, Debug)]
pub(crate) struct Dataset {
    pub(crate) task: Task,
    pub(crate) vocabularies: Vec<Vocabulary>,
    pub(crate) context: Option<ContextWindow>,
}

/// One row of a source: a sample, or why it is none.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) file: String,
    pub(crate) place: String,
    pub(crate) split: Split,
    pub(crate) sample: Result<Sample, Problem>,
    /// NaN and infinite values met in the row's features.
    pub(crate) bad_values: u64,
}

/// Reads a dataset row by row.
pub(crate) trait Reader {
    fn dataset(&self) -> Dataset;

    /// Hands every row to `visit`, in the order of the source, until `visit` fails.
    fn for_each(&mut self, visit: &mut dyn FnMut(Row) -> Result<(), Error>) -> Result<(), Error>;
}

/// The first bytes of a file, fewer if it is shorter.
fn first_bytes(file: &mut File, path: &Path, count: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    file.take(count).read_to_end(&mut bytes).map_err(|cause| Error::io("read", path, cause))?;
    Ok(bytes)
}
