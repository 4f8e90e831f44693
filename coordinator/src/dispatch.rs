//! Deletes the checkpoints that the machine has decided to let go, and reports when they are gone.
//!
//! Orders to agents go out from the loop itself, to queues that never make it wait. A deletion that is lost with the process is decided
//! again at the next start; one that fails is tried again, less and less often.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use unimse_checkpoint::{ManifestKey, Store, gc};
use unimse_core::backoff::Backoff;
use unimse_core::checkpoint::CheckpointRef;
use unimse_core::id::JobId;
use unimse_core::machine::Event;

use crate::handle::Handle;
use crate::service::Failure;

/// Deletions at a time.
const AT_ONCE: usize = 4;
const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_mins(10) };

/// A checkpoint to be removed.
#[derive(Clone, Debug)]
pub(crate) struct Deletion {
    pub(crate) job: JobId,
    pub(crate) at: CheckpointRef,
}

/// Works until the loop that decides is gone; what is not done then is decided again at the next start.
pub(crate) async fn run(
    mut deletions: mpsc::UnboundedReceiver<Deletion>,
    handle: Handle,
    environment: BTreeMap<String, String>,
) {
    let stores = Stores { open: Arc::default(), environment: Arc::new(environment) };
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            deletion = deletions.recv() => {
                let Some(deletion) = deletion else { return };
                let (stores, room, handle) = (stores.clone(), room.clone(), handle.clone());
                running.spawn(async move { delete_until_gone(&stores, &room, &handle, deletion).await });
            }
            Some(_) = running.join_next() => {}
        }
    }
}

async fn delete_until_gone(stores: &Stores, room: &Semaphore, handle: &Handle, deletion: Deletion) {
    let Deletion { job, at } = deletion;
    for attempt in 0.. {
        if attempt > 0 {
            tokio::time::sleep(BACKOFF.delay(attempt - 1, u64::from(job.0) ^ at.step.0)).await;
        }
        let done = {
            let Ok(_room) = room.acquire().await else { return };
            delete(stores, job, &at).await
        };
        match done {
            Ok(objects) => tracing::info!(%job, step = %at.step, objects, "checkpoint deleted"),
            Err(error) => {
                tracing::warn!(%job, manifest = at.manifest, attempt, %error, "could not delete a checkpoint");
                continue;
            }
        }
        let event = Event::CheckpointDeleted { job, manifest: at.manifest.clone() };
        match handle.apply(event).await {
            // A full disk under the journal: deleting what is gone already is quick, so all of it is tried again.
            Err(Failure::Full(_)) => {}
            _ => return,
        }
    }
}

async fn delete(stores: &Stores, job: JobId, at: &CheckpointRef) -> Result<u64, unimse_checkpoint::Error> {
    let key = at.manifest.parse::<ManifestKey>().ok().filter(|key| key.job == job && key.step == at.step);
    let Some(key) = key else {
        // A worker wrote this name. It leads to nothing of this job, so there is nothing of ours to delete.
        tracing::error!(%job, manifest = at.manifest, "a checkpoint's manifest lies outside of its job; left alone");
        return Ok(0);
    };
    Ok(gc::delete(&stores.get(&at.uri)?, &key).await?.objects)
}

/// Stores that are open, by place.
#[derive(Clone)]
struct Stores {
    open: Arc<Mutex<HashMap<String, Store>>>,
    environment: Arc<BTreeMap<String, String>>,
}

impl Stores {
    fn get(&self, place: &str) -> Result<Store, unimse_checkpoint::Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.get(place) {
            return Ok(store.clone());
        }
        let store = Store::open(place, self.environment.iter().map(|(name, value)| (name.clone(), value.clone())))?;
        open.insert(place.to_owned(), store.clone());
        Ok(store)
    }
}
