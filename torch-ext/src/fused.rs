//! Operations of a transformer that are one pass over memory each, where libtorch's CPU makes several.
//!
//! On other devices and for other element types they are libtorch's own. Random numbers come from a counter that is hashed with
//! a key; the key is drawn from libtorch's default CPU generator, so `manual_seed` decides them, and the number of threads does not.
//! No mask is kept for the backward pass: it is computed again.

use tch::Tensor;

use crate::error;
use crate::ffi::{self, RawTensor, raw};

/// Sets each number to 0 with probability `p` and scales the others by `1 / (1 - p)`; does nothing unless `train`.
///
/// # Panics
/// As tch's operations do, when libtorch refuses.
pub fn dropout(x: &Tensor, p: f64, train: bool) -> Tensor {
    if !train || p <= 0.0 {
        return x.shallow_clone();
    }
    if p >= 1.0 || !fits(x) {
        return x.dropout(p, train);
    }
    // SAFETY: `x` is borrowed for the length of the call.
    made(|out| unsafe { ffi::ute_dropout(raw(x), p, out) })
}

/// Adds `dropout(x)` to `residual`, which has the same shape: the end of a residual branch.
///
/// # Panics
/// As [`dropout`].
pub fn dropout_add(x: &Tensor, residual: &Tensor, p: f64, train: bool) -> Tensor {
    if !train || p <= 0.0 || p >= 1.0 || !fits(x) || !fits(residual) {
        return residual + dropout(x, p, train);
    }
    // SAFETY: both tensors are borrowed for the length of the call.
    made(|out| unsafe { ffi::ute_dropout_add(raw(x), raw(residual), p, out) })
}

/// The cross-entropy of `targets [n]` (`Int64`) with the scores `logits [n, classes]`, natural logarithm, for each row; 0 where the
/// target is `ignored`.
///
/// # Panics
/// As [`dropout`], and when a target is none of the classes.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor, ignored: i64) -> Tensor {
    // SAFETY: `logits` is borrowed for the length of the call, which only looks at it.
    if unsafe { ffi::ute_cross_entropy_fits(raw(logits)) } == 0 {
        return logits.cross_entropy_loss::<Tensor>(targets, None, tch::Reduction::None, ignored, 0.0);
    }
    // SAFETY: both tensors are borrowed for the length of the call.
    made(|out| unsafe { ffi::ute_cross_entropy(raw(logits), raw(targets), ignored, out) })
}

/// Scales each row of `x [.., n]` by the inverse root of its mean square and by `weight [n]`; `epsilon` is added to the mean square.
///
/// # Panics
/// As [`dropout`].
pub fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f64) -> Tensor {
    if !fits(x) || !fits(weight) {
        // libtorch has no kernel for two kinds, and makes many operations of it.
        return x.to_kind(weight.kind()).rms_norm(weight.size(), Some(weight), epsilon);
    }
    // SAFETY: both tensors are borrowed for the length of the call.
    made(|out| unsafe { ffi::ute_rms_norm(raw(x), raw(weight), epsilon, out) })
}

fn fits(x: &Tensor) -> bool {
    // SAFETY: `x` is borrowed for the length of the call, which only looks at it.
    unsafe { ffi::ute_fused_fits(raw(x)) != 0 }
}

/// Takes the tensor that a function of the shim makes.
fn made(make: impl FnOnce(*mut RawTensor) -> *mut std::ffi::c_char) -> Tensor {
    error::made(make).expect("libtorch computes on tensors whose shapes agree")
}
