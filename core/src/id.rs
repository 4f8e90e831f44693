//! Identifiers as newtypes: short enough to type, impossible to mix up.
//!
//! `j-7k2m` is a sequence number in disguise: an odd multiplier permutes the numbers of one length, so neighbours look
//! different, a typing error rarely hits another live job, and the journal alone decides which id comes next.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const SHORTEST: u32 = 4;
const MULTIPLIER: u64 = 0x9E37_79B1;

/// Text that is not an identifier of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {kind} (expected something like `{prefix}-7k2m`)")]
pub struct ParseIdError {
    text: String,
    kind: &'static str,
    prefix: &'static str,
}

fn bits(length: u32) -> u32 {
    length * 5
}

fn encode(number: u32) -> String {
    let number = u64::from(number);
    let length = (SHORTEST..=6).find(|&length| number < 1 << bits(length)).unwrap_or(7);
    let mask = (1_u64 << bits(length)) - 1;
    let mut hidden = number.wrapping_mul(MULTIPLIER) & mask;
    let mut text = vec![0_u8; length as usize];
    for place in text.iter_mut().rev() {
        *place = ALPHABET[(hidden & 31) as usize];
        hidden >>= 5;
    }
    String::from_utf8(text).expect("the alphabet is ASCII")
}

fn decode(text: &str) -> Option<u32> {
    let length = u32::try_from(text.len()).ok().filter(|length| (SHORTEST..=7).contains(length))?;
    let mut hidden = 0_u64;
    for byte in text.bytes() {
        hidden = hidden << 5 | ALPHABET.iter().position(|&letter| letter == byte)? as u64;
    }
    let mask = (1_u64 << bits(length)) - 1;
    // Newton's iteration doubles the correct low bits of the inverse: 3, 6, 12, 24, 48.
    let mut inverse = MULTIPLIER;
    for _ in 0..5 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(MULTIPLIER.wrapping_mul(inverse)));
    }
    let number = u32::try_from(hidden.wrapping_mul(inverse) & mask).ok()?;
    (encode(number) == text).then_some(number)
}

macro_rules! short_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// What the text form begins with, before the hyphen.
            pub const PREFIX: &'static str = $prefix;
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&format!(concat!($prefix, "-{}"), encode(self.0)))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix(concat!($prefix, "-"))
                    .and_then(decode)
                    .map(Self)
                    .ok_or_else(|| ParseIdError { text: text.to_owned(), kind: $kind, prefix: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

short_id!(
    /// Names a job, for ever.
    JobId, "j", "a job id"
);
short_id!(
    /// Names a sweep, for ever.
    SweepId, "s", "a sweep id"
);
short_id!(
    /// Names one life of a worker agent; a restarted agent is a new worker.
    WorkerId, "w", "a worker id"
);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

number!(
    /// Grows by one each time the rank set of a job is formed; the fence of everything a rank says or writes.
    Generation, u64
);
number!(
    /// The place of a trainer among the trainers of one generation, from 0 to world size - 1.
    Rank, u32
);
number!(
    /// Counts optimiser steps of a job; step 0 is the state before training.
    Step, u64
);
number!(
    /// The place of a trial in its sweep, from 0.
    TrialId, u32
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_reads_back_as_itself() {
        let numbers = (0..5000).chain([1 << 20, (1 << 20) - 1, 1 << 25, (1 << 30) + 7, u32::MAX]);
        for number in numbers {
            let text = JobId(number).to_string();
            assert_eq!(text.parse(), Ok(JobId(number)), "{text}");
        }
    }

    #[test]
    fn neighbours_look_different_and_are_four_letters_long() {
        let [a, b] = [JobId(1).to_string(), JobId(2).to_string()];
        assert_eq!(a.len(), "j-7k2m".len());
        assert_ne!(a[2..4], b[2..4]);
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let sweep = SweepId(7).to_string();
        let error = sweep.parse::<JobId>().expect_err("a sweep id is no job id");
        assert_eq!(error.to_string(), format!("`{sweep}` is not a job id (expected something like `j-7k2m`)"));
        for text in ["", "j-", "j-UUUU", "j-il0o", "7k2m", "j-7k2m9zzzzz", "../etc"] {
            assert!(text.parse::<JobId>().is_err(), "{text}");
        }
    }
}
