//! A linear layer with a low-rank update beside it (Hu et al. 2021).

use tch::{Tensor, nn};

use super::{Linear, projection};
use crate::config::LoraConfig;

/// `W x`, or `W x + alpha / rank * B (A x)`.
#[derive(Debug)]
pub(super) struct Projection {
    linear: Linear,
    update: Option<Update>,
}

#[derive(Debug)]
struct Update {
    a: Linear,
    b: Linear,
    scale: f64,
}

impl Projection {
    /// Creates `weight` under `path` and, unless `lora` is off, `lora_A.weight` and `lora_B.weight`: names of the peft library.
    ///
    /// `B` begins with zeros, so at step 0 nothing is changed.
    pub(super) fn new(path: &nn::Path, inputs: i64, outputs: i64, stdev: f64, lora: &LoraConfig) -> Self {
        let linear = projection(path, inputs, outputs, stdev);
        let update = (!lora.is_off()).then(|| {
            // As nn.Linear starts, which is what peft takes over.
            let bound = (inputs as f64).powf(-0.5);
            let uniform = nn::Init::Uniform { lo: -bound, up: bound };
            Update {
                a: Linear::new(&(path / "lora_A"), inputs, lora.rank, uniform),
                b: Linear::new(&(path / "lora_B"), lora.rank, outputs, nn::Init::Const(0.0)),
                scale: lora.alpha / lora.rank as f64,
            }
        });
        Self { linear, update }
    }

    /// The same layer: its weights are shared.
    pub(super) fn share(&self) -> Self {
        let update = |update: &Update| Update { a: update.a.share(), b: update.b.share(), scale: update.scale };
        Self { linear: self.linear.share(), update: self.update.as_ref().map(update) }
    }

    pub(super) fn forward(&self, input: &Tensor) -> Tensor {
        self.updated(self.linear.forward(input), input)
    }

    /// Whether the layer is its weight and nothing else.
    pub(super) fn is_plain(&self) -> bool {
        self.update.is_none()
    }

    /// The weight without its update.
    pub(super) fn weight(&self) -> &Tensor {
        &self.linear.weight
    }

    /// Adds the update to `W x`, given as `output`.
    pub(super) fn updated(&self, output: Tensor, input: &Tensor) -> Tensor {
        match &self.update {
            Some(Update { a, b, scale }) => output + b.forward(&a.forward(input)) * *scale,
            None => output,
        }
    }
}
