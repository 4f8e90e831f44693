//! Layers that add their weights' gradients straight into the memory that [`gradient::set`](crate::gradient::set) gave them.
//!
//! The idea is Megatron-LM's "gradient accumulation fusion": no temporary of a weight's size, and one pass over memory less. It
//! is for 32 bits on the CPU; elsewhere, under autocast, or where a weight has no gradient memory, these are libtorch's own layers.

use tch::{TchError, Tensor};

use crate::error::{check, made};
use crate::ffi::{self, RawTensor, raw};

/// Maps `x [.., n]` by `weight [m, n]` to `[.., m]`.
///
/// # Panics
/// As tch's operations do, when libtorch refuses.
pub fn linear(x: &Tensor, weight: &Tensor) -> Tensor {
    let [output] = linears(x, [weight]);
    output
}

/// Maps `x [.., n]` by each of several weights `[m_i, n]`; the gradient of `x` is one sum.
///
/// # Panics
/// As [`linear`].
pub fn linears<const N: usize>(x: &Tensor, weights: [&Tensor; N]) -> [Tensor; N] {
    let weights = weights.map(raw);
    let mut outputs: [RawTensor; N] = [std::ptr::null_mut(); N];
    // SAFETY: all tensors are borrowed for the length of the call, and there is room for as many results as weights.
    let done = check(unsafe { ffi::ute_linears(raw(x), weights.as_ptr(), N, outputs.as_mut_ptr()) });
    done.map_err(|error| TchError::Torch(error.to_string())).expect("libtorch computes on tensors whose shapes agree");
    // SAFETY: without an error these are tensors that nobody else owns.
    outputs.map(|output| unsafe { Tensor::from_ptr(output.cast()) })
}

/// Looks up rows of `weight [n, m]` by `ids`, `Int64` of any shape; returns `[.., m]`.
///
/// # Panics
/// As [`linear`], also for an id beyond the table.
pub fn embedding(weight: &Tensor, ids: &Tensor) -> Tensor {
    // SAFETY: both tensors are borrowed for the length of the call.
    made(|out| unsafe { ffi::ute_embedding(raw(weight), raw(ids), out) }).expect("ids are numbers of rows")
}

/// Returns `whole [B, ..]`, which was made without gradients of `part [1, ..]` for every sample; its gradient goes to `part`, summed over the
/// samples in 32 bits.
///
/// # Panics
/// When the shapes beside the first dimension differ.
pub fn shared(part: &Tensor, whole: &Tensor) -> Tensor {
    // SAFETY: both tensors are borrowed for the length of the call.
    made(|out| unsafe { ffi::ute_shared(raw(part), raw(whole), out) }).expect("the whole was made of the part")
}
