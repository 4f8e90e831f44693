//! Gradients in memory of our choice.

use tch::Tensor;

use crate::Error;
use crate::error::check;
use crate::ffi::{self, raw};

/// Makes `gradient` the gradient of a leaf. Backward then adds to it in place, so that a view of a flat buffer stays one.
///
/// # Errors
/// When shape, type or device differ from the leaf's.
pub fn set(leaf: &Tensor, gradient: &Tensor) -> Result<(), Error> {
    if leaf.size() != gradient.size() || leaf.kind() != gradient.kind() || leaf.device() != gradient.device() {
        let is =
            format!("has {:?} {:?}, the leaf {:?} {:?}", gradient.size(), gradient.kind(), leaf.size(), leaf.kind());
        return Err(Error::View { wanted: "a gradient", is });
    }
    // SAFETY: both tensors are borrowed for the length of the call; libtorch takes a reference of its own.
    check(unsafe { ffi::ute_set_gradient(raw(leaf), raw(gradient)) })
}
