//! Checkpoints in the making: copied at a step boundary, written while training goes on, committed when all ranks have written.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use unimse_checkpoint::{
    Attempt, DataCursor, Error, Manifest, ManifestKey, ShardDescriptor, ShardWriter, Store, TensorSpec, Tokenizer,
    WriteOptions, commit, manifest,
};
use unimse_collectives::{Collective, DEFAULT_TIMEOUT};
use unimse_core::checkpoint::CheckpointRef;
use unimse_core::machine::ReportKind;
use unimse_core::time::Timestamp;

use super::held::Held;
use super::{Description, Halt, Mouth, Replica, failed, shares};
use crate::protocol::{Begin, Seat};

/// How often a part, or the manifest, is tried when the store does not answer; pauses double from the first.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How long the ranks wait for one another's uploads where nothing else is left to do.
const SETTLE_TIMEOUT: Duration = Duration::from_hours(1);
/// How often a waiting rank looks whether its peers are still there.
const LOOK: Duration = Duration::from_millis(20);

/// Writes the checkpoints of one generation.
pub(super) struct Saver {
    runtime: Handle,
    store: Store,
    uri: String,
    begin: Begin,
    seat: Seat,
    attempt: Attempt,
    mouth: Mouth,
    saving: Option<Saving>,
    /// The commit under way or done; on rank 0 only.
    commit: Option<JoinHandle<Result<(), String>>>,
}

/// One checkpoint, from its copy until all ranks have written.
struct Saving {
    held: Held,
    copied: Arc<Copied>,
    description: Description,
    upload: Arc<Upload>,
    abandoned: CancellationToken,
}

#[derive(Default)]
struct Upload {
    outcome: Mutex<Option<Result<ShardDescriptor, String>>>,
    done: Condvar,
}

/// Whether the copy of a rank's part is done: until then the numbers must not change.
#[derive(Default)]
struct Copied {
    done: Mutex<bool>,
    changed: Condvar,
}

impl Copied {
    fn set(&self) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(done, |done| !*done).unwrap_or_else(PoisonError::into_inner));
    }
}

/// Says so however the copy ends.
struct Says(Arc<Copied>);

impl Drop for Says {
    fn drop(&mut self) {
        self.0.set();
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        // Whoever drops this is about to change what is being copied.
        self.copied.wait();
        self.abandoned.cancel();
    }
}

impl Saver {
    pub(super) fn new(
        runtime: Handle,
        store: Store,
        begin: &Begin,
        seat: Seat,
        attempt: Attempt,
        mouth: Mouth,
    ) -> Self {
        let uri = begin.spec.checkpoint.uri.clone().unwrap_or_else(|| begin.checkpoint_uri.clone());
        Self { runtime, store, uri, begin: begin.clone(), seat, attempt, mouth, saving: None, commit: None }
    }

    /// Where this job's objects go.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Whether a checkpoint is being written.
    pub(super) fn is_busy(&self) -> bool {
        self.saving.is_some()
    }

    /// Waits until the copy of this rank's part is done, if one is being made; returns what the wait took.
    pub(super) fn copied(&self) -> Duration {
        let began = Instant::now();
        if let Some(saving) = &self.saving {
            saving.copied.wait();
        }
        began.elapsed()
    }

    /// Whether this rank's part is written, and whether that has failed.
    pub(super) fn upload(&self) -> (bool, bool) {
        let outcome = |saving: &Saving| match &*saving.upload.lock() {
            None => (false, false),
            Some(outcome) => (outcome.is_ok(), outcome.is_err()),
        };
        self.saving.as_ref().map_or((false, false), outcome)
    }

