//! BLAKE3 over shards: one pass gives a value for every chunk and the digest of the whole.
//!
//! BLAKE3 is a tree, and a chunk of a power of two is one of its subtrees. A shard of one chunk has its plain digest as the only
//! value. A longer shard has one chaining value per chunk, and these merge into the plain digest, the one `b3sum` prints.
//! A chaining value depends on the chunk's place, so swapped chunks are noticed too.

use std::fmt;
use std::str::FromStr;

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use serde::{Deserialize, Serialize};

/// The smallest chunk that is a subtree of BLAKE3, in bytes.
pub(crate) const SMALLEST_CHUNK: u64 = 1024;

/// A BLAKE3 value of 32 bytes, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Hashes bytes that are all at hand.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Hashes the chunk that begins at `offset` of a shard of `total` bytes.
    ///
    /// `parts` are the chunk's bytes in order; `offset` is a multiple of the chunk size.
    pub(crate) fn of_chunk<'a>(parts: impl IntoIterator<Item = &'a [u8]>, offset: u64, alone: bool) -> Self {
        let mut hasher = Hasher::new();
        if !alone {
            hasher.set_input_offset(offset);
        }
        for part in parts {
            hasher.update(part);
        }
        if alone { Self(*hasher.finalize().as_bytes()) } else { Self(hasher.finalize_non_root()) }
    }

    /// Merges the values of all chunks of a shard into the digest of the whole.
    pub(crate) fn of_shard(chunks: &[Self]) -> Self {
        match chunks {
            [] => Self::of(&[]),
            [only] => *only,
            _ => {
                let (left, right) = split(chunks);
                Self(*merge_subtrees_root(&merge(left), &merge(right), Mode::Hash).as_bytes())
            }
        }
    }
}

fn split(chunks: &[Digest]) -> (&[Digest], &[Digest]) {
    chunks.split_at(chunks.len().next_power_of_two() / 2)
}

fn merge(chunks: &[Digest]) -> ChainingValue {
    if let [only] = chunks {
        return only.0;
    }
    let (left, right) = split(chunks);
    merge_subtrees_non_root(&merge(left), &merge(right), Mode::Hash)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest of 64 hexadecimal digits")]
pub struct ParseDigestError(String);

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| ParseDigestError(text.to_owned()))?;
        Ok(Self(*hash.as_bytes()))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_values_merge_into_the_plain_digest_for_every_length() {
        let bytes: Vec<u8> = (0..40_000_u32).map(|i| (i * 7 % 251) as u8).collect();
        for chunk in [1024, 2048, 8192] {
            for length in [1, 1023, 1024, 1025, 2048, 3000, 8192, 9000, 16_384, 17_000, 33_333, 40_000] {
                let all = &bytes[..length];
                let chunks: Vec<Digest> = all
                    .chunks(chunk)
                    .enumerate()
                    .map(|(i, part)| {
                        let (head, tail) = part.split_at(part.len() / 3);
                        Digest::of_chunk([head, tail], (i * chunk) as u64, length <= chunk)
                    })
                    .collect();
                assert_eq!(Digest::of_shard(&chunks), Digest::of(all), "{length} bytes in chunks of {chunk}");
            }
        }
    }

    #[test]
    fn equal_chunks_at_different_places_have_different_values() {
        let zeros = vec![0_u8; 1024];
        let value = |offset| Digest::of_chunk([zeros.as_slice()], offset, false);
        assert_ne!(value(0), value(1024));
    }

    #[test]
    fn a_digest_reads_back_from_its_text() {
        let digest = Digest::of(b"unimse");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("xyz".parse::<Digest>().is_err());
    }
}
