//! What can go wrong at the door.

use std::ffi::{CStr, c_char};

use tch::Tensor;

use crate::ffi::{self, RawTensor};

/// An error of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(String),
    /// A tensor has not the memory that was asked for.
    #[error("cannot view a tensor as {wanted}: it {is}")]
    View { wanted: &'static str, is: String },
    /// Lists that belong together have different lengths.
    #[error("{what}: {left} and {right} tensors do not go together")]
    Lengths { what: &'static str, left: usize, right: usize },
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        // libtorch appends a stack trace; the first line says it all.
        Self::Torch(error.to_string().lines().next().unwrap_or_default().to_owned())
    }
}

/// Turns the shim's answer into a result.
pub(crate) fn check(message: *mut c_char) -> Result<(), Error> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim gives null or a NUL-terminated text of its own, which nobody else holds.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: as above, and it is not used after this.
    unsafe { ffi::ute_free(message) };
    Err(Error::Torch(text))
}

/// Takes the tensor that a function of the shim makes: it writes a pointer to a new one unless it gives an error.
pub(crate) fn made(make: impl FnOnce(*mut RawTensor) -> *mut c_char) -> Result<Tensor, Error> {
    let mut out: RawTensor = std::ptr::null_mut();
    check(make(&raw mut out))?;
    // SAFETY: without an error `out` is a tensor that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}
