//! The only durable state: turns in, replay out.
//!
//! A **turn** is what the machine applied at one time: one or more events. It is written whole or not at all, before anybody hears of its
//! outcome. A **snapshot** of the state replaces all turns before it.

mod memory;
mod sqlite;

use std::path::PathBuf;

use unimse_core::machine::{Event, Machine, State};
use unimse_core::time::Timestamp;

pub use memory::{Faults, FaultyJournal, MemoryJournal};
pub use sqlite::SqliteJournal;

/// Why the journal did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No room; nothing was written and the journal is as before.
    #[error("no room for the journal: {0}")]
    Full(String),
    /// What was read is not what was written.
    #[error(
        "the journal {place} is damaged: {what}\n\
         hint: restore the state folder from a backup; starting on a damaged journal could forget or invent jobs"
    )]
    Damaged { place: String, what: String },
    /// Written by a newer version of this program.
    #[error("the journal {place} has version {found}, this program knows up to {known}\nhint: use the newer program")]
    Newer { place: String, found: i64, known: i64 },
    /// Not in the mode that makes commits durable.
    #[error(
        "the journal {place} runs with {setting} = {found}, not {wanted}\nhint: put the state folder on a local disk"
    )]
    Setting { place: String, setting: &'static str, found: String, wanted: &'static str },
    /// The disk failed, or somebody else writes: what was to be written may or may not be there.
    #[error("could not {action} the journal {}", place.display())]
    Failed { action: &'static str, place: PathBuf, source: rusqlite::Error },
}

/// Who this coordinator is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Made at the first start of a state folder.
    pub cluster: String,
    /// Grows by one each time a coordinator takes the folder over.
    pub epoch: u64,
}

/// Events as they are written: one JSON value a line. Made outside of the loop, which has better things to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded(Vec<u8>);

impl Encoded {
    pub fn event(event: &Event) -> Self {
        Self(serde_json::to_vec(event).expect("events are plain data with text keys"))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What one turn adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub at: Timestamp,
    pub events: Vec<Encoded>,
}

impl Turn {
    /// The events, one a line.
    pub(crate) fn lines(&self) -> Vec<u8> {
        let size = self.events.iter().map(|event| event.0.len() + 1).sum();
        let mut lines = Vec::with_capacity(size);
        for event in &self.events {
            lines.extend_from_slice(&event.0);
            lines.push(b'\n');
        }
        lines
    }
}

/// What a journal holds.
#[derive(Debug, Default)]
pub struct Loaded {
    pub state: State,
    /// The turns since.
    pub turns: Vec<(Timestamp, Vec<Event>)>,
}

impl Loaded {
    /// Brings the machine to where it was, and says the last time it had seen.
    pub fn replay(self) -> (Machine, Timestamp) {
        let mut machine = Machine::from_state(self.state);
        let mut newest = Timestamp(0);
        for (at, events) in self.turns {
            newest = newest.max(at);
            for event in events {
                // What the steps brought about was done, or will be done again after recovery.
                let _done = machine.step(at, event);
            }
        }
        (machine, newest)
    }
}

/// Durable memory for one coordinator at a time.
pub trait Journal: Send {
    /// Takes the journal over: the epoch grows by one. `cluster` names a new one.
    fn claim(&mut self, cluster: &str) -> Result<Identity, Error>;

    /// Reads everything back.
    fn load(&mut self) -> Result<Loaded, Error>;

    /// Adds a turn; it is durable on return. After [`Error::Full`] nothing of it is there; after any other error nobody knows.
    fn append(&mut self, turn: &Turn) -> Result<(), Error>;

    /// Replaces all turns so far by the state (JSON) that they led to.
    fn snapshot(&mut self, state: &[u8]) -> Result<(), Error>;

    /// Whether there is room for more.
    fn probe(&mut self) -> Result<(), Error>;
}

#[cfg(test)]
mod tests;
