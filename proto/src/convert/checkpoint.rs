//! Checkpoints.

use unimse_core::checkpoint::CheckpointRef;
use unimse_core::id::{Generation, Step};
use unimse_core::time::Timestamp;
use unimse_core::view::CheckpointView;

use super::{Malformed, parse};
use crate::wire;

impl From<CheckpointRef> for wire::CheckpointRef {
    fn from(at: CheckpointRef) -> Self {
        let CheckpointRef { uri, manifest, digest, step, generation } = at;
        Self { uri, manifest, digest, step: step.0, generation: generation.0 }
    }
}

impl From<wire::CheckpointRef> for CheckpointRef {
    fn from(at: wire::CheckpointRef) -> Self {
        let wire::CheckpointRef { uri, manifest, digest, step, generation } = at;
        Self { uri, manifest, digest, step: Step(step), generation: Generation(generation) }
    }
}

impl From<CheckpointView> for wire::CheckpointView {
    fn from(view: CheckpointView) -> Self {
        Self {
            job: view.job.to_string(),
            step: view.step.0,
            generation: view.generation.0,
            state: view.state,
            reason: view.reason,
            best: view.best,
            latest: view.latest,
            uri: view.uri,
            manifest: view.manifest,
            digest: view.digest,
            bytes: view.bytes,
            world_size: view.world_size,
            metrics: view.metrics,
            committed_ms: view.committed.0,
        }
    }
}

impl TryFrom<wire::CheckpointView> for CheckpointView {
    type Error = Malformed;

    fn try_from(view: wire::CheckpointView) -> Result<Self, Malformed> {
        Ok(Self {
            job: parse(&view.job, "checkpoint.job")?,
            step: Step(view.step),
            generation: Generation(view.generation),
            state: view.state,
            reason: view.reason,
            best: view.best,
            latest: view.latest,
            uri: view.uri,
            manifest: view.manifest,
            digest: view.digest,
            bytes: view.bytes,
            world_size: view.world_size,
            metrics: view.metrics,
            committed: Timestamp(view.committed_ms),
        })
    }
}
