//! Activation checkpointing: a part of the graph whose inner results are computed again in the backward pass in place of being kept
//! (Chen et al. 2016, arXiv 1604.06174). A third more arithmetic, for the memory of one part in place of all.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::Tensor;

use crate::autocast;
use crate::error::made;
use crate::ffi::{self, RawTensor, raw};

type Part = Box<dyn Fn(&[Tensor]) -> Tensor + Send>;

/// What the shim holds for as long as the graph lives.
struct Context {
    part: Part,
    /// Autocast as it was in the forward pass; the backward pass runs outside of its scope.
    cuda: bool,
    bf16: bool,
}

/// Computes `part(inputs)` without keeping what is in between.
///
/// Gradients flow to those inputs that require one, and to leaves that `part` uses by itself, such as its weights. As in PyTorch's
/// reentrant variant the first must be there: if no input requires a gradient, the result does not either. `part` runs twice with
/// the same random numbers and the same autocast, the second time on the thread of the backward pass.
///
/// # Panics
/// When `inputs` is empty, or libtorch refuses something in `part`.
pub fn of(inputs: &[&Tensor], part: impl Fn(&[Tensor]) -> Tensor + Send + 'static) -> Tensor {
    let cuda = inputs[0].device().is_cuda();
    let context = Context { part: Box::new(part), cuda, bf16: autocast::enabled(cuda) };
    let context: *mut Context = Box::into_raw(Box::new(context));
    let inputs: Vec<RawTensor> = inputs.iter().map(|input| raw(input)).collect();
    // SAFETY: the tensors are borrowed for the length of the call; the shim owns the context from here on and gives it back to `free`
    // exactly once, when nothing can call `run` any more.
    made(|out| unsafe { ffi::ute_recompute(inputs.as_ptr(), inputs.len(), run, free, context.cast(), out) })
        .expect("the part computes")
}

/// Calls the part; a panic ends here, because C++ frames lie between it and the caller.
extern "C" fn run(context: *mut c_void, inputs: *const RawTensor, count: usize) -> RawTensor {
    // SAFETY: `of` made the context, and the shim frees it after the last call.
    let context = unsafe { &*context.cast::<Context>() };
    // SAFETY: the shim passes `count` pointers to tensors that live during this call; the copies count as owners of their own.
    let inputs: Vec<Tensor> = unsafe { std::slice::from_raw_parts(inputs, count) }
        .iter()
        .map(|&input| unsafe { Tensor::clone_from_ptr(input.cast()) })
        .collect();
    let compute = || {
        if context.bf16 && !autocast::enabled(context.cuda) {
            autocast::bf16(context.cuda, || (context.part)(&inputs)).ok()
        } else {
            Some((context.part)(&inputs))
        }
    };
    match catch_unwind(AssertUnwindSafe(compute)) {
        Ok(Some(mut output)) => {
            let pointer = output.as_mut_ptr();
            // The shim deletes it.
            std::mem::forget(output);
            pointer.cast()
        }
        _ => std::ptr::null_mut(),
    }
}

extern "C" fn free(context: *mut c_void) {
    // SAFETY: `of` made it with `Box::into_raw`, and the shim calls this once.
    drop(unsafe { Box::from_raw(context.cast::<Context>()) });
}
