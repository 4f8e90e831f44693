//! How long to wait before trying again: exponential, bounded, and jittered so that many do not try at the same moment.

use std::time::Duration;

use crate::draw;

/// Delays that double from `base` up to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The delay before the first retry, before jitter.
    pub base: Duration,
    /// No delay is longer.
    pub max: Duration,
}

impl Backoff {
    /// Doubles from `base` up to `max`.
    pub const fn new(base: Duration, max: Duration) -> Self {
        Self { base, max }
    }

    /// The delay before retry `attempt` (from 0): between half and all of `base * 2^attempt`, at most `max`.
    ///
    /// It depends on `seed` and `attempt` alone; callers seed it with their identity, so that they spread.
    pub fn delay(&self, attempt: u32, seed: u64) -> Duration {
        let factor = 2_u32.saturating_pow(attempt);
        let full = self.base.saturating_mul(factor).min(self.max);
        let jitter = draw::unit("unimse backoff v1", &[&seed.to_le_bytes(), &attempt.to_le_bytes()]);
        full.mul_f64(0.5 + 0.5 * jitter)
    }

    /// All delays, without end.
    pub fn delays(self, seed: u64) -> impl Iterator<Item = Duration> {
        (0..=u32::MAX).map(move |attempt| self.delay(attempt, seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));

    #[test]
    fn delays_double_within_their_jitter_and_stay_bounded() {
        for seed in 0..50 {
            for attempt in 0..200 {
                let full = Duration::from_millis(100).saturating_mul(2_u32.saturating_pow(attempt)).min(BACKOFF.max);
                let delay = BACKOFF.delay(attempt, seed);
                assert!(delay >= full / 2 && delay <= full, "attempt {attempt}: {delay:?} of {full:?}");
            }
        }
    }

    #[test]
    fn the_same_seed_waits_the_same_and_others_spread() {
        let first: Vec<_> = BACKOFF.delays(7).take(10).collect();
        assert_eq!(first, BACKOFF.delays(7).take(10).collect::<Vec<_>>());
        let distinct: std::collections::BTreeSet<_> = (0..100).map(|seed| BACKOFF.delay(3, seed)).collect();
        assert!(distinct.len() > 95, "{} of 100 differ", distinct.len());
    }
}
