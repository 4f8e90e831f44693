//! The one table between what went wrong and what the wire says of it.

use std::error::Error as _;
use std::fmt::Write as _;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use unimse_core::machine::Refusal;

use crate::convert::Malformed;

/// Bytes of a reason that travel; the rest of a longer one is cut, because status texts are headers.
const LONGEST_REASON: usize = 3000;
const MOST_CANDIDATES: usize = 20;
const TAG: &str = "unimse-error";
const CANDIDATES: &str = "unimse-candidates";

/// Why a call did not do what it was asked to; each text ends with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody answers there, or the connection broke: what was asked for may or may not have happened.
    #[error(
        "no coordinator answers at {endpoint}: {reason}\n\
         hint: start one with `unimse up`, or name another with --coordinator or UNIMSE_COORDINATOR"
    )]
    Unreachable { endpoint: String, reason: String },
    /// What the request names does not exist.
    #[error("{what}\nhint: `unimse ps` lists jobs, `unimse sweep ls` sweeps, `unimse nodes` workers")]
    NotFound { what: String },
    /// A name or the beginning of an id stands for more than one.
    #[error("`{text}` stands for several: {}\nhint: type more letters of the one you mean", candidates.join(", "))]
    Ambiguous { text: String, candidates: Vec<String> },
    /// It exists, but is not in a state in which that can be done; the reason says what would help.
    #[error("{reason}")]
    Refused { reason: String },
    /// The request itself is wrong; the reason says where.
    #[error("{reason}")]
    Invalid { reason: String },
    /// Not possible just now; nothing was changed.
    #[error("{reason}\nhint: nothing was changed; try again in a moment")]
    Unavailable { reason: String },
    /// Something has run out, such as the disk under the journal; nothing was changed.
    #[error("{reason}\nhint: nothing was changed; free some room on the coordinator's machine and try again")]
    Exhausted { reason: String },
    /// The caller may not do that.
    #[error("{reason}\nhint: ask whoever runs the coordinator for access")]
    NotAllowed { reason: String },
    /// The other side speaks another version of the protocol.
    #[error(
        "the other side speaks another protocol: {reason}\nhint: bring client, workers and coordinator to one version"
    )]
    Incompatible { reason: String },
    /// A mistake in the coordinator.
    #[error("the coordinator failed: {reason}\nhint: its log says more; please report it")]
    Internal { reason: String },
}

impl Error {
    /// Describes a status that came from `endpoint`.
    pub(crate) fn from_status(status: &Status, endpoint: &str) -> Self {
        let reason = status.message().to_owned();
        let tag = status.metadata().get(TAG).and_then(|value| value.to_str().ok());
        match (tag, status.code()) {
            (Some("ambiguous"), _) => {
                let listed =
                    status.metadata().get(CANDIDATES).and_then(|value| value.to_str().ok()).unwrap_or_default();
                Self::Ambiguous { text: reason, candidates: listed.split(',').map(str::to_owned).collect() }
            }
            // Without the tag it was not our code that spoke but the transport, whose code alone says little.
            (None, Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted) => {
                Self::Unreachable { endpoint: endpoint.to_owned(), reason: chain(status) }
            }
            (None, _) if status.source().is_some() => {
                Self::Unreachable { endpoint: endpoint.to_owned(), reason: chain(status) }
            }
            (_, Code::NotFound) => Self::NotFound { what: reason },
            (_, Code::FailedPrecondition | Code::AlreadyExists) => Self::Refused { reason },
            (_, Code::InvalidArgument | Code::OutOfRange) => Self::Invalid { reason },
            (_, Code::Unavailable) => Self::Unavailable { reason },
            (_, Code::ResourceExhausted) => Self::Exhausted { reason },
            (_, Code::PermissionDenied | Code::Unauthenticated) => Self::NotAllowed { reason },
            (_, Code::Unimplemented) => Self::Incompatible { reason },
            (_, code) => Self::Internal { reason: format!("{reason} ({code:?})") },
        }
    }

