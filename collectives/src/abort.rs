//! Stopping a collective from another thread.

use std::fmt;
use std::sync::Arc;

/// What a back end does to stop its calls; called from any thread, any number of times.
pub(crate) trait Abort: Send + Sync {
    fn abort(&self);
    fn is_aborted(&self) -> bool;
}

/// Aborts one rank's collective: the call in progress and all later ones return [`Error::Aborted`](crate::Error::Aborted)
/// at once, and the peers find this rank lost.
#[derive(Clone)]
pub struct AbortHandle(Arc<dyn Abort>);

impl AbortHandle {
    pub(crate) fn new(target: Arc<dyn Abort>) -> Self {
        Self(target)
    }

    /// Aborts; does nothing when that was done before or the collective is gone.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether the collective was aborted by a handle.
    pub fn is_aborted(&self) -> bool {
        self.0.is_aborted()
    }
}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbortHandle").field("aborted", &self.is_aborted()).finish()
    }
}
