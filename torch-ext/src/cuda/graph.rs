//! CUDA graphs: what the GPU is told to do is recorded once and then started as a whole, without the host saying it all again.
//!
//! A recording holds addresses and shapes, not values: what is to change between replays lies in tensors that stay, and is copied
//! into them before. Random numbers follow libtorch's generators as they stand at each replay. Nothing of the work may wait for the GPU,
//! allocate outside libtorch or read a number back. See PyTorch's notes on `torch.cuda.graph`.

use std::any::Any;
use std::cell::Cell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::check;
use crate::{Error, ffi};

thread_local! {
    static RECORDS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread's work is being recorded. What is kept for other passes must not be made then: its memory is the recording's.
pub fn records() -> bool {
    RECORDS.get()
}

/// Memory that recordings share, which therefore must not run beside each other.
#[derive(Clone, Copy, Debug)]
pub struct Pool([u64; 2]);

impl Pool {
    /// A pool of its own.
    ///
    /// # Errors
    /// When CUDA is not loaded.
    pub fn new() -> Result<Self, Error> {
        let mut pool = [0; 2];
        // SAFETY: the pointer is to two numbers.
        check(unsafe { ffi::ute_graph_pool(pool.as_mut_ptr()) })?;
        Ok(Self(pool))
    }
}

/// A recording.
#[derive(Debug)]
pub struct Graph {
    raw: *mut c_void,
}

// SAFETY: libtorch lets any thread replay a graph or free it, one at a time, which having no `&self` of two threads (it is not `Sync`) sees to.
unsafe impl Send for Graph {}

impl Graph {
    /// Records what `work` gives the GPU on the stream that this thread is in, which must not be the default stream. It does not run.
    ///
    /// # Errors
    /// What `work` did that cannot be recorded. libtorch's generators and memory may be unusable after that: end the process.
    pub fn record(pool: Pool, work: impl FnOnce()) -> Result<Self, Error> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the pool has two numbers; the pointer is to a place for the graph, which drop frees.
        check(unsafe { ffi::ute_graph_begin(pool.0.as_ptr(), &raw mut raw) })?;
        let graph = Self { raw };
        RECORDS.set(true);
        // tch panics where libtorch refuses; the recording has to be ended all the same.
        let outcome = catch_unwind(AssertUnwindSafe(work));
        RECORDS.set(false);
        // SAFETY: the graph was begun on this thread and not ended.
        let ended = check(unsafe { ffi::ute_graph_end(graph.raw) });
        match outcome {
            Ok(()) => ended.map(|()| graph),
            Err(panic) => Err(Error::Torch(said(panic.as_ref()))),
        }
    }

    /// Queues the recorded work on the stream that this thread is in.
    ///
    /// # Errors
    /// When the GPU does not take it.
    pub fn replay(&self) -> Result<(), Error> {
        // SAFETY: the recording is complete: `record` gives no other.
        check(unsafe { ffi::ute_graph_replay(self.raw) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made in `record`, freed once.
        unsafe { ffi::ute_graph_free(self.raw) };
    }
}

/// The first line of what a panic says.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.and_then(|text| text.lines().next()).unwrap_or("the work that was recorded has panicked").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_cuda_nothing_is_recorded() {
        if crate::cuda::load().is_err() {
            let error = Pool::new().expect_err("nothing is loaded").to_string();
            assert!(error.contains("CUDA half is not loaded"), "{error}");
            let mut ran = false;
            assert!(Graph::record(Pool([0, 1]), || ran = true).is_err());
            assert!(!ran && !records());
        }
    }

    #[test]
    fn a_panic_tells_its_first_line() {
        let panic = catch_unwind(|| panic!("one {}\ntwo", 1)).expect_err("it panics");
        assert_eq!(said(panic.as_ref()), "one 1");
    }
}
