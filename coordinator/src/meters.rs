//! What the coordinator counts, and how it is told to Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of the commit histogram, in microseconds.
const BOUNDS: [u64; 12] = [250, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 512_000, 2_048_000];

/// Counters that the loop writes and anybody reads.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    turns: AtomicU64,
    events: AtomicU64,
    refusals: AtomicU64,
    stale: AtomicU64,
    commit_micros: AtomicU64,
    commit_buckets: [AtomicU64; BOUNDS.len()],
    sessions_opened: AtomicU64,
    sessions_dropped: AtomicU64,
    snapshots: AtomicU64,
    full: AtomicBool,
}

/// Kinds of things that are only counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    Refusal,
    /// A report, step or checkpoint of a generation that is over.
    Stale,
    SessionOpened,
    /// The coordinator ended it.
    SessionDropped,
    Snapshot,
}

impl Meters {
    pub(crate) fn count(&self, what: Count) {
        let counter = match what {
            Count::Refusal => &self.refusals,
            Count::Stale => &self.stale,
            Count::SessionOpened => &self.sessions_opened,
            Count::SessionDropped => &self.sessions_dropped,
            Count::Snapshot => &self.snapshots,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn committed(&self, events: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.events.fetch_add(events, Ordering::Relaxed);
        self.commit_micros.fetch_add(micros, Ordering::Relaxed);
        if let Some(bucket) = BOUNDS.iter().position(|&bound| micros <= bound) {
            self.commit_buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes whether the journal has room.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Writes the counters in Prometheus' text format.
    pub(crate) fn render(&self, text: &mut Text) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        text.counter("unimse_events_total", "Events applied and made durable.", get(&self.events));
        text.counter("unimse_turns_total", "Commits to the journal.", get(&self.turns));
        text.counter("unimse_refusals_total", "Requests that changed nothing.", get(&self.refusals));
        text.counter("unimse_stale_total", "Words of generations that are over.", get(&self.stale));
        text.counter("unimse_snapshots_total", "Snapshots of the state.", get(&self.snapshots));
        text.counter("unimse_sessions_opened_total", "Sessions of agents.", get(&self.sessions_opened));
        text.counter(
            "unimse_sessions_dropped_total",
            "Sessions that the coordinator ended.",
            get(&self.sessions_dropped),
        );
        text.gauge("unimse_journal_full", "1 while the journal finds no room.", f64::from(u8::from(self.is_full())));
        text.head("unimse_commit_seconds", "histogram", "Time to make one turn durable.");
        let mut sum = 0;
        for (bucket, bound) in self.commit_buckets.iter().zip(BOUNDS) {
            sum += bucket.load(Ordering::Relaxed);
            text.line("unimse_commit_seconds_bucket", &[("le", &(bound as f64 / 1e6).to_string())], sum as f64);
        }
        text.line("unimse_commit_seconds_bucket", &[("le", "+Inf")], get(&self.turns));
        text.line("unimse_commit_seconds_sum", &[], get(&self.commit_micros) / 1e6);
        text.line("unimse_commit_seconds_count", &[], get(&self.turns));
    }
}

/// Prometheus' text format under construction.
#[derive(Debug, Default)]
pub(crate) struct Text(String);

impl Text {
    pub(crate) fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _infallible = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(crate) fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _infallible = writeln!(self.0, "{name}{labels} {value}");
    }

    pub(crate) fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "counter", help);
        self.line(name, &[], value);
    }

    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        self.line(name, &[], value);
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_histogram_is_cumulative_and_labels_are_escaped() {
        let meters = Meters::default();
        for micros in [100, 900, 900, 10_000_000] {
            meters.committed(2, Duration::from_micros(micros));
        }
        let mut text = Text::default();
        meters.render(&mut text);
        text.line("x", &[("name", "a\"b\\c\nd")], 1.5);
        let text = text.into_string();
        for line in [
            "unimse_events_total 8",
            "unimse_commit_seconds_bucket{le=\"0.00025\"} 1",
            "unimse_commit_seconds_bucket{le=\"0.001\"} 3",
            "unimse_commit_seconds_bucket{le=\"2.048\"} 3",
            "unimse_commit_seconds_bucket{le=\"+Inf\"} 4",
            "unimse_commit_seconds_count 4",
            "x{name=\"a\\\"b\\\\c\\nd\"} 1.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
