//! A journal that forgets with the process, and one that fails on purpose: for tests, here and in other crates.

use std::sync::{Arc, Mutex, PoisonError};

use unimse_core::time::Timestamp;

use super::{Error, Identity, Journal, Loaded, Turn};

#[derive(Debug, Default)]
struct Kept {
    cluster: Option<String>,
    epoch: u64,
    state: Option<Vec<u8>>,
    turns: Vec<(Timestamp, Vec<u8>)>,
}

/// Keeps everything in memory; clones share it, as two processes share a file.
#[derive(Clone, Debug, Default)]
pub struct MemoryJournal {
    kept: Arc<Mutex<Kept>>,
}

impl MemoryJournal {
    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Journal for MemoryJournal {
    fn claim(&mut self, cluster: &str) -> Result<Identity, Error> {
        Ok(self.with(|kept| {
            kept.epoch += 1;
            let cluster = kept.cluster.get_or_insert_with(|| cluster.to_owned()).clone();
            Identity { cluster, epoch: kept.epoch }
        }))
    }

    fn load(&mut self) -> Result<Loaded, Error> {
        self.with(|kept| {
            let state = kept.state.as_deref().map(|state| super::sqlite::read_state("in memory", state)).transpose()?;
            let turns = kept.turns.iter().map(|(at, lines)| Ok((*at, super::sqlite::read_events("in memory", lines)?)));
            Ok(Loaded { state: state.unwrap_or_default(), turns: turns.collect::<Result<_, Error>>()? })
        })
    }

    fn append(&mut self, turn: &Turn) -> Result<(), Error> {
        self.with(|kept| kept.turns.push((turn.at, turn.lines())));
        Ok(())
    }

    fn snapshot(&mut self, state: &[u8]) -> Result<(), Error> {
        self.with(|kept| {
            kept.state = Some(state.to_vec());
            kept.turns.clear();
        });
        Ok(())
    }

    fn probe(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// How many of the next writes find no room; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<u32>>);

impl Faults {
    /// Lets the next `writes` writes (appends, snapshots and probes) fail for want of room.
    pub fn fill(&self, writes: u32) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = writes;
    }
}

/// A journal whose disk fills up on purpose.
#[derive(Debug)]
pub struct FaultyJournal<J> {
    inner: J,
    faults: Faults,
}

impl<J> FaultyJournal<J> {
    pub fn new(inner: J) -> Self {
        Self { inner, faults: Faults::default() }
    }

    /// The hand on the tap.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    fn room(&self) -> Result<(), Error> {
        let mut full = self.faults.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *full == 0 {
            return Ok(());
        }
        *full -= 1;
        Err(Error::Full("on purpose".to_owned()))
    }
}

impl<J: Journal> Journal for FaultyJournal<J> {
    fn claim(&mut self, cluster: &str) -> Result<Identity, Error> {
        self.inner.claim(cluster)
    }

    fn load(&mut self) -> Result<Loaded, Error> {
        self.inner.load()
    }

    fn append(&mut self, turn: &Turn) -> Result<(), Error> {
        self.room()?;
        self.inner.append(turn)
    }

    fn snapshot(&mut self, state: &[u8]) -> Result<(), Error> {
        self.room()?;
        self.inner.snapshot(state)
    }

    fn probe(&mut self) -> Result<(), Error> {
        self.room()?;
        self.inner.probe()
    }
}
