//! An object store that fails on purpose: the same trait outside and inside, with rules for what goes wrong.
//!
//! ```
//! use unimse_checkpoint::fault::{Fault, FaultStore, Faults, Operation, Rule};
//! use unimse_checkpoint::Store;
//!
//! let faults = Faults::default();
//! let store = Store::memory().decorated(|inner| FaultStore::new(inner, &faults));
//! // The reply to the first creation of any manifest is lost, after the store has done the work.
//! faults.add(Rule::new(Operation::Put, Fault::LoseReply).on("manifest-").times(1));
//! # let _ = store;
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use object_store::path::Path;

mod store;

pub use store::FaultStore;

/// What a store is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Writing an object in one request.
    Put,
    /// Beginning an object of several parts.
    Begin,
    /// Writing one part.
    Part,
    /// Making an object of several parts visible.
    Complete,
    /// Taking the parts back.
    Abort,
    /// Reading an object or a range of it.
    Get,
    /// Asking for an object's size.
    Head,
    /// Deleting an object.
    Delete,
    /// Listing.
    List,
    /// Copying or renaming.
    Copy,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation is refused as if the store were overloaded; nothing is done.
    Unavailable,
    /// The operation is refused as if no space were left; nothing is done.
    DiskFull,
    /// The operation is refused as if the caller lacked the right; nothing is done.
    PermissionDenied,
    /// The operation is refused as if the object existed (S3 answers 409 so while a delete is under way); nothing is done.
    Conflict,
    /// The operation is done, and its reply is lost.
    LoseReply,
    /// The operation never ends; dropping its future is then a crash at this point.
    Hang,
    /// The bit `bit` (counted from the first byte) of what is written or read is flipped.
    FlipBit(u64),
    /// Only the first bytes of what is written or read get through.
    Truncate(u64),
    /// A create-if-absent overwrites, as on servers that ignore If-None-Match.
    IgnoreCreate,
}

/// When something goes wrong.
#[derive(Clone, Debug)]
pub struct Rule {
    operation: Operation,
    fault: Fault,
    key: String,
    skip: u64,
    times: u64,
}

impl Rule {
    /// Lets every `operation` go wrong.
    pub fn new(operation: Operation, fault: Fault) -> Self {
        Self { operation, fault, key: String::new(), skip: 0, times: u64::MAX }
    }

    /// Only on keys that contain `part`.
    #[must_use]
    pub fn on(self, part: &str) -> Self {
        Self { key: part.to_owned(), ..self }
    }

    /// Only after `count` operations that would have matched went well.
    #[must_use]
    pub fn after(self, count: u64) -> Self {
        Self { skip: count, ..self }
    }

    /// Only `count` times.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self { times: count, ..self }
    }
}

/// The rules of a [`FaultStore`] and its counters, shared with the test that sets them.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    counts: HashMap<Operation, u64>,
    injected: u64,
    open: u64,
}

impl Faults {
    /// Adds a rule; of several that match, the first added applies.
    pub fn add(&self, rule: Rule) {
        self.with(|state| state.rules.push(rule));
    }

    /// Heals the store; the counters stay.
    pub fn clear(&self) {
        self.with(|state| state.rules.clear());
    }

    /// How often an operation was asked for, whether it went well or not.
    pub fn count(&self, operation: Operation) -> u64 {
        self.with(|state| state.counts.get(&operation).copied().unwrap_or(0))
    }

    /// How many faults were injected.
    pub fn injected(&self) -> u64 {
        self.with(|state| state.injected)
    }

    /// How many objects of several parts were begun and neither completed nor aborted.
    pub fn open_uploads(&self) -> u64 {
        self.with(|state| state.open)
    }

    fn opened(&self) {
        self.with(|state| state.open += 1);
    }

    fn closed(&self) {
        self.with(|state| state.open = state.open.saturating_sub(1));
    }

    /// Counts an operation and decides its fate.
    fn judge(&self, operation: Operation, key: &Path) -> Option<Fault> {
        self.with(|state| {
            *state.counts.entry(operation).or_default() += 1;
            let matching =
                |rule: &&mut Rule| rule.operation == operation && rule.times > 0 && key.as_ref().contains(&rule.key);
            let rule = state.rules.iter_mut().find(matching)?;
            if rule.skip > 0 {
                rule.skip -= 1;
                return None;
            }
            rule.times -= 1;
            state.injected += 1;
            Some(rule.fault)
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // A test that panicked while it held the lock leaves nothing half-done here.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|state| fmt::Debug::fmt(state, f))
    }
}
