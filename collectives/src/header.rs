//! The announcement of a call, by which the ranks check that they all make the same.

use std::fmt;

use crate::{DType, Error};

/// The size of an encoded header in bytes.
pub(crate) const HEADER_BYTES: usize = 32;
const MAGIC: u32 = u32::from_le_bytes(*b"umC1");

/// What a message begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    AllReduce,
    Broadcast,
    BroadcastBytes,
    AllGatherBytes,
    Barrier,
    /// Not a call: the sender closes; see [`Header::goodbye`].
    Goodbye,
    AllReduceCompressed,
    ReduceScatter,
    AllGather,
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AllReduce => "all_reduce",
            Self::Broadcast => "broadcast",
            Self::BroadcastBytes => "broadcast_bytes",
            Self::AllReduceCompressed => "all_reduce_compressed",
            Self::ReduceScatter => "reduce_scatter",
            Self::AllGather => "all_gather",
            Self::AllGatherBytes => "all_gather_bytes",
            Self::Barrier => "barrier",
            Self::Goodbye => "goodbye",
        }
    }
}

/// Why a rank leaves its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parting {
    /// It has no more calls to make.
    InPeace,
    /// It lost, or gave up on, this rank.
    Lost(u32),
    /// It found this rank to make another call.
    Mismatch(u32),
}

impl Parting {
    /// What a call fails with that `peer` had not finished when it left so; `ours` is our own announcement.
    pub(crate) fn error(self, peer: u32, ours: &Header) -> Error {
        match self {
            Self::InPeace => Error::PeerLost { rank: peer },
            Self::Lost(rank) => Error::PeerLost { rank },
            Self::Mismatch(rank) => {
                let theirs = format!("another call, as rank {peer} found");
                Error::Mismatch { rank, ours: ours.to_string(), theirs }
            }
        }
    }
}

/// One rank's call, as its peers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) operation: Operation,
    pub(crate) dtype: DType,
    /// The root of a broadcast, 0 otherwise.
    pub(crate) root: u32,
    /// How many calls were made before this one.
    pub(crate) sequence: u64,
    /// In elements; the sender's own where ranks may differ.
    pub(crate) len: u64,
}

impl Header {
    /// The last words of a rank.
    pub(crate) fn goodbye(parting: Parting) -> Self {
        let (root, len) = match parting {
            Parting::Lost(rank) => (rank, 0),
            Parting::InPeace => (0, 1),
            Parting::Mismatch(rank) => (rank, 2),
        };
        Self { operation: Operation::Goodbye, dtype: DType::Bytes, root, sequence: 0, len }
    }

    /// Why the sender leaves, if these are last words.
    pub(crate) fn parting(&self) -> Option<Parting> {
        (self.operation == Operation::Goodbye).then_some(match self.len {
            1 => Parting::InPeace,
            2 => Parting::Mismatch(self.root),
            _ => Parting::Lost(self.root),
        })
    }

    /// Whether two ranks make the same call.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        let ragged = matches!(self.operation, Operation::AllGatherBytes | Operation::BroadcastBytes);
        self.operation == other.operation
            && self.sequence == other.sequence
            && self.dtype == other.dtype
            && self.root == other.root
            && (ragged || self.len == other.len)
    }

    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = self.operation as u8;
        bytes[5] = self.dtype as u8;
        bytes[8..12].copy_from_slice(&self.root.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// The header in `bytes`, or nothing if they are none.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let operation = match bytes[4] {
            0 => Operation::AllReduce,
            1 => Operation::Broadcast,
            2 => Operation::BroadcastBytes,
            3 => Operation::AllGatherBytes,
            4 => Operation::Barrier,
            5 => Operation::Goodbye,
            6 => Operation::AllReduceCompressed,
            7 => Operation::ReduceScatter,
            8 => Operation::AllGather,
            _ => return None,
        };
        let dtype = match bytes[5] {
            0 => DType::F32,
            1 => DType::Bf16,
            2 => DType::F64,
            3 => DType::U64,
            4 => DType::Bytes,
            _ => return None,
        };
        (word(0) == MAGIC).then(|| Self { operation, dtype, root: word(8), sequence: long(16), len: long(24) })
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, number) = (self.operation.name(), self.sequence);
        match self.operation {
            Operation::AllReduce | Operation::AllReduceCompressed | Operation::ReduceScatter | Operation::AllGather => {
                write!(f, "{name} of {} {}", self.len, self.dtype.name())?;
            }
            Operation::Broadcast => write!(f, "{name} of {} {} from rank {}", self.len, self.dtype.name(), self.root)?,
            Operation::BroadcastBytes => write!(f, "{name} from rank {}", self.root)?,
            _ => write!(f, "{name}")?,
        }
        write!(f, " as call {number}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SUM: Header = Header { operation: Operation::AllReduce, dtype: DType::F32, root: 0, sequence: 3, len: 8 };

    #[test]
    fn a_header_survives_the_wire() {
        for operation in [Operation::AllReduce, Operation::Barrier, Operation::Goodbye, Operation::AllGather] {
            let header = Header { operation, dtype: DType::U64, root: 5, sequence: u64::MAX - 1, len: 1 << 40 };
            assert_eq!(Header::decode(&header.encode()), Some(header));
        }
    }

    #[test]
    fn calls_agree_only_if_everything_agrees() {
        assert!(SUM.agrees_with(&SUM));
        for other in [
            Header { operation: Operation::Broadcast, ..SUM },
            Header { dtype: DType::Bf16, ..SUM },
            Header { root: 1, ..SUM },
            Header { sequence: 4, ..SUM },
            Header { len: 9, ..SUM },
        ] {
            assert!(!SUM.agrees_with(&other), "{other}");
        }
        let gather = Header { operation: Operation::AllGatherBytes, ..SUM };
        assert!(gather.agrees_with(&Header { len: 0, ..gather }), "gathered lengths may differ");
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_what_encodes_to_them_or_to_nothing(mut bytes in any::<[u8; HEADER_BYTES]>(), op in 0u8..10) {
            bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
            bytes[4] = op;
            if let Some(header) = Header::decode(&bytes) {
                prop_assert_eq!(Header::decode(&header.encode()), Some(header));
            }
        }
    }
}
