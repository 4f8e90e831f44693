//! A linear layer with a low-rank update beside it (Hu et al. 2021).

use tch::nn::Module;
use tch::{Tensor, nn};

use super::projection;
use crate::config::LoraConfig;

/// `W x`, or `W x + alpha / rank * B (A x)`.
#[derive(Debug)]
pub(super) struct Projection {
    linear: nn::Linear,
    update: Option<Update>,
}

#[derive(Debug)]
struct Update {
    a: nn::Linear,
    b: nn::Linear,
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
            let init = |ws_init| nn::LinearConfig { ws_init, bs_init: None, bias: false };
            let uniform = nn::Init::Uniform { lo: -bound, up: bound };
            Update {
                a: nn::linear(path / "lora_A", inputs, lora.rank, init(uniform)),
                b: nn::linear(path / "lora_B", lora.rank, outputs, init(nn::Init::Const(0.0))),
                scale: lora.alpha / lora.rank as f64,
            }
        });
        Self { linear, update }
    }

    pub(super) fn forward(&self, input: &Tensor) -> Tensor {
        let output = self.linear.forward(input);
        match &self.update {
            Some(Update { a, b, scale }) => output + b.forward(&a.forward(input)) * *scale,
            None => output,
        }
    }
}
