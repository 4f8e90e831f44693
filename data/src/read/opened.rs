//! Source files opened by what they contain; names and endings do not count.

use super::csd::folds::{self, Folds};
use super::pickle::{Document, Limits};
use super::table::{self, Table};
use super::{Source, first_bytes};
use crate::error::Error;

/// A source and what is in it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) source: Source,
    pub(crate) content: Content,
}

/// What a source file is.
#[derive(Debug)]
pub(crate) enum Content {
    Pickle(Document),
    Table(Table),
    /// An HDF5 file, which its reader opens.
    Hdf5,
    /// The standard folds of the CMU-MultimodalSDK.
    Folds(Folds),
}

impl Opened {
    /// Opens a file.
    pub(crate) fn open(source: &Source) -> Result<Self, Error> {
        let mut file = source.open()?;
        let start = first_bytes(&mut file, &source.path, 4096)?;
        let unknown = |problem: &str, hint: &str| Error::Format {
            path: source.path.display().to_string(),
            problem: problem.to_owned(),
            hint: hint.to_owned(),
        };
        let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let content = match start.as_slice() {
            [] => return Err(unknown("the file is empty", "download it again")),
            [0x80, 0..=5, ..] => Content::Pickle(pickle(source)?),
            _ if start.starts_with(b"ARROW1") => {
                let hint = "use it as it is, or look at it with `unimse data inspect`";
                return Err(unknown("it is an Arrow file already", hint));
            }
            _ if start.starts_with(b"\x89HDF") => Content::Hdf5,
            _ if start.starts_with(b"PK\x03\x04") => {
                let problem = "zip files, .npz and torch.save files are not supported";
                return Err(unknown(problem, "unpack it and import the files inside"));
            }
            _ if folds::is_folds(&start) => Content::Folds(Folds::read(source)?),
            _ if table::is_header(line) => Content::Table(Table::read(source)?),
            // Protocols 0 and 1 have no mark; they start by making something, in an unreadable mixture.
            [b'(' | b'}' | b']' | b'c', ..] => Content::Pickle(pickle(source)?),
            _ => return Err(unknown("the format is not known", super::layout::SUPPORTED)),
        };
        Ok(Self { source: source.clone(), content })
    }

    /// The path, for messages.
    pub(crate) fn path(&self) -> String {
        self.source.path.display().to_string()
    }
}

fn pickle(source: &Source) -> Result<Document, Error> {
    let file = Box::new(source.open()?);
    Document::read(file, Limits::default())
        .map_err(|cause| Error::Pickle { path: source.path.display().to_string(), cause })
}
