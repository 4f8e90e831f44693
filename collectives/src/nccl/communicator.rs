//! The communicator, which the rank's thread and an aborting one share.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::cuda::Stream;
use super::library::{Comm, IN_PROGRESS, Nccl as Library, UniqueId};
use crate::abort::Abort;
use crate::{AbortHandle, DeviceBuffer, Error, Group, Result};

/// How long an orderly end may take before it becomes an abort.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// A call on device memory.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verb {
    Sum,
    Broadcast {
        root: u32,
    },
    /// Every rank's segment is as long as the others'.
    ReduceScatter,
    AllGather,
}

/// A communicator and whether it still may be used. The lock keeps all but one thread out of NCCL; nobody holds it for
/// longer than a non-blocking call.
pub(super) struct Shared {
    library: &'static Library,
    /// The rank and the number of ranks.
    place: (usize, usize),
    state: Mutex<State>,
    aborted: AtomicBool,
    control: AbortHandle,
}

struct State {
    /// Nothing once it was aborted or closed.
    comm: Option<Handle>,
    /// The first error, which all later calls repeat.
    broken: Option<Error>,
}

struct Handle(Comm);
// SAFETY: a communicator may be used by any thread, one at a time, which the lock around it sees to.
unsafe impl Send for Handle {}

impl Shared {
    /// Begins to form the communicator on the current device.
    pub(super) fn begin(library: &'static Library, group: Group, id: &UniqueId, control: AbortHandle) -> Result<Self> {
        let comm = library.init(group.world_size, group.rank, id)?;
        let state = State { comm: Some(Handle(comm)), broken: None };
        let place = (group.rank as usize, group.world_size as usize);
        Ok(Self { library, place, state: Mutex::new(state), aborted: AtomicBool::new(false), control })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if an earlier call did.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_aborted() {
            return Err(Error::Aborted);
        }
        self.lock().broken.clone().map_or(Ok(()), Err)
    }

    /// Whether NCCL has nothing left to do on the host for the calls made so far.
    pub(super) fn is_idle(&self) -> Result<bool> {
        let state = self.lock();
        let comm = state.comm.as_ref().ok_or(Error::Aborted)?;
        // SAFETY: the handle is there, so it was not aborted, and the lock is held.
        Ok(unsafe { self.library.state(comm.0) }? != IN_PROGRESS)
    }

    pub(super) fn enqueue(&self, verb: Verb, buffer: DeviceBuffer, stream: &Stream) -> Result<()> {
        let state = self.lock();
        let comm = state.comm.as_ref().ok_or(Error::Aborted)?.0;
        let DeviceBuffer { ptr, len, dtype, .. } = buffer;
        // SAFETY: the handle is there and the lock is held; the address was checked with the driver, and its owner keeps the
        // memory by the contract of `DeviceBuffer`.
        unsafe {
            match verb {
                Verb::Sum => self.library.sum(ptr, len, dtype, comm, stream.raw()),
                Verb::ReduceScatter => self.library.reduce_scatter(self.place, (ptr, len, dtype), comm, stream.raw()),
                Verb::AllGather => self.library.all_gather(self.place, (ptr, len, dtype), comm, stream.raw()),
                Verb::Broadcast { root } => self.library.broadcast(root, (ptr, len, dtype), comm, stream.raw()),
            }
        }
    }

    /// Stops everything and remembers why.
    pub(super) fn fail(&self, error: Error) -> Error {
        let error = if self.is_aborted() { Error::Aborted } else { error };
        self.stop();
        self.lock().broken.get_or_insert(error).clone()
    }

    /// Ends the communicator in order if it is in order, else by aborting.
    pub(super) fn close(&self) {
        let until = Instant::now() + CLOSE_WITHIN;
        let mut state = self.lock();
        let Some(handle) = state.comm.take() else { return };
        let healthy = state.broken.is_none() && !self.is_aborted();
        // SAFETY: the handle was there, is taken out for good, and the lock is held; destroyed or aborted exactly once.
        unsafe {
            let finalized = healthy
                && self.library.finalize(handle.0).is_ok()
                && loop {
                    match self.library.state(handle.0) {
                        Ok(IN_PROGRESS) if Instant::now() < until => std::thread::yield_now(),
                        Ok(state) => break state != IN_PROGRESS,
                        Err(_) => break false,
                    }
                };
            if finalized {
                self.library.destroy(handle.0);
            } else {
                self.library.abort(handle.0);
            }
        }
    }

    /// Stops kernels that wait for peers, and closes the control group so that the peers notice.
    fn stop(&self) {
        if let Some(handle) = self.lock().comm.take() {
            // SAFETY: as in `close`.
            unsafe { self.library.abort(handle.0) };
        }
        self.control.abort();
    }
}

impl Abort for Shared {
    fn abort(&self) {
        self.aborted.store(true, Ordering::SeqCst);
        self.stop();
    }

    fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Communicator").field("broken", &self.lock().broken).finish_non_exhaustive()
    }
}
