//! AdamW (Loshchilov and Hutter, 2019) in one pass over all parameters: `at::_fused_adamw_`, on CPU and CUDA.

use tch::Tensor;

use crate::Error;
use crate::error::check;
use crate::ffi::{self, RawTensor, raw};

/// The settings of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub weight_decay: f64,
}

/// Parameters with their gradients and moments, all in the same order.
#[derive(Debug)]
pub struct Group<'a> {
    pub parameters: &'a [Tensor],
    pub gradients: &'a [Tensor],
    /// First moments, f32.
    pub averages: &'a [Tensor],
    /// Second moments, f32.
    pub squares: &'a [Tensor],
    /// One f32 scalar a parameter: the number of steps including this one, counted by the caller.
    pub steps: &'a [Tensor],
}

/// Takes one step in place. With a `divisor`, an f32 scalar where the parameters are, the gradients are divided by it on the way and
/// stored so: clipping costs no pass of its own.
///
/// # Errors
/// When the lists differ in length, or shapes, devices or types do not go together.
pub fn step(group: &Group<'_>, settings: Settings, divisor: Option<&Tensor>) -> Result<(), Error> {
    let count = group.parameters.len();
    for (what, list) in [
        ("parameters and gradients", group.gradients),
        ("parameters and first moments", group.averages),
        ("parameters and second moments", group.squares),
        ("parameters and steps", group.steps),
    ] {
        if list.len() != count {
            return Err(Error::Lengths { what, left: count, right: list.len() });
        }
    }
    if count == 0 {
        return Ok(());
    }
    let pointers = |list: &[Tensor]| -> Vec<RawTensor> { list.iter().map(raw).collect() };
    let lists = [group.parameters, group.gradients, group.averages, group.squares, group.steps].map(pointers);
    let [parameters, gradients, averages, squares, steps] = &lists;
    // SAFETY: each list holds `count` pointers to tensors that `group` borrows for the length of the call.
    check(unsafe {
        ffi::ute_fused_adamw(
            parameters.as_ptr(),
            gradients.as_ptr(),
            averages.as_ptr(),
            squares.as_ptr(),
            steps.as_ptr(),
            count,
            settings.learning_rate,
            settings.beta1,
            settings.beta2,
            settings.weight_decay,
            settings.epsilon,
            divisor.map_or(std::ptr::null_mut(), raw),
        )
    })
}
