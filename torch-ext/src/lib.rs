//! What tch lacks: hooks on finished gradients, a fused optimiser, bf16 autocast, views of host memory, CUDA at run time.
//!
//! One small C++ file over libtorch's own symbols, and safe Rust over that. It builds with g++ and the PyPI wheel alone, without
//! a CUDA toolkit; on a machine without a GPU [`cuda::load`] says why it is not available and nothing else changes.
//!
//! - [`view`]: the memory of a CPU tensor as a slice.
//! - [`hook`]: a call back for each leaf whose gradient is complete, in the order of completion.
//! - [`adamw`]: AdamW in one pass over all parameters; [`gradient`]: gradients that live in memory of our choice.
//! - [`fused`]: dropout and RMS norm in one pass over memory on the CPU, with their gradients.
//! - [`accumulate`]: layers that add gradients straight into that memory.
//! - [`sublayer`]: attention and feed-forward, each in one node.
//! - [`recompute`]: parts that are computed again in the backward pass.
//! - [`profile`]: what libtorch did and when.
//! - [`autocast`]: bf16 in a scope.
//! - [`cuda`]: loads libtorch's CUDA half when there is a driver.

#![expect(unsafe_code, reason = "this crate is the door to libtorch's C++")]

pub mod accumulate;
pub mod adamw;
pub mod autocast;
pub mod cuda;
mod error;
mod ffi;
pub mod fused;
pub mod gradient;
pub mod hook;
pub mod profile;
pub mod recompute;
pub mod sublayer;
pub mod view;

pub use error::Error;

/// Lets libtorch tell this thread each of its warnings once, on standard error, rather than at every call.
pub fn warn_once() {
    // SAFETY: sets a thread-local pointer to an object that lives as long as the program.
    unsafe { ffi::ute_warn_once() };
}
