//! CUDA at run time: one binary for machines with and without a GPU.
//!
//! The program links only libtorch's CPU half. Linking `libtorch_cuda` would break machines without the CUDA libraries, and not
//! loading it would silently lose the GPU. So: when a driver is there, it is opened before the first question about CUDA.
//!
//! - [`Stream`] and [`Event`]: the orders in which a GPU works, and marks in them; [`pinned`] and [`copy_queued`]: copies to a GPU that
//!   the host does not wait for.
//! - [`graph`]: work that is recorded once and then given to the GPU as a whole.

use std::error::Error as _;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::error::check;
use crate::{Error, ffi};

pub mod graph;
mod stream;

pub use stream::{Entered, Event, Stream, copy_queued, pinned};

/// Why there is no CUDA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No NVIDIA driver on this machine: the usual case without a GPU.
    #[error("no NVIDIA driver (libcuda.so.1 cannot be opened)")]
    NoDriver,
    /// There is a driver, but libtorch's CUDA half does not load; never a reason to go on quietly on the CPU.
    #[error("there is an NVIDIA driver, but libtorch_cuda.so does not load: {reason}")]
    NotLoaded { reason: String },
    /// Everything loads, but no device can be used.
    #[error("libtorch's CUDA half is loaded, but it finds no usable device")]
    NoDevice,
}

/// CUDA can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cuda {
    /// Devices that libtorch sees.
    pub devices: u32,
}

/// Loads libtorch's CUDA half once; later calls give the same answer. Call it before anything asks tch about CUDA.
///
/// # Errors
/// Says why CUDA cannot be used.
pub fn load() -> Result<Cuda, Unavailable> {
    static LOADED: OnceLock<Result<Cuda, Unavailable>> = OnceLock::new();
    LOADED.get_or_init(try_load).clone()
}

fn try_load() -> Result<Cuda, Unavailable> {
    open("libcuda.so.1").map_err(|_| Unavailable::NoDriver)?;
    open("libtorch_cuda.so").map_err(|reason| Unavailable::NotLoaded { reason })?;
    let devices = u32::try_from(tch::Cuda::device_count()).unwrap_or(0);
    if devices == 0 || !tch::Cuda::is_available() {
        return Err(Unavailable::NoDevice);
    }
    Ok(Cuda { devices })
}

/// Opens a library for good, or gives the loader's reason, which hides behind "dlopen failed".
fn open(name: &str) -> Result<(), String> {
    // SAFETY: the driver and libtorch's CUDA half are made for being loaded; their initialisers have no preconditions.
    let library = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) };
    let reason = |error: libloading::Error| error.source().map_or_else(|| error.to_string(), ToString::to_string);
    library.map(std::mem::forget).map_err(reason)
}

/// The most memory that libtorch has taken of a device in this process, in bytes: what tensors use, and what is kept for the next.
///
/// # Errors
/// When CUDA is not loaded or there is no such device.
pub fn peak_memory(device: u32) -> Result<u64, Error> {
    let mut bytes = 0;
    // SAFETY: the pointer is to a number, which is written before the call returns.
    check(unsafe { ffi::ute_peak_memory(device, &raw mut bytes) })?;
    Ok(bytes)
}

/// Gives all devices back the memory that no tensor uses.
///
/// # Errors
/// When CUDA is not loaded.
pub fn release_memory() -> Result<(), Error> {
    // SAFETY: libtorch only gives back what nobody uses.
    check(unsafe { ffi::ute_release_memory() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_reason_is_told() {
        let reason = open("libtorch_cuda_that_is_not_there.so").expect_err("no such library");
        assert!(reason.contains("libtorch_cuda_that_is_not_there.so: cannot open shared object file"), "{reason}");
    }

    #[test]
    fn without_cuda_there_is_no_stream() {
        if load().is_err() {
            for stream in [Stream::current(0), Stream::of_pool(0)] {
                let error = stream.expect_err("nothing is loaded");
                assert!(matches!(error, Error::Torch(_)), "{error}");
            }
            assert!(peak_memory(0).is_err() && release_memory().is_err());
        }
    }
}
