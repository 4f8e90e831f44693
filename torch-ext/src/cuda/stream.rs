//! The orders in which a GPU works.

use std::ffi::c_void;
use std::marker::PhantomData;

use tch::Tensor;

use crate::Error;
use crate::error::{check, made};
use crate::ffi::{self, raw};

/// One of libtorch's streams: what is queued in it runs in that order, and beside other streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    device: u32,
    id: i64,
}

impl Stream {
    /// The stream in whose order this thread's libtorch works on a device.
    ///
    /// # Errors
    /// When CUDA is not loaded or there is no such device.
    pub fn current(device: u32) -> Result<Self, Error> {
        let (mut id, mut handle) = (0, 0);
        // SAFETY: both pointers are to numbers, which are written before the call returns.
        check(unsafe { ffi::ute_current_stream(device, &raw mut id, &raw mut handle) })?;
        Ok(Self { device, id })
    }

    /// One of a few dozen streams of libtorch's own, which do not wait for the default stream.
    ///
    /// # Errors
    /// As [`Stream::current`].
    pub fn of_pool(device: u32) -> Result<Self, Error> {
        let mut id = 0;
        // SAFETY: the pointer is to a number, which is written before the call returns.
        check(unsafe { ffi::ute_stream_of_pool(device, &raw mut id) })?;
        Ok(Self { device, id })
    }

    /// One of them that is not this one.
    ///
    /// # Errors
    /// As [`Stream::current`].
    pub fn another(self) -> Result<Self, Error> {
        // They are given out in turn, so that the next is another.
        match Self::of_pool(self.device)? {
            same if same == self => Self::of_pool(self.device),
            other => Ok(other),
        }
    }

    /// The `CUstream` handle of the stream in whose order this thread works; 0 is the legacy default stream.
    ///
    /// # Errors
    /// As [`Stream::current`].
    pub fn current_handle(device: u32) -> Result<u64, Error> {
        let (mut id, mut handle) = (0, 0);
        // SAFETY: as in `current`.
        check(unsafe { ffi::ute_current_stream(device, &raw mut id, &raw mut handle) })?;
        Ok(handle)
    }

    /// Lets this thread work in the stream from now on; the guard brings the stream before it back.
    ///
    /// # Errors
    /// As [`Stream::current`].
    pub fn enter(self) -> Result<Entered, Error> {
        let mut id = 0;
        // SAFETY: the pointer is to a number, which is written before the call returns.
        check(unsafe { ffi::ute_stream_exchange(self.device, self.id, &raw mut id) })?;
        Ok(Entered { before: Self { device: self.device, id }, thread: PhantomData })
    }

    /// Waits until the GPU has done what is queued here.
    ///
    /// # Errors
    /// What the GPU failed at.
    pub fn synchronize(self) -> Result<(), Error> {
        // SAFETY: a call with two numbers; the shim checks the device.
        check(unsafe { ffi::ute_stream_synchronize(self.device, self.id) })
    }

    /// Makes what is queued here from now on wait for the mark.
    ///
    /// # Errors
    /// As [`Stream::current`].
    pub fn wait_for(self, event: &Event) -> Result<(), Error> {
        // SAFETY: the event lives as long as `event`.
        check(unsafe { ffi::ute_stream_wait(self.device, self.id, event.raw) })
    }
}

/// This thread works in a stream; the guard stays on the thread.
#[derive(Debug)]
#[must_use = "the thread leaves the stream when this goes"]
pub struct Entered {
    before: Stream,
    thread: PhantomData<*const ()>,
}

impl Entered {
    /// Stays in the stream for the rest of the thread's life.
    pub fn stay(self) {
        std::mem::forget(self);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let _ = self.thread;
        let mut id = 0;
        // SAFETY: as in `enter`. A failure leaves nothing to be done.
        let _ = check(unsafe { ffi::ute_stream_exchange(self.before.device, self.before.id, &raw mut id) });
    }
}

/// A mark in the order of a stream.
#[derive(Debug)]
pub struct Event {
    raw: *mut c_void,
}

// SAFETY: an event may be waited for from any thread; it is not changed after it was made.
unsafe impl Send for Event {}

impl Event {
    /// Marks the end of what is queued in a stream now.
    ///
    /// # Errors
    /// As [`Stream::current`].
    pub fn after(stream: Stream) -> Result<Self, Error> {
        let mut event = std::ptr::null_mut();
        // SAFETY: the pointer is to a place for the event, which drop frees.
        check(unsafe { ffi::ute_event_record(stream.device, stream.id, &raw mut event) })?;
        Ok(Self { raw: event })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made in `after`, freed once.
        unsafe { ffi::ute_event_free(self.raw) };
    }
}

/// Copies a tensor of the host into memory that a GPU can read by itself; libtorch keeps such memory for the next ones.
///
/// # Errors
/// When CUDA is not loaded.
pub fn pinned(tensor: &Tensor) -> Result<Tensor, Error> {
    // SAFETY: `tensor` is borrowed for the length of the call.
    made(|out| unsafe { ffi::ute_pin(raw(tensor), out) })
}

/// Copies numbers between tensors of one shape and kind. Between pinned memory and a GPU the copy is only queued: libtorch keeps the
/// memory until it is done, but the numbers must stay.
///
/// # Errors
/// When shapes or kinds differ.
pub fn copy_queued(to: &Tensor, from: &Tensor) -> Result<(), Error> {
    // SAFETY: both tensors are borrowed for the length of the call.
    check(unsafe { ffi::ute_copy_queued(raw(to), raw(from)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_copied_between_tensors_of_one_shape() {
        let (to, from) = (Tensor::zeros([2], tch::kind::FLOAT_CPU), Tensor::from_slice(&[1_f32, 2.0]));
        copy_queued(&to, &from).expect("they agree");
        assert_eq!(to, from);
        assert!(copy_queued(&to, &Tensor::from_slice(&[1_f32])).is_err());
        assert!(copy_queued(&to, &Tensor::from_slice(&[1_i64, 2])).is_err());
    }
}
