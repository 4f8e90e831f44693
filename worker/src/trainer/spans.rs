//! What a trainer does and when, recorded while a profile is taken: its own phases, beside which libtorch's operators are put.
//!
//! One recording at a time in a process; when there is none, a span costs one atomic load.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::time::{ClockId, clock_gettime};
use nix::unistd::gettid;

/// Something that took time on a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// What was done.
    pub name: Cow<'static, str>,
    /// What it belongs to: `trainer`, `forward`, `backward`.
    pub category: &'static str,
    /// Nanoseconds of the monotonic clock.
    pub begin: u64,
    /// Nanoseconds of the monotonic clock.
    pub end: u64,
    /// The system's number of the thread.
    pub thread: i64,
}

static ON: AtomicBool = AtomicBool::new(false);
static SPANS: Mutex<Vec<Span>> = Mutex::new(Vec::new());

/// A span that lasts until this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Open {
    begun: Option<(Cow<'static, str>, u64)>,
}

/// Begins a span of the calling thread.
pub(super) fn span(name: impl Into<Cow<'static, str>>) -> Open {
    let begun = ON.load(Ordering::Relaxed).then(|| (name.into(), now()));
    Open { begun }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some((name, begin)) = self.begun.take() {
            let thread = i64::from(gettid().as_raw());
            let span = Span { name, category: "trainer", begin, end: now(), thread };
            SPANS.lock().unwrap_or_else(PoisonError::into_inner).push(span);
        }
    }
}

/// Begins to record.
pub(super) fn record() {
    SPANS.lock().unwrap_or_else(PoisonError::into_inner).clear();
    ON.store(true, Ordering::Relaxed);
}

/// Ends the recording and returns the spans that have ended.
pub(super) fn recorded() -> Vec<Span> {
    ON.store(false, Ordering::Relaxed);
    std::mem::take(&mut *SPANS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The monotonic clock, in nanoseconds; the same that libtorch's spans are taken with.
pub(super) fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_kept_only_while_recording() {
        drop(span("before"));
        record();
        {
            let _outer = span("outer");
            drop(span(format!("inner {}", 1)));
        }
        let mut spans = recorded();
        drop(span("after"));
        assert!(recorded().is_empty());
        // Other tests of this process may record steps of their own.
        spans.retain(|span| span.thread == i64::from(gettid().as_raw()));
        let names: Vec<&str> = spans.iter().map(|span| span.name.as_ref()).collect();
        assert_eq!(names, ["inner 1", "outer"]);
        assert!(spans[1].begin <= spans[0].begin && spans[0].end <= spans[1].end);
    }
}
