//! The coordinator's time: starts at the wall clock, then runs by the monotonic one.
//!
//! A wall clock that is set forward by a day while the coordinator runs must not end every lease, and one that is set back between two
//! starts must not make time run backwards in the journal.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use unimse_core::time::Timestamp;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: Timestamp,
    started: Instant,
}

impl Clock {
    /// Starts at the wall clock, or at `newest` (the last time in the journal) if that is later.
    pub(crate) fn start(newest: Timestamp) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = Timestamp(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX));
        Self { base: wall.max(newest), started: Instant::now() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.base + self.started.elapsed()
    }

    /// The monotonic instant at which this clock will show `at`.
    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        self.started + at.since(self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_from_the_journal_when_the_wall_clock_was_set_back() {
        let future = Timestamp(u64::MAX / 2);
        assert!(Clock::start(future).now() >= future);
        assert!(Clock::start(Timestamp(0)).now() > Timestamp(1_700_000_000_000));
    }
}