    /// Begins to copy this rank's part and to write it. Training goes on, until the numbers are about to change: see
    /// [`Saver::copied`].
    pub(super) fn start(&mut self, replica: &mut dyn Replica, held: &Held) {
        let tensors = replica.tensors();
        let own = shares::share(&tensors, self.seat.rank.0, self.seat.world_size);
        let copy = replica.copier(&own);
        let own: Vec<TensorSpec> = own.into_iter().map(|place| tensors[place].0.clone()).collect();
        let copied = Arc::new(Copied::default());
        let says = Says(Arc::clone(&copied));
        let copying = self.runtime.spawn_blocking(move || {
            let _says = says;
            copy()
        });
        let upload = Arc::new(Upload::default());
        let (store, key, rank) = (self.store.clone(), self.key(held).attempt(self.attempt.clone()), self.seat.rank);
        let (told, abandoned) = (Arc::clone(&upload), CancellationToken::new());
        let cancelled = abandoned.clone();
        self.in_background(move || async move {
            let part = match copying.await {
                Ok(Ok(copies)) => own.iter().map(|tensor| tensor.name.clone()).zip(copies),
                Ok(Err(cause)) => return told.set(Err(format!("cannot copy a part of a checkpoint: {cause}"))),
                Err(error) => return told.set(Err(format!("the copy of a part of a checkpoint ended: {error}"))),
            };
            let part: BTreeMap<String, Bytes> = part.collect();
            let written = persist("write a part of a checkpoint", async || {
                let mut writer = ShardWriter::new(&store, &key, rank, own.clone(), WriteOptions::default())?;
                let names: Vec<String> = writer.tensors().iter().map(|entry| entry.name.clone()).collect();
                for name in names {
                    writer.write(&name, part[&name].clone()).await?;
                }
                writer.finish().await
            });
            tokio::select! {
                outcome = written => told.set(outcome),
                () = cancelled.cancelled() => {}
            }
        });
        self.saving =
            Some(Saving { held: held.clone(), copied, description: replica.description(), upload, abandoned });
    }

    /// All ranks have written their parts: gathers what they say of them, and rank 0 begins to commit.
    pub(super) fn agree(&mut self, group: &mut dyn Collective) -> Result<(), Halt> {
        let Some(saving) = self.saving.take() else { return Ok(()) };
        let own = saving
            .upload
            .lock()
            .take()
            .ok_or_else(|| failed("a part of a checkpoint was said to be written, but is not"))?;
        let own = serde_json::to_vec(&own).map_err(failed)?;
        let all = group.all_gather_bytes(&own)?;
        let parse = |bytes: &Vec<u8>| serde_json::from_slice::<Result<ShardDescriptor, String>>(bytes).map_err(failed);
        let shards: Vec<Result<ShardDescriptor, String>> = all.iter().map(parse).collect::<Result<_, _>>()?;
        match shards.into_iter().collect::<Result<Vec<_>, String>>() {
            Ok(shards) if self.seat.rank.0 == 0 => self.commit(&saving, shards),
            Ok(_) => {}
            Err(error) => self.commit = Some(self.runtime.spawn(async { Err(error) })),
        }
        Ok(())
    }

    /// Gives up the checkpoint that is being written, because a rank could not write its part.
    pub(super) fn give_up(&mut self) {
        let Some(saving) = self.saving.take() else { return };
        let step = saving.held.step();
        if let Some(Err(error)) = &*saving.upload.lock() {
            tracing::error!(%step, error, "checkpoint given up");
        } else {
            tracing::error!(%step, "checkpoint given up: another rank could not write its part");
        }
    }

    /// Waits until the checkpoint that is being written is agreed on, or given up by all.
    pub(super) fn settle(&mut self, group: &mut dyn Collective) -> Result<(), Halt> {
        let Some(saving) = &self.saving else { return Ok(()) };
        let upload = Arc::clone(&saving.upload);
        while !upload.wait(LOOK) {
            group.probe()?;
        }
        group.set_timeout(SETTLE_TIMEOUT);
        let agreed = self.agree(group);
        group.set_timeout(DEFAULT_TIMEOUT);
        agreed
    }

    /// Waits for the last commit; every rank learns whether it succeeded.
    pub(super) fn finish(&mut self, group: &mut dyn Collective) -> Result<Result<(), String>, Halt> {
        self.settle(group)?;
        let mut outcome = Vec::new();
        if self.seat.rank.0 == 0 {
            let own = match self.commit.take() {
                Some(commit) => self.runtime.block_on(commit).unwrap_or_else(|error| Err(error.to_string())),
                None => Ok(()),
            };
            outcome = serde_json::to_vec(&own).map_err(failed)?;
        }
        group.set_timeout(SETTLE_TIMEOUT);
        let told = group.broadcast_bytes(0, &mut outcome);
        group.set_timeout(DEFAULT_TIMEOUT);
        told?;
        Ok(serde_json::from_slice(&outcome).map_err(failed)?)
    }

