//! What reaches the loop.

use std::fmt;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use unimse_core::id::WorkerId;
use unimse_core::machine::{Answer, Event, Refusal};
use unimse_proto::Error as ProtoError;
use unimse_proto::session::{Hello, Logs, Steps, ToAgent};

use super::present::Present;
use crate::journal::Encoded;

/// Why a message had no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The machine says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The disk under the journal, or under the telemetry, has no room.
    #[error("the coordinator's disk is full: {0}")]
    Full(String),
    /// The session is over; another one may have taken its place.
    #[error("the session is over")]
    SessionOver,
    /// What was said could not be kept.
    #[error("the telemetry could not be written: {0}")]
    Telemetry(String),
    /// The coordinator is shutting down.
    #[error("the coordinator is shutting down")]
    Stopped,
}

impl From<Failure> for ProtoError {
    fn from(failure: Failure) -> Self {
        let reason = failure.to_string();
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            Failure::Full(_) => Self::Exhausted { reason },
            Failure::SessionOver | Failure::Telemetry(_) | Failure::Stopped => Self::Unavailable { reason },
        }
    }
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// One connection of one worker; a reconnect gets another serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionKey {
    pub(crate) worker: WorkerId,
    pub(crate) serial: u64,
}

/// The loop's end of a session. Dropping it ends the session once what is queued has been sent.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) orders: mpsc::Sender<ToAgent>,
    over: CancellationToken,
}

impl Link {
    pub(crate) fn new(orders: mpsc::Sender<ToAgent>, over: CancellationToken) -> Self {
        Self { orders, over }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

/// An agent that is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) reason: String,
    pub(crate) register_anew: bool,
}

/// What an agent reports, by where it goes.
#[derive(Debug)]
pub(crate) enum Word {
    /// To the machine and the journal.
    Event(Event, Encoded),
    /// To the telemetry.
    Steps(Steps),
    Logs(Logs),
}

pub(crate) type Query = Box<dyn FnOnce(&Present<'_>) + Send>;

pub(crate) enum Message {
    Apply {
        event: Event,
        encoded: Encoded,
        reply: Reply<Answer>,
    },
    Hello {
        hello: Box<Hello>,
        register: Event,
        encoded: Encoded,
        link: Link,
        reply: oneshot::Sender<Result<SessionKey, Rejection>>,
    },
    Word {
        session: SessionKey,
        word: Word,
        reply: Reply<()>,
    },
    Heartbeat(SessionKey),
    /// The stream of that session has ended.
    Closed(SessionKey),
    /// Looks at the state after everything that was said before.
    Query(Query),
    Stop {
        snapshot: bool,
    },
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apply { .. } => "Apply",
            Self::Hello { .. } => "Hello",
            Self::Word { .. } => "Word",
            Self::Heartbeat(_) => "Heartbeat",
            Self::Closed(_) => "Closed",
            Self::Query(_) => "Query",
            Self::Stop { .. } => "Stop",
        })
    }
}
