//! What libtorch did and when: every operator of the forward and the backward pass, with the thread that ran it.

use std::ffi::{CStr, c_char, c_int, c_void};

use crate::Error;
use crate::error::check;
use crate::ffi;

/// Something that took time on a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// As libtorch calls it, such as `aten::linear`.
    pub name: String,
    /// Nanoseconds of [`now`].
    pub begin: u64,
    /// Nanoseconds of [`now`].
    pub end: u64,
    /// The system's number of the thread.
    pub thread: i64,
    /// It is a node of the backward pass.
    pub backward: bool,
}

/// Records until it is [finished](Recording::finish) or dropped; there is one at a time in a process.
#[derive(Debug)]
#[must_use]
pub struct Recording(());

impl Recording {
    /// Begins to record on all threads. It costs about a microsecond an operator.
    ///
    /// # Errors
    /// When there is a recording already.
    pub fn begin() -> Result<Self, Error> {
        // SAFETY: only registers functions of the shim.
        check(unsafe { ffi::ute_profile_begin() })?;
        Ok(Self(()))
    }

    /// Ends the recording and returns what was recorded, in the order in which it ended.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn finish(self) -> Result<Vec<Span>, Error> {
        let spans = end();
        std::mem::forget(self);
        spans
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = end();
    }
}

fn end() -> Result<Vec<Span>, Error> {
    let mut spans: Vec<Span> = Vec::new();
    let list: *mut Vec<Span> = &raw mut spans;
    // SAFETY: the list outlives the call, which is the only one to use it.
    check(unsafe { ffi::ute_profile_end(take, list.cast()) })?;
    Ok(spans)
}

extern "C" fn take(context: *mut c_void, name: *const c_char, begin: u64, end: u64, thread: i64, backward: c_int) {
    // SAFETY: `end` passed a pointer to its list, and waits.
    let spans = unsafe { &mut *context.cast::<Vec<Span>>() };
    // SAFETY: the shim's names end with a zero and are valid during the call.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    spans.push(Span { name, begin, end, thread, backward: backward != 0 });
}

/// The time on the clock of the spans, in nanoseconds.
pub fn now() -> u64 {
    // SAFETY: only reads a clock.
    unsafe { ffi::ute_now() }
}

/// The system's number of the calling thread.
pub fn thread() -> i64 {
    // SAFETY: only asks the system.
    unsafe { ffi::ute_thread() }
}
