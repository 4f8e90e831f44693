//! What can go wrong with a checkpoint, told so that a person knows the place and the next move.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use object_store::Error as StoreError;

use crate::digest::Digest;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that writing, reading or deleting a checkpoint can run into.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of the store is not one this crate understands.
    #[error(
        "cannot open checkpoint store `{place}`: {reason}; hint: use a folder, file:///folder or s3://bucket/prefix"
    )]
    BadPlace {
        /// The address as given.
        place: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The store refuses to be written or read: permissions, credentials, a missing bucket, a file where a folder should be.
    #[error(
        "cannot {action} in checkpoint store `{place}`: access refused; hint: check that the folder or bucket exists and that \
         this user or key may write to it"
    )]
    NotAllowed {
        /// The store, and the key in it where one is concerned.
        place: String,
        /// What was attempted.
        action: &'static str,
        /// The refusal.
        source: Box<dyn StdError + Send + Sync>,
    },

    /// No space or quota is left.
    #[error(
        "cannot {action} in checkpoint store `{place}`: no space left; hint: free space there (`unimse ckpt gc` deletes \
         orphans) or keep fewer checkpoints"
    )]
    DiskFull {
        /// The store, and the key in it where one is concerned.
        place: String,
        /// What was attempted.
        action: &'static str,
        /// The failure as the system told it.
        source: Box<dyn StdError + Send + Sync>,
    },

    /// The store failed in another way, after its own retries; trying again later may help.
    #[error(
        "cannot {action} in checkpoint store `{place}`; hint: the store may be unreachable or overloaded, try again"
    )]
    Unavailable {
        /// The store, and the key in it where one is concerned.
        place: String,
        /// What was attempted.
        action: &'static str,
        /// The failure as the store told it.
        source: Box<dyn StdError + Send + Sync>,
    },

    /// The store let two writers create the same key, so it cannot protect a checkpoint.
    #[error(
        "store lies: `{place}` does not honour create-if-absent ({evidence}); hint: use another store, or an S3 service that \
         implements If-None-Match"
    )]
    StoreLies {
        /// The store.
        place: String,
        /// What it did.
        evidence: String,
    },

    /// Another manifest holds this key: a rank of the same generation committed something else.
    #[error(
        "fenced: `{key}` holds manifest {theirs}, this one is {ours}; hint: a newer attempt owns this step, drop this one"
    )]
    Fenced {
        /// The key of the manifest.
        key: String,
        /// The digest of the manifest that lost.
        ours: Digest,
        /// The digest of the manifest that is there.
        theirs: Digest,
    },

    /// There is no manifest at this key, so there is no checkpoint.
    #[error("no checkpoint at `{place}`; hint: list what is there with `unimse ckpt ls`")]
    ManifestMissing {
        /// The store and key.
        place: String,
    },

    /// The manifest's bytes are not those that were committed.
    #[error("manifest `{key}` is damaged: digest {actual}, committed as {expected}; hint: use an earlier checkpoint")]
    ManifestDamaged {
        /// The key of the manifest.
        key: String,
        /// The digest that the journal holds.
        expected: Digest,
        /// The digest of the bytes that are there.
        actual: Digest,
    },

    /// The manifest cannot be read or contradicts itself.
    #[error("manifest `{key}` is invalid: {reason}; hint: use an earlier checkpoint")]
    ManifestInvalid {
        /// The key of the manifest.
        key: String,
        /// The first contradiction.
        reason: String,
    },

    /// The manifest was written by a newer release.
    #[error("manifest `{key}` has version {found}, this release reads up to {supported}; hint: update unimse")]
    ManifestVersion {
        /// The key of the manifest.
        key: String,
        /// The version it carries.
        found: u32,
        /// The newest version this release reads.
        supported: u32,
    },

    /// A shard that the manifest names is not there.
    #[error("shard `{key}` of rank {rank} is missing; hint: use an earlier checkpoint")]
    ShardMissing {
        /// The key of the shard.
        key: String,
        /// The rank that wrote it.
        rank: u32,
    },

    /// A shard is shorter or longer than it was when committed.
    #[error("shard `{key}` has {actual} bytes instead of {expected}; hint: use an earlier checkpoint")]
    ShardSize {
        /// The key of the shard.
        key: String,
        /// Its size in the manifest, in bytes.
        expected: u64,
        /// Its size in the store, in bytes.
        actual: u64,
    },

    /// Bytes of a shard are not those that were written.
    #[error(
        "shard `{key}` is damaged in chunk {chunk} (at byte {offset}): digest {actual}, written as {expected}; hint: use an \
         earlier checkpoint"
    )]
    ChunkDamaged {
        /// The key of the shard.
        key: String,
        /// The index of the first damaged chunk met.
        chunk: u64,
        /// Where the chunk begins, in bytes.
        offset: u64,
        /// The digest in the manifest.
        expected: Digest,
        /// The digest of the bytes that are there.
        actual: Digest,
    },

    /// A tensor that was asked for is in no shard.
    #[error("checkpoint `{key}` holds no tensor `{name}`")]
    TensorMissing {
        /// The key of the manifest.
        key: String,
        /// The name that was asked for.
        name: String,
    },

    /// The writer was handed tensors or bytes that do not fit what it announced.
    #[error("cannot write shard `{key}`: {reason}")]
    BadShard {
        /// The key of the shard.
        key: String,
        /// What does not fit.
        reason: String,
    },

    /// A folder to pull into exists already and is not empty.
    #[error("`{}` is not empty; hint: give a new folder", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },

    /// A local file that is no part of the store could not be written.
    #[error("cannot {action} `{}`", path.display())]
    Local {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// The failure as the system told it.
        source: io::Error,
    },
}

impl Error {
    /// Tells whether the checkpoint itself is bad (missing or damaged parts), so that an earlier one should be used.
    pub fn is_corruption(&self) -> bool {
        matches!(
            self,
            Self::ManifestMissing { .. }
                | Self::ManifestDamaged { .. }
                | Self::ManifestInvalid { .. }
                | Self::ShardMissing { .. }
                | Self::ShardSize { .. }
                | Self::ChunkDamaged { .. }
        )
    }

    /// Tells whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Sorts an error of the store by what a person has to do about it.
    pub(crate) fn from_store(place: String, action: &'static str, error: StoreError) -> Self {
        let refused = matches!(error, StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. });
        let source: Box<dyn StdError + Send + Sync> = Box::new(error);
        match io_kind(source.as_ref()) {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge) => {
                Self::DiskFull { place, action, source }
            }
            Some(
                io::ErrorKind::PermissionDenied
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::IsADirectory,
            ) => Self::NotAllowed { place, action, source },
            _ if refused => Self::NotAllowed { place, action, source },
            _ => Self::Unavailable { place, action, source },
        }
    }
}

/// Finds the first operating system error behind `error`.
fn io_kind(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            // An io::Error can wrap another one; the innermost kind is the one the system gave.
            return io.get_ref().and_then(|inner| io_kind(inner)).or_else(|| Some(io.kind()));
        }
        next = error.source();
    }
    None
}
