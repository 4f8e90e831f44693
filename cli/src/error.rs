//! What can go wrong in a command, and how it is told: `error:`, the place, `hint:`.

use std::io;
use std::path::{Path, PathBuf};

use unimse_core::diagnostic::Diagnostics;
use unimse_proto::Error as RemoteError;

use crate::exit::Exit;

/// The result of a command.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that ends a command early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The coordinator refused, did not know, or could not be reached.
    #[error("{0}")]
    Remote(#[from] RemoteError),
    /// A job or sweep file is not valid; the text is a compiler-like message with its own `error[..]` lines.
    #[error("{0}")]
    Invalid(#[from] Diagnostics),
    /// A checkpoint store or a checkpoint.
    #[error("{}", with_sources(.0))]
    Checkpoint(#[from] unimse_checkpoint::Error),
    /// A dataset.
    #[error("{0}")]
    Data(#[from] unimse_data::Error),
    /// A file of this machine.
    #[error("cannot {action} {}: {source}{}", .path.display(), io_hint(.source))]
    File {
        /// What was attempted.
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Arguments that are fine alone and wrong together, or not of the form they need.
    #[error("{message}\nhint: {hint}")]
    Usage { message: String, hint: String },
    /// Something named does not exist.
    #[error("{message}\nhint: {hint}")]
    NotFound { message: String, hint: String },
    /// Something exists and must not be changed in this way.
    #[error("{message}\nhint: {hint}")]
    NotAllowed { message: String, hint: String },
    /// Anything else that has a way out.
    #[error("{message}\nhint: {hint}")]
    Failed { message: String, hint: String },
    /// Writing the result failed.
    #[error("cannot write the result: {0}")]
    Output(io::Error),
    /// The reader of the result went away, as `head` does; not worth a word.
    #[error("")]
    PipeClosed,
    /// All that is to be said was said; only the exit code is left.
    #[error("")]
    Told(Exit),
}

impl Error {
    /// Describes a failed access to a local file.
    pub(crate) fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { action, path: path.to_owned(), source }
    }

    /// The exit code that belongs to it.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Remote(error) => remote_exit(error),
            Self::Invalid(_) | Self::Usage { .. } => Exit::Usage,
            Self::NotFound { .. } => Exit::NotFound,
            Self::NotAllowed { .. } => Exit::NotAllowed,
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::NotFound,
            Self::Data(unimse_data::Error::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                Exit::NotFound
            }
            Self::Checkpoint(_) | Self::Data(_) | Self::File { .. } | Self::Failed { .. } | Self::Output(_) => {
                Exit::Failure
            }
            Self::PipeClosed => Exit::Done,
            Self::Told(exit) => *exit,
        }
    }

    /// The whole text for stderr, or nothing when all was said.
    pub(crate) fn report(&self) -> Option<String> {
        match self {
            Self::PipeClosed | Self::Told(_) => None,
            // The diagnostics bring their own `error[E0103]:`.
            Self::Invalid(diagnostics) => Some(diagnostics.to_string()),
            other => Some(layout(&other.to_string())),
        }
    }
}

fn remote_exit(error: &RemoteError) -> Exit {
    match error {
        RemoteError::Unreachable { .. } | RemoteError::Unavailable { .. } => Exit::Unreachable,
        RemoteError::NotFound { .. } => Exit::NotFound,
        RemoteError::Refused { .. } | RemoteError::NotAllowed { .. } => Exit::NotAllowed,
        RemoteError::Invalid { .. } | RemoteError::Ambiguous { .. } => Exit::Usage,
        RemoteError::Exhausted { .. } | RemoteError::Incompatible { .. } | RemoteError::Internal { .. } => {
            Exit::Failure
        }
    }
}

/// Joins an error with the causes that its text leaves out.
fn with_sources(error: &unimse_checkpoint::Error) -> String {
    let text = error.to_string();
    let (message, hint) = split_hint(&text);
    let mut message = message.to_owned();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let text = error.to_string();
        // Wrappers repeat what they wrap; the innermost text is what the system said.
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    hint.map_or_else(|| message.clone(), |hint| format!("{message}\nhint: {hint}"))
}

fn io_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => "\nhint: check the path; a relative path starts where the command is run",
        io::ErrorKind::PermissionDenied => "\nhint: check the permissions of the file and its folder",
        io::ErrorKind::StorageFull => "\nhint: free some space there",
        _ => "",
    }
}

/// Separates the way out from what happened.
pub(crate) fn split_hint(text: &str) -> (&str, Option<&str>) {
    match text.split_once("hint:") {
        Some((message, hint)) => (message.trim_end().trim_end_matches([';', '.', ',']).trim_end(), Some(hint.trim())),
        None => (text.trim_end(), None),
    }
}

/// Gives every error the same form, whichever crate worded it.
pub(crate) fn layout(text: &str) -> String {
    let (message, hint) = split_hint(text);
    let message = message.strip_prefix("error: ").unwrap_or(message);
    hint.map_or_else(|| format!("error: {message}"), |hint| format!("error: {message}\nhint: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_of_all_crates_end_up_on_a_line_of_their_own() {
        let expected = "error: cannot open `x`: bad\nhint: use a folder";
        for text in [
            "cannot open `x`: bad; hint: use a folder",
            "cannot open `x`: bad\n  hint: use a folder",
            "cannot open `x`: bad\nhint: use a folder",
            "error: cannot open `x`: bad\nhint: use a folder",
        ] {
            assert_eq!(layout(text), expected);
        }
        assert_eq!(layout("no way out"), "error: no way out");
    }

    #[test]
    fn a_missing_file_is_exit_code_3_and_a_bad_argument_2() {
        let missing = Error::file("read", Path::new("job.yaml"), io::ErrorKind::NotFound.into());
        assert_eq!(missing.exit(), Exit::NotFound);
        assert!(
            missing
                .report()
                .is_some_and(|text| text.starts_with("error: cannot read job.yaml: ") && text.contains("\nhint: "))
        );
        let usage = Error::Usage { message: "no".into(), hint: "yes".into() };
        assert_eq!(usage.exit(), Exit::Usage);
        let diagnostics = unimse_core::spec::parse_job("nmae: x", "job.yaml").expect_err("there is no field nmae");
        let invalid = Error::from(diagnostics);
        assert_eq!(invalid.exit(), Exit::Usage);
        assert!(invalid.report().is_some_and(|text| text.starts_with("error[E01")));
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_has_no_words() {
        assert_eq!((Error::PipeClosed.exit(), Error::PipeClosed.report()), (Exit::Done, None));
    }
}
