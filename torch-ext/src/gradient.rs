//! Gradients in memory of our choice.

use tch::{TchError, Tensor};

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

/// The Euclidean norm over all numbers of all buckets, as a scalar where they live: nothing waits for the device until somebody
/// reads it.
///
/// # Errors
/// When there are no buckets, or they are on different devices.
pub fn norm(buckets: &[Tensor]) -> Result<Tensor, Error> {
    let norms = buckets.iter().map(Tensor::f_norm).collect::<Result<Vec<_>, TchError>>()?;
    Ok(Tensor::f_stack(&norms, 0)?.f_norm()?)
}

/// Scales the buckets in place so that their [`norm`] is at most `limit`, as PyTorch's `clip_grad_norm_` does; without a wait for
/// the device.
///
/// # Errors
/// As [`norm`].
pub fn clip(buckets: &mut [Tensor], norm: &Tensor, limit: f64) -> Result<(), Error> {
    let scale = (norm.f_add_scalar(1e-6)?.f_reciprocal()?.f_mul_scalar(limit)?).f_clamp_max(1.0)?;
    for bucket in buckets {
        let _ = bucket.f_mul_(&scale)?;
    }
    Ok(())
}
