//! What can go wrong with data, told with its place, its value and a way out.

use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Everything that reading, writing or batching datasets can fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("cannot {action} {path}: {cause}{}", io_hint(cause))]
    Io {
        /// What was attempted: "read", "write", "rename".
        action: &'static str,
        /// The file.
        path: String,
        /// What the operating system answered.
        cause: io::Error,
    },
    /// A source file is not of a format that can be read.
    #[error("{path}: {problem}\n  hint: {hint}")]
    Format {
        /// The file.
        path: String,
        /// What was found.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A pickle is malformed, over a limit, or asks for code to be run.
    #[error("{path}: {cause}{}", cause.hint())]
    Pickle {
        /// The file.
        path: String,
        /// The place in the file and the fault.
        cause: crate::read::pickle::PickleError,
    },
    /// A file of `torch.save` cannot be read.
    #[error("{path}: {fault}\n  hint: {}", fault.hint())]
    TorchFile {
        /// The file.
        path: String,
        /// What is wrong with it, where and with which value.
        fault: crate::torch_file::TorchFault,
    },
    /// A row of a source cannot become a sample.
    #[error("{0}")]
    Row(Box<BadRow>),
    /// The target of an import is there already.
    #[error("{path} exists already\n  hint: choose another --out, or replace it with --force")]
    Exists {
        /// The target.
        path: String,
    },
    /// A file is not a store of this program, or of a version that it cannot read.
    #[error("{path} is not a readable dataset store: {problem}\n  hint: make it again with `unimse data import`")]
    NotAStore {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A store's bytes are not the ones that were written.
    #[error(
        "{path} is damaged: {problem}\n  hint: copy it again from its source, or make it again with `unimse data import`"
    )]
    Damaged {
        /// The file.
        path: String,
        /// Which part does not agree with its hash or length.
        problem: String,
    },
    /// A sample handed to the writer breaks a rule of the store.
    #[error("cannot store sample `{id}`: {problem}")]
    Invalid {
        /// The sample.
        id: String,
        /// The rule and the value that breaks it.
        problem: String,
    },
    /// Arrow could not encode or decode a batch.
    #[error("cannot {action} {path}: {cause}")]
    Arrow {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: String,
        /// What Arrow says.
        cause: arrow_schema::ArrowError,
    },
    /// The process that parsed a file for us died: the file exhausted its limits.
    #[error("{path}: malformed file: the process that read it {how}\n  hint: {hint}")]
    ReaderDied {
        /// The file, or files.
        path: String,
        /// How it ended: the signal or the exit code.
        how: String,
        /// What to do.
        hint: String,
    },
    /// The process that parsed a file reports an error, already in words.
    #[error("{0}")]
    Reported(String),
    /// A tokenizer cannot be trained, read or written.
    #[error("tokenizer: {problem}\n  hint: {hint}")]
    Tokenizer {
        /// What went wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// Stores do not fit together, or a sample does not fit the job.
    #[error("{problem}\n  hint: {hint}")]
    Corpus {
        /// What does not fit.
        problem: String,
        /// What to do.
        hint: String,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, cause: io::Error) -> Self {
        Self::Io { action, path: path.display().to_string(), cause }
    }
}

fn io_hint(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "\n  hint: free some space there, or write to another disk; nothing was left behind"
        }
        io::ErrorKind::FileTooLarge => {
            "\n  hint: the file passed the size limit of this process; nothing was left behind"
        }
        io::ErrorKind::NotFound => "\n  hint: check the path; a relative path starts where the command was run",
        io::ErrorKind::PermissionDenied => "\n  hint: check the permissions of the file and its folder",
        _ => "",
    }
}

/// A row of a source that cannot become a sample: where, what, and a way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    /// The file's name.
    pub file: String,
    /// The key, row and id as the source counts them.
    pub place: String,
    /// What is wrong, with the value.
    pub problem: String,
    /// What to do, if there is something better than leaving the row out.
    pub hint: Option<String>,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.file, self.place, self.problem)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => write!(f, "\n  hint: correct the row, or leave such rows out with --skip-bad"),
        }
    }
}

/// What is wrong with a value, before the place is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) text: String,
    pub(crate) hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), hint: None }
    }

    pub(crate) fn with_hint(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { text: text.into(), hint: Some(hint.into()) }
    }

    pub(crate) fn at(self, file: &str, place: impl Into<String>) -> BadRow {
        BadRow { file: file.to_owned(), place: place.into(), problem: self.text, hint: self.hint }
    }
}

impl From<BadRow> for Error {
    fn from(row: BadRow) -> Self {
        Self::Row(Box::new(row))
    }
}
