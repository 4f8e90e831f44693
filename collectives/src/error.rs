//! What can go wrong in a group.

use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The result of a collective call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says why a call failed; every later call on the same collective fails too.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// An [`AbortHandle`](crate::AbortHandle) of this rank was used.
    #[error("the collective was aborted")]
    Aborted,

    /// A peer was killed, dropped its collective, was aborted or failed. When several go at once it is one of them.
    #[error("rank {rank} is gone")]
    PeerLost {
        /// The peer that is gone.
        rank: u32,
    },

    /// A call, or the forming of the group, took longer than its limit.
    #[error("{operation} did not finish within {after:?}: still waiting for rank {rank}")]
    Timeout {
        /// The call that was made.
        operation: &'static str,
        /// The first rank that was still being waited for.
        rank: u32,
        /// The limit.
        after: Duration,
    },

    /// A peer made another call than this rank: another operation, size, element type, root or place in the order.
    #[error("rank {rank} called {theirs}, this rank called {ours}")]
    Mismatch {
        /// A peer whose call differs.
        rank: u32,
        /// The call of this rank.
        ours: String,
        /// The call of the peer.
        theirs: String,
    },

    /// A peer did not let this rank into the group.
    #[error("rank {rank} refused this rank: {reason}")]
    Refused {
        /// The peer that refused.
        rank: u32,
        /// Its reason.
        reason: Refusal,
    },

    /// A peer sent what no version of this protocol sends.
    #[error("rank {rank} broke the protocol: {what}")]
    Protocol {
        /// The peer.
        rank: u32,
        /// What it did.
        what: String,
    },

    /// The call cannot be made with this argument on this back end.
    #[error("{operation} does not work with {what}")]
    Unsupported {
        /// The call that was made.
        operation: &'static str,
        /// The argument that it does not take.
        what: String,
    },

    /// The operating system refused a request that has nothing to do with a peer.
    #[error("could not {attempted}")]
    Io {
        /// What was attempted.
        attempted: &'static str,
        /// The system's answer.
        #[source]
        source: Arc<io::Error>,
    },

    /// NCCL or the CUDA driver reported an error.
    #[error("could not {attempted}: {message}")]
    Device {
        /// What was attempted.
        attempted: &'static str,
        /// The library's name and text for the error.
        message: String,
    },
}

impl Error {
    pub(crate) fn io(attempted: &'static str, source: io::Error) -> Self {
        Self::Io { attempted, source: Arc::new(source) }
    }
}

/// Says why a peer refused a connection while a group was being formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The peer speaks another version of the protocol.
    #[error("it speaks another protocol version")]
    Version,
    /// The two do not hold the same job secret.
    #[error("the job secrets differ")]
    Secret,
    /// The peer is forming another generation.
    #[error("it forms another generation")]
    Generation,
    /// The two do not agree on the number of ranks.
    #[error("the world sizes differ")]
    WorldSize,
    /// The rank is out of range, already taken, or the connection was meant for another rank.
    #[error("the rank is taken or out of range")]
    Rank,
}