    fn code(&self) -> (Code, &'static str) {
        match self {
            Self::Unreachable { .. } => (Code::Unavailable, "unreachable"),
            Self::NotFound { .. } => (Code::NotFound, "not-found"),
            Self::Ambiguous { .. } => (Code::InvalidArgument, "ambiguous"),
            Self::Refused { .. } => (Code::FailedPrecondition, "refused"),
            Self::Invalid { .. } => (Code::InvalidArgument, "invalid"),
            Self::Unavailable { .. } => (Code::Unavailable, "unavailable"),
            Self::Exhausted { .. } => (Code::ResourceExhausted, "exhausted"),
            Self::NotAllowed { .. } => (Code::PermissionDenied, "not-allowed"),
            Self::Incompatible { .. } => (Code::Unimplemented, "incompatible"),
            Self::Internal { .. } => (Code::Internal, "internal"),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let (code, tag) = error.code();
        let candidates = match &error {
            Error::Ambiguous { candidates, .. } => {
                candidates.iter().take(MOST_CANDIDATES).cloned().collect::<Vec<_>>().join(",")
            }
            _ => String::new(),
        };
        let text = match error {
            Error::Unreachable { reason, .. }
            | Error::Refused { reason }
            | Error::Invalid { reason }
            | Error::Unavailable { reason }
            | Error::Exhausted { reason }
            | Error::NotAllowed { reason }
            | Error::Incompatible { reason }
            | Error::Internal { reason } => reason,
            Error::NotFound { what } => what,
            Error::Ambiguous { text, .. } => text,
        };
        let mut status = Self::new(code, cut(text));
        status.metadata_mut().insert(TAG, MetadataValue::from_static(tag));
        if let Ok(candidates) = MetadataValue::try_from(candidates)
            && tag == "ambiguous"
        {
            status.metadata_mut().insert(CANDIDATES, candidates);
        }
        status
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::Invalid { reason: malformed.to_string() }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let reason = refusal.to_string();
        match refusal {
            Refusal::UnknownJob(_)
            | Refusal::UnknownSweep(_)
            | Refusal::UnknownWorker(_)
            | Refusal::NoCheckpoint { .. } => Self::NotFound { what: reason },
            Refusal::WrongPhase { .. }
            | Refusal::WrongSweepStatus { .. }
            | Refusal::CheckpointInUse { .. }
            | Refusal::NodeNameInUse { .. }
            | Refusal::WorkerGone { .. } => Self::Refused { reason },
            Refusal::BadSweep(_) => Self::Invalid { reason },
        }
    }
}

/// An error and what caused it, in one line without repetitions.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let part = error.to_string();
        if !text.contains(&part) {
            let separator = if text.is_empty() { "" } else { ": " };
            let _infallible = write!(text, "{separator}{part}");
        }
        next = error.source();
    }
    text
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST_REASON {
        let end = (0..=LONGEST_REASON).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each() -> Vec<Error> {
        let reason = || "it is so".to_owned();
        vec![
            Error::NotFound { what: reason() },
            Error::Ambiguous { text: "j-7".to_owned(), candidates: vec!["j-7k2m".to_owned(), "j-7abc".to_owned()] },
            Error::Refused { reason: reason() },
            Error::Invalid { reason: "line 1\n  ^ here: ä €".to_owned() },
            Error::Unavailable { reason: reason() },
            Error::Exhausted { reason: reason() },
            Error::NotAllowed { reason: reason() },
            Error::Incompatible { reason: reason() },
        ]
    }

    #[test]
    fn every_error_comes_out_of_the_wire_as_it_went_in() {
        for error in each() {
            let status = Status::from(error.clone());
            assert_eq!(Error::from_status(&status, "http://here"), error);
        }
    }

    #[test]
    fn what_the_transport_says_means_unreachable() {
        for code in [Code::Unavailable, Code::Cancelled, Code::DeadlineExceeded] {
            let error = Error::from_status(&Status::new(code, "gone"), "http://here:1");
            assert!(
                matches!(error, Error::Unreachable { ref endpoint, .. } if endpoint == "http://here:1"),
                "{error:?}"
            );
            assert!(error.to_string().contains("hint: "));
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_letter() {
        let status = Status::from(Error::Invalid { reason: "€".repeat(5000) });
        assert!(status.message().len() <= LONGEST_REASON + 4);
        assert!(status.message().ends_with("€ ..."));
    }

    #[test]
    fn refusals_keep_their_words() {
        let job = unimse_core::id::JobId(3);
        let error = Error::from(Refusal::UnknownJob(job));
        assert_eq!(error, Error::NotFound { what: format!("there is no job {job}") });
    }
}
