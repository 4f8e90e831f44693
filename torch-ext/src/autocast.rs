//! Mixed precision: inside a scope, matrix products run in bf16 while parameters stay in fp32.
//!
//! tch's own `autocast` knows CUDA only and leaves libtorch's default there, fp16, in which T5 diverges.

use std::ffi::c_int;

use crate::Error;
use crate::error::check;
use crate::ffi;

/// Runs `action` with bf16 autocast for CPU or CUDA on this thread; the state before is restored, also after a panic.
///
/// # Errors
/// When libtorch refuses, which it does not on a device that it supports.
pub fn bf16<T>(cuda: bool, action: impl FnOnce() -> T) -> Result<T, Error> {
    let cuda = c_int::from(cuda);
    // SAFETY: reads a thread-local flag.
    let before = unsafe { ffi::ute_autocast_enabled(cuda) };
    let mut dtype_before = 0;
    // SAFETY: sets thread-local state that the guard below restores; the pointer is to a number.
    check(unsafe { ffi::ute_autocast_enter(cuda, &raw mut dtype_before) })?;
    let _guard = Guard { cuda, before, dtype_before };
    Ok(action())
}

/// Runs `action` without autocast on this thread; the state before is restored, also after a panic.
///
/// # Errors
/// As [`bf16`].
pub fn off<T>(cuda: bool, action: impl FnOnce() -> T) -> Result<T, Error> {
    if !enabled(cuda) {
        return Ok(action());
    }
    bf16(cuda, || {
        // SAFETY: sets a thread-local flag, which the guard of the scope around restores.
        unsafe { ffi::ute_autocast_set(c_int::from(cuda), 0) };
        action()
    })
}

/// Whether autocast is on for this thread.
pub fn enabled(cuda: bool) -> bool {
    // SAFETY: reads a thread-local flag.
    unsafe { ffi::ute_autocast_enabled(c_int::from(cuda)) != 0 }
}

struct Guard {
    cuda: c_int,
    before: c_int,
    dtype_before: c_int,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: the counterpart of the call in `bf16` on the same thread: the guard does not leave that function.
        let _ = check(unsafe { ffi::ute_autocast_leave(self.cuda, self.before, self.dtype_before) });
    }
}
