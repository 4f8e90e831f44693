//! A call back for each leaf whose gradient is complete, in the order of completion.
//!
//! This is what lets a reducer send a bucket while backward still runs.

use std::ffi::c_void;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use tch::Tensor;

use crate::Error;
use crate::error::check;
use crate::ffi::{self, raw};

struct Context {
    call: Box<dyn Fn(usize) + Send + Sync>,
    panicked: AtomicBool,
}

/// Hooks on a list of leaves; dropping it takes them off.
pub struct Hooks {
    hooked: Vec<*mut c_void>,
    context: Box<Context>,
}

// SAFETY: the pointers are used by `drop` alone, and the nodes behind them may be used from any thread.
unsafe impl Send for Hooks {}

impl Hooks {
    /// Calls `call(i)` whenever the gradient of `leaves[i]` is complete, once in each backward pass: also where the layers of
    /// [`accumulate`](crate::accumulate) have added it themselves. It may be called on another thread (CUDA's backward has one of
    /// its own).
    ///
    /// # Errors
    /// When a tensor is no leaf that requires a gradient.
    pub fn install(leaves: &[Tensor], call: impl Fn(usize) + Send + Sync + 'static) -> Result<Self, Error> {
        let context = Box::new(Context { call: Box::new(call), panicked: AtomicBool::new(false) });
        let mut hooks = Self { hooked: Vec::with_capacity(leaves.len()), context };
        for (index, leaf) in leaves.iter().enumerate() {
            let context: *const Context = &raw const *hooks.context;
            let mut hooked = std::ptr::null_mut();
            // SAFETY: the context is boxed, so its address is stable, and it lives until `drop` has taken off every hook.
            check(unsafe { ffi::ute_set_hook(raw(leaf), forward, context.cast_mut().cast(), index, &raw mut hooked) })?;
            hooks.hooked.push(hooked);
        }
        Ok(hooks)
    }

    /// Whether a call has panicked; its panic ends there, because C++ frames lie between it and the caller of backward.
    pub fn panicked(&self) -> bool {
        self.context.panicked.load(Ordering::Acquire)
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        for hooked in self.hooked.drain(..) {
            // SAFETY: `install` got it from the shim and nothing else has it; after this libtorch holds no pointer to the context.
            unsafe { ffi::ute_clear_hook(hooked) };
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("leaves", &self.hooked.len()).finish_non_exhaustive()
    }
}

extern "C" fn forward(context: *mut c_void, index: usize) {
    // SAFETY: `install` passed a pointer to a `Context` that outlives the hook.
    let context = unsafe { &*context.cast::<Context>() };
    if catch_unwind(AssertUnwindSafe(|| (context.call)(index))).is_err() {
        context.panicked.store(true, Ordering::Release);
    }
}
