//! The RMS norm of T5.

use tch::{Tensor, nn};
use unimse_torch_ext::fused;

/// Scales by the root of the mean square; no mean is subtracted and there is no bias.
#[derive(Debug)]
pub struct LayerNorm {
    pub(super) weight: Tensor,
    pub(super) epsilon: f64,
}

impl LayerNorm {
    /// Creates `weight [width]`, all ones.
    pub fn new(path: &nn::Path, width: i64, epsilon: f64) -> Self {
        Self { weight: path.ones("weight", &[width]), epsilon }
    }

    /// The same norm: its weight is shared.
    pub(super) fn share(&self) -> Self {
        Self { weight: self.weight.shallow_clone(), epsilon: self.epsilon }
    }

    /// Normalises the last dimension; the mean square is taken in 32 bits whatever the element type.
    pub fn forward(&self, hidden: &Tensor) -> Tensor {
        fused::rms_norm(hidden, &self.weight, self.epsilon)
    }
}
