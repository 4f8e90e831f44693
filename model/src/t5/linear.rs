//! The linear layer without bias, of which T5 mostly consists.

use tch::{Tensor, nn};
use unimse_torch_ext::accumulate;

/// `W x`. Its backward pass adds the weight's gradient in place where the trainer has given it memory.
#[derive(Debug)]
pub(crate) struct Linear {
    /// `[outputs, inputs]`.
    pub(crate) weight: Tensor,
}

impl Linear {
    /// Creates `weight [outputs, inputs]` under `path`.
    pub(crate) fn new(path: &nn::Path, inputs: i64, outputs: i64, init: nn::Init) -> Self {
        Self { weight: path.var("weight", &[outputs, inputs], init) }
    }

    /// The same layer: its weight is shared.
    pub(crate) fn share(&self) -> Self {
        Self { weight: self.weight.shallow_clone() }
    }

    /// Maps `[.., inputs]` to `[.., outputs]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        accumulate::linear(x, &self.weight)
    }
}

/// Creates a linear layer whose weights are normal with deviation `stdev`, as all of T5's are.
pub(crate) fn projection(path: &nn::Path, inputs: i64, outputs: i64, stdev: f64) -> Linear {
    Linear::new(path, inputs, outputs, nn::Init::Randn { mean: 0.0, stdev })
}
