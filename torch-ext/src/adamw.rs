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

/// Takes the step that is the `count`-th, as [`step`] does, and leaves the gradients 0: what clears them for the next step costs no pass
/// of its own. Tells whether it was done: only for 32 bits on the CPU, and one thread; else nothing is touched.
///
/// # Errors
/// As [`step`].
pub fn consume(group: &Group<'_>, settings: Settings, count: u64, divisor: Option<f64>) -> Result<bool, Error> {
    let lists = lists(group)?;
    let [parameters, gradients, averages, squares, _] = &lists;
    let mut done = 0;
    // SAFETY: each list holds as many pointers to tensors as the others, which `group` borrows for the length of the call.
    check(unsafe {
        ffi::ute_adamw_consume(
            parameters.as_ptr(),
            gradients.as_ptr(),
            averages.as_ptr(),
            squares.as_ptr(),
            parameters.len(),
            count as f64,
            settings.learning_rate,
            settings.beta1,
            settings.beta2,
            settings.weight_decay,
            settings.epsilon,
            divisor.unwrap_or(1.0),
            &raw mut done,
        )
    })?;
    Ok(done != 0)
}

/// The tensors as libtorch has them; all lists must be of one length.
fn lists(group: &Group<'_>) -> Result<[Vec<RawTensor>; 5], Error> {
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
    let pointers = |list: &[Tensor]| -> Vec<RawTensor> { list.iter().map(raw).collect() };
    Ok([group.parameters, group.gradients, group.averages, group.squares, group.steps].map(pointers))
}

/// Takes one step in place. With a `divisor`, an f32 scalar where the parameters are, the gradients are divided by it on the way and
/// stored so: clipping costs no pass of its own.
///
/// # Errors
/// When the lists differ in length, or shapes, devices or types do not go together.
pub fn step(group: &Group<'_>, settings: Settings, divisor: Option<&Tensor>) -> Result<(), Error> {
    let lists = lists(group)?;
    let [parameters, gradients, averages, squares, steps] = &lists;
    let count = parameters.len();
    if count == 0 {
        return Ok(());
    }
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
