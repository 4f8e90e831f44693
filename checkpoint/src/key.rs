//! The keys of a checkpoint, built only from typed parts, so that no name can leave its job's prefix.

use std::fmt;
use std::str::FromStr;

use object_store::path::Path;
use serde::{Deserialize, Serialize};
use unimse_core::id::{Generation, JobId, Rank, Step};

/// Makes the keys of one try at writing a checkpoint unique: lower-case letters, digits and hyphens, at most 63.
///
/// All ranks of a generation share one, drawn by rank 0 for each try.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Attempt(String);

impl Attempt {
    /// Draws a fresh one from the system's randomness.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string()[..12].to_owned())
    }
}

/// Text that cannot be part of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {kind}")]
pub struct ParseKeyError {
    text: String,
    kind: &'static str,
}

fn refuse(text: &str, kind: &'static str) -> ParseKeyError {
    ParseKeyError { text: text.to_owned(), kind }
}

impl FromStr for Attempt {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let good = (1..=63).contains(&text.len()) && !text.starts_with('-') && text.bytes().all(allowed);
        good.then(|| Self(text.to_owned())).ok_or_else(|| refuse(text, "an attempt (a-z, 0-9 and hyphens, at most 63)"))
    }
}

impl<'de> Deserialize<'de> for Attempt {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names the manifest of a checkpoint, as `<job>/step-00000200/manifest-g0007.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManifestKey {
    /// The job that trained.
    pub job: JobId,
    /// The last completed step.
    pub step: Step,
    /// The generation that wrote it.
    pub generation: Generation,
}

impl ManifestKey {
    /// The key in the store.
    pub fn path(&self) -> Path {
        Path::from(self.to_string())
    }

    /// The prefix of everything written for this step, by any generation.
    pub fn step_prefix(&self) -> Path {
        step_prefix(self.job, self.step)
    }

    /// The keys of one try at writing this checkpoint.
    pub fn attempt(self, attempt: Attempt) -> AttemptKey {
        AttemptKey { checkpoint: self, attempt }
    }
}

fn step_prefix(job: JobId, step: Step) -> Path {
    Path::from(format!("{job}/step-{:08}", step.0))
}

impl fmt::Display for ManifestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/step-{:08}/manifest-g{:04}.json", self.job, self.step.0, self.generation.0)
    }
}

impl FromStr for ManifestKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let parse = || {
            let mut parts = text.split('/');
            let key = Self {
                job: parts.next()?.parse().ok()?,
                step: Step(parts.next()?.strip_prefix("step-")?.parse().ok()?),
                generation: Generation(parts.next()?.strip_prefix("manifest-g")?.strip_suffix(".json")?.parse().ok()?),
            };
            // Comparing with the canonical text refuses signs, missing zeros and anything after the end.
            (key.to_string() == text).then_some(key)
        };
        parse().ok_or_else(|| refuse(text, "a manifest key (`<job>/step-00000200/manifest-g0007.json`)"))
    }
}

impl Serialize for ManifestKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ManifestKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Names the folder of one try at a checkpoint, as `<job>/step-00000200/g0007-<attempt>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptKey {
    /// The checkpoint it is meant to become.
    pub checkpoint: ManifestKey,
    /// What tells it from other tries.
    pub attempt: Attempt,
}

impl AttemptKey {
    /// The prefix of all shards of this try.
    pub fn prefix(&self) -> Path {
        Path::from(self.to_string())
    }

    /// The key of a rank's shard.
    pub fn shard(&self, rank: Rank) -> Path {
        Path::from(format!("{self}/rank-{:04}.safetensors", rank.0))
    }

    /// Finds the try that an object of a store belongs to; `None` for manifests and foreign objects.
    pub(crate) fn containing(key: &Path) -> Option<Self> {
        let mut parts = key.as_ref().split('/');
        let job: JobId = parts.next()?.parse().ok()?;
        let step = Step(parts.next()?.strip_prefix("step-")?.parse().ok()?);
        let (generation, attempt) = parts.next()?.strip_prefix('g')?.split_once('-')?;
        let generation = Generation(generation.parse().ok()?);
        parts.next()?;
        let found = Self { checkpoint: ManifestKey { job, step, generation }, attempt: attempt.parse().ok()? };
        key.prefix_matches(&found.prefix()).then_some(found)
    }
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ManifestKey { job, step, generation } = self.checkpoint;
        write!(f, "{job}/step-{:08}/g{:04}-{}", step.0, generation.0, self.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ManifestKey {
        ManifestKey { job: JobId(3), step: Step(200), generation: Generation(7) }
    }

    #[test]
    fn keys_follow_the_documented_layout_and_read_back() {
        let job = JobId(3);
        assert_eq!(key().to_string(), format!("{job}/step-00000200/manifest-g0007.json"));
        assert_eq!(key().to_string().parse(), Ok(key()));
        let attempt = key().attempt("a1b2".parse().expect("a good attempt"));
        assert_eq!(attempt.shard(Rank(12)).as_ref(), format!("{job}/step-00000200/g0007-a1b2/rank-0012.safetensors"));
        assert_eq!(AttemptKey::containing(&attempt.shard(Rank(0))), Some(attempt));
        assert_eq!(AttemptKey::containing(&key().path()), None);
    }

    #[test]
    fn big_numbers_grow_out_of_the_padding() {
        let big = ManifestKey { step: Step(1_234_567_890), generation: Generation(12_345), ..key() };
        assert_eq!(big.to_string().parse(), Ok(big));
    }

    #[test]
    fn keys_that_could_leave_the_prefix_are_refused() {
        let good = key().to_string();
        let job = JobId(3);
        for bad in [
            format!("../{good}"),
            format!("{good}/.."),
            format!("{job}/step-200/manifest-g0007.json"),
            format!("{job}/step-+0000200/manifest-g0007.json"),
            format!("{job}/step-00000200/../manifest-g0007.json"),
            good.replace('/', "%2f"),
            String::new(),
        ] {
            assert!(bad.parse::<ManifestKey>().is_err(), "{bad}");
        }
        let long = "a".repeat(64);
        for bad in ["", "..", "a/b", "A", "a b", "a\0", "-a", "a%2e", long.as_str()] {
            assert!(bad.parse::<Attempt>().is_err(), "{bad}");
        }
    }

    #[test]
    fn random_attempts_are_valid_and_differ() {
        let [a, b] = [Attempt::random(), Attempt::random()];
        assert_eq!(a.to_string().parse(), Ok(a.clone()));
        assert_ne!(a, b);
    }
}