    /// Writes the manifest in the background, after the one before, and reports it.
    fn commit(&mut self, saving: &Saving, shards: Vec<ShardDescriptor>) {
        let manifest = self.manifest(saving, shards);
        let (store, mouth, seat, uri) = (self.store.clone(), self.mouth.clone(), self.seat, self.uri.clone());
        let before = self.commit.take();
        self.commit = Some(self.in_background(move || async move {
            if let Some(before) = before
                && let Ok(Err(error)) = before.await
            {
                tracing::error!(error, "an earlier checkpoint was not committed");
            }
            let done = persist("commit a checkpoint", async || commit(&store, &manifest).await).await?;
            let step = manifest.step;
            tracing::info!(%step, bytes = done.bytes, "checkpoint committed");
            let mut metrics = manifest.metrics;
            metrics.retain(|_, value| value.is_finite());
            let at = CheckpointRef {
                uri,
                manifest: done.key.to_string(),
                digest: done.digest.to_string(),
                step,
                generation: manifest.generation,
            };
            mouth
                .event(seat, ReportKind::Committed { at, bytes: done.bytes, world_size: manifest.world_size, metrics });
            Ok(())
        }));
    }

    /// Runs something on a thread of its own; its future need not be able to move between threads.
    fn in_background<T, F>(&self, work: impl FnOnce() -> F + Send + 'static) -> JoinHandle<T>
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let runtime = self.runtime.clone();
        self.runtime.spawn_blocking(move || runtime.block_on(work()))
    }

    fn key(&self, held: &Held) -> ManifestKey {
        ManifestKey { job: self.begin.job, step: held.step(), generation: self.seat.generation }
    }

    fn manifest(&self, saving: &Saving, shards: Vec<ShardDescriptor>) -> Manifest {
        let Saving { held, description, .. } = saving;
        let spec = &self.begin.spec;
        let cursor = held.cursor;
        Manifest {
            version: manifest::VERSION,
            cluster: self.begin.cluster.clone(),
            job: self.begin.job,
            generation: self.seat.generation,
            attempt: self.attempt.clone(),
            step: held.step(),
            world_size: self.seat.world_size,
            created: now(),
            shards,
            cursor: DataCursor { seed: spec.train.seed, epoch: cursor.epoch, index: cursor.index, step: cursor.step },
            optimiser_step: held.step().0,
            // Every draw is a function of (seed, step, micro-shard), so the seed is the whole state.
            rng: serde_json::json!({ "seed": spec.train.seed, "data": description.data }),
            model: description.model.clone(),
            labels: description.labels.clone(),
            tokenizer: description.tokenizer.clone().map(Tokenizer::Inline),
            metrics: held.metrics(),
            job_spec: serde_json::to_value(&**spec).unwrap_or_default(),
        }
    }
}

impl Upload {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Result<ShardDescriptor, String>>> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, outcome: Result<ShardDescriptor, String>) {
        *self.lock() = Some(outcome);
        self.done.notify_all();
    }

    /// Waits for the outcome, not longer than this; tells whether it is there.
    fn wait(&self, longest: Duration) -> bool {
        let waited = self.done.wait_timeout_while(self.lock(), longest, |outcome| outcome.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }
}

/// Tries again while the store does not answer; the error is told with its causes.
async fn persist<T>(what: &'static str, attempt: impl AsyncFn() -> Result<T, Error>) -> Result<T, String> {
    let mut pause = FIRST_PAUSE;
    for tries in 1.. {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if error.is_transient() && tries < TRIES => {
                tracing::warn!(%error, tries, "cannot {what}, trying again");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Err(error) => return Err(with_causes(&error)),
        }
    }
    unreachable!("the loop returns at its last try")
}

/// An error with all its causes in one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
