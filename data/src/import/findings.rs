//! What an import noticed that belongs to no single row: nothing is left out or repaired in silence.

use std::fmt;

use serde::{Deserialize, Serialize};

/// As many ids as are listed of each kind.
const MAX_LISTED: usize = 20;

/// What an import noticed that belongs to no single row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Sentences for people: flaws that were repaired, files that have no use, choices that the format left open.
    pub notes: Vec<String>,
    /// Ids that one file has and another does not.
    pub unmatched: Vec<Unmatched>,
}

/// Ids that one file has and another does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmatched {
    /// Which ids of which files, and what became of them.
    pub what: String,
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub ids: Vec<String>,
}

impl Findings {
    /// Adds a sentence.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds ids, if there are any.
    pub(crate) fn unmatched(&mut self, what: impl Into<String>, ids: impl IntoIterator<Item = String>) {
        let mut ids = ids.into_iter();
        let first: Vec<String> = ids.by_ref().take(MAX_LISTED).collect();
        let count = (first.len() + ids.count()) as u64;
        if count > 0 {
            self.unmatched.push(Unmatched { what: what.into(), count, ids: first });
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Unmatched { what, count, ids } in &self.unmatched {
            let more = if *count > ids.len() as u64 { ", ..." } else { "" };
            writeln!(f, "{what}: {count} ({}{more})", ids.join(", "))?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}
