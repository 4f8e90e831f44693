//! A slow network for experiments: what a rank sends leaves it at a given rate.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How much the line takes at a time: short beside a call, long beside the precision of a sleep.
const SLICE: Duration = Duration::from_millis(2);
/// Who asks again within this time goes on sending.
const AT_ONCE: Duration = Duration::from_micros(200);
/// The least that it takes at a time, so that very slow lines still move whole headers.
const LEAST: u64 = 64;

/// The one line over which a rank sends to all its peers. A slice of bytes is handed to the kernel when it would have left.
#[derive(Debug)]
pub(super) struct Uplink {
    bytes_per_second: u64,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    /// When the last slice was handed on, and when it had left.
    last: Option<(Instant, Instant)>,
    /// The slice on the line: its size, and when it will have left.
    leaving: Option<(usize, Instant)>,
}

impl Uplink {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), line: Mutex::default() }
    }

    /// How many of `wanted` bytes have left by now, so that the kernel may have them; puts the next ones on the line.
    pub(super) fn pass(&self, wanted: usize, now: Instant) -> usize {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let (size, until) = line.leaving.unwrap_or_else(|| {
            // A sleep that was too long is made up for by who goes on sending; an idle line saves nothing up.
            let from = line.last.filter(|(handed_on, _)| now.saturating_duration_since(*handed_on) < AT_ONCE);
            let from = from.map_or(now, |(_, left)| left);
            let most = (self.bytes_per_second as f64 * SLICE.as_secs_f64()) as u64;
            let size = wanted.min(most.max(LEAST) as usize);
            (size, from + Duration::from_secs_f64(size as f64 / self.bytes_per_second as f64))
        });
        line.leaving = Some((size, until));
        if now < until {
            return 0;
        }
        // Another message than that which was put on the line may be shorter.
        (line.leaving, line.last) = (None, Some((now, until)));
        size.min(wanted)
    }

    /// How long it is until the line moves.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.leaving.map_or(Duration::ZERO, |(_, until)| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_at_the_rate_whatever_the_steps() {
        let start = Instant::now();
        for step in [Duration::from_micros(100), Duration::from_micros(1700), Duration::from_millis(9)] {
            let uplink = Uplink::new(1_000_000);
            let (mut now, mut sent) = (start, 0);
            while sent < 100_000 {
                sent += uplink.pass(100_000 - sent, now);
                assert!(sent as f64 <= (now - start).as_secs_f64() * 1e6, "{sent} bytes after {:?}", now - start);
                now += step;
            }
            assert_eq!(sent, 100_000);
        }
    }

    #[test]
    fn the_line_tells_when_it_moves() {
        let start = Instant::now();
        let uplink = Uplink::new(1_000_000);
        assert_eq!(uplink.wait(start), Duration::ZERO);
        assert_eq!(uplink.pass(1000, start), 0);
        assert_eq!(uplink.wait(start), Duration::from_millis(1));
        assert_eq!(uplink.pass(1000, start + Duration::from_millis(1)), 1000);
    }
}
