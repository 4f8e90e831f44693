//! CUDA at run time: one binary for machines with and without a GPU.
//!
//! The program links only libtorch's CPU half. Linking `libtorch_cuda` would break machines without the CUDA libraries, and not
//! loading it would silently lose the GPU. So: when a driver is there, it is opened before the first question about CUDA.

use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

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
    // SAFETY: opening NVIDIA's driver runs its initialisers, which are made for that; it is kept open.
    let driver = unsafe { Library::open(Some("libcuda.so.1"), RTLD_NOW | RTLD_GLOBAL) }.map_err(|_| Unavailable::NoDriver)?;
    std::mem::forget(driver);
    // SAFETY: the library belongs to the libtorch that is linked; its initialisers register CUDA with it. It is kept open.
    let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
    let library = library.map_err(|error| Unavailable::NotLoaded { reason: error.to_string() })?;
    std::mem::forget(library);
    let devices = u32::try_from(tch::Cuda::device_count()).unwrap_or(0);
    if devices == 0 || !tch::Cuda::is_available() {
        return Err(Unavailable::NoDevice);
    }
    Ok(Cuda { devices })
}
