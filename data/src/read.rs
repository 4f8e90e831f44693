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
use crate::import::{Findings, ImportOptions};
use crate::schema::{ContextWindow, Sample, Split, Task, Vocabulary};

pub(crate) mod context;
pub(crate) mod conversation;
pub(crate) mod csd;
mod features;
mod ids;
pub(crate) mod iemocap;
pub mod isolated;
mod labels;
mod layout;
pub(crate) mod meld;
pub(crate) mod misa;
pub(crate) mod mmsa;
mod modality;
pub(crate) mod mult;
mod opened;
pub mod pickle;
pub(crate) mod plain;
mod sentences;
mod splits;
mod table;
mod text;
mod tracks;

pub use features::BadFeatures;
pub(crate) use layout::format_of;
pub(crate) use opened::{Content, Opened};
pub use text::decode;

/// A release format that can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// The pickles of the MMSA platform: `split -> raw_text, audio, vision, id, regression_labels, ...`.
    Mmsa,
    /// The official pickles of `UniMSE` with its CSV files.
    Unimse,
    /// Computational sequences of the CMU-MultimodalSDK, HDF5 files.
    Csd,
    /// The pickles of `MulT`: `split -> vision, audio, text, labels, id`.
    Mult,
    /// The pickles of MISA: a list of `((word ids, visual, acoustic, words), label, segment)` a split.
    Misa,
    /// The CSV files of the official MELD release, alone or with its feature pickles.
    Meld,
    /// The tuples of `DialogueRNN` and COGMEN.
    DialogueRnn,
    /// A table and folders of `.npy` files.
    Plain,
}

impl Format {
    /// All formats, in the order in which help texts list them.
    pub const ALL: [Self; 8] =
        [Self::Mmsa, Self::Unimse, Self::Csd, Self::Mult, Self::Misa, Self::Meld, Self::DialogueRnn, Self::Plain];

    /// The word that stands for the format on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mmsa => "mmsa",
            Self::Unimse => "unimse",
            Self::Csd => "csd",
            Self::Mult => "mult",
            Self::Misa => "misa",
            Self::Meld => "meld",
            Self::DialogueRnn => "dialoguernn",
            Self::Plain => "plain",
        }
    }

    /// The words of all formats.
    pub fn names() -> String {
        Self::ALL.map(Self::as_str).join(", ")
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
        let found = Self::ALL.into_iter().find(|format| format.as_str() == text);
        found.ok_or_else(|| format!("unknown format `{text}`, expected one of {}", Self::names()))
    }
}

/// Finds the format of source files that belong together, by what they contain.
pub fn detect(sources: &[Source]) -> Result<Format, Error> {
    format_of(&open_all(sources)?)
}

pub(crate) fn open_all(sources: &[Source]) -> Result<Vec<Opened>, Error> {
    sources.iter().map(Opened::open).collect()
}

/// Opens the reader of a format.
pub(crate) fn reader_of(
    format: Format,
    opened: Vec<Opened>,
    options: &ImportOptions,
) -> Result<Box<dyn Reader>, Error> {
    let has = |test: fn(&table::Table) -> bool| {
        opened.iter().any(|file| matches!(&file.content, Content::Table(table) if test(table)))
    };
    Ok(match format {
        Format::Mmsa => Box::new(mmsa::MmsaReader::open(opened, options)?),
        Format::Unimse if has(layout::is_iemocap) => Box::new(iemocap::IemocapReader::open(opened, options)?),
        Format::Unimse if has(|table| table.has(&sentences::COLUMNS)) => {
            Box::new(mult::MultReader::open(opened, features::Padding::Front, options)?)
        }
        Format::Mult => Box::new(mult::MultReader::open(opened, features::Padding::Ends, options)?),
        Format::Misa => Box::new(misa::MisaReader::open(opened, options)?),
        Format::Unimse | Format::Meld => Box::new(meld::MeldReader::open(opened, options)?),
        Format::DialogueRnn => Box::new(conversation::ConversationReader::open(opened, options)?),
        Format::Plain => Box::new(plain::PlainReader::open(opened, options)?),
        Format::Csd => Box::new(csd::CsdReader::open(opened, options)?),
    })
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
    /// The splits that the source has, even if they turn out to be empty.
    pub(crate) splits: Vec<Split>,
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

    /// What was noticed on the way that belongs to no single row; asked for after the last one.
    fn findings(&mut self) -> Findings {
        Findings::default()
    }
}

/// The pickle of a release that is one file.
fn one_pickle(opened: Vec<Opened>) -> Result<(Source, pickle::Document), Error> {
    let format = |path: String, problem: String, hint: &str| Error::Format { path, problem, hint: hint.to_owned() };
    let count = opened.len();
    let names = opened.iter().map(|file| file.source.name()).collect::<Vec<_>>().join(", ");
    let mut files = opened.into_iter();
    let (Some(Opened { source, content }), None) = (files.next(), files.next()) else {
        let problem = format!("{count} files are given, a dataset of this format is one file");
        return Err(format(names, problem, "import each file into a store of its own"));
    };
    match content {
        Content::Pickle(document) => Ok((source, document)),
        _ => Err(format(
            source.path.display().to_string(),
            "it is not a pickle".to_owned(),
            "leave --format away, so that the file tells what it is",
        )),
    }
}

/// The first bytes of a file, fewer if it is shorter.
fn first_bytes(file: &mut File, path: &Path, count: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    file.take(count).read_to_end(&mut bytes).map_err(|cause| Error::io("read", path, cause))?;
    Ok(bytes)
}
