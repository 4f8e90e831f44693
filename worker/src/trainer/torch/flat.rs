//! All parameters, gradients and moments, each in one contiguous tensor.
//!
//! The model's parameters are views of one flat tensor, their gradients of another. So clearing gradients, adding them up over
//! the ranks, their norm, the optimiser and copying the state are a few calls on large tensors. Parameters come in reverse
//! order of the forward pass, so that what backward finishes first lies together; those without weight decay come last.

use tch::{Device, Kind, Tensor};
use unimse_core::job::ExitCause;
use unimse_torch_ext::gradient;

use super::super::failed;

/// Parameters begin at multiples of this many numbers, 64 bytes.
const ALIGNMENT: usize = 16;

/// Where a parameter lies in the flat tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) shape: Vec<i64>,
    pub(super) start: usize,
    pub(super) len: usize,
}

/// The state of a model and its optimiser.
#[derive(Debug)]
pub(super) struct Flat {
    pub(super) entries: Vec<Entry>,
    /// The model's leaves, in the order of the entries.
    pub(super) leaves: Vec<Tensor>,
    pub(super) parameters: Tensor,
    pub(super) gradients: Tensor,
    pub(super) averages: Tensor,
    pub(super) squares: Tensor,
    /// Numbers before this have weight decay.
    pub(super) decayed: usize,
}

impl Flat {
    /// Moves parameters, given in the order of the forward pass, into a flat tensor; they keep their values.
    pub(super) fn new(parameters: Vec<(String, Tensor)>, device: Device) -> Result<Self, ExitCause> {
        let (decaying, other): (Vec<_>, Vec<_>) =
            parameters.into_iter().rev().partition(|(name, tensor)| decays(name, tensor));
        let mut entries = Vec::new();
        let mut leaves = Vec::new();
        let mut end = 0;
        let mut place = |list: Vec<(String, Tensor)>| {
            for (name, leaf) in list {
                let len = leaf.numel();
                entries.push(Entry { name, shape: leaf.size(), start: end, len });
                leaves.push(leaf);
                end = (end + len).next_multiple_of(ALIGNMENT);
            }
            end
        };
        let decayed = place(decaying);
        let total = place(other);
        let zeros = || Tensor::zeros([total as i64], (Kind::Float, device));
        let mut flat = Self {
            entries,
            leaves,
            parameters: zeros(),
            gradients: zeros(),
            averages: zeros(),
            squares: zeros(),
            decayed,
        };
        flat.adopt_leaves().map_err(|error| failed(format!("cannot lay out the parameters: {error}")))?;
        Ok(flat)
    }

    fn adopt_leaves(&mut self) -> Result<(), unimse_torch_ext::Error> {
        for (entry, leaf) in self.entries.iter().zip(&mut self.leaves) {
            let mut view = entry.view(&self.parameters);
            tch::no_grad(|| view.copy_(leaf));
            leaf.set_data(&view);
            gradient::set(leaf, &entry.view(&self.gradients))?;
        }
        Ok(())
    }

    /// The flat tensors that make the state, in the order in which a checkpoint names them.
    pub(super) fn state(&mut self) -> [&mut Tensor; 3] {
        [&mut self.parameters, &mut self.averages, &mut self.squares]
    }
}

impl Entry {
    /// This parameter's part of a flat tensor, in its shape.
    pub(super) fn view(&self, flat: &Tensor) -> Tensor {
        flat.narrow(0, self.start as i64, self.len as i64).view(self.shape.as_slice())
    }
}

/// Whether a parameter is pulled towards zero: matrices are, but for the position biases; norms and biases are not.
fn decays(name: &str, tensor: &Tensor) -> bool {
    tensor.dim() > 1 && !name.contains("bias") && !name.contains("norm")
}

#[cfg(test)]
mod tests {
    use tch::nn;
    use tch::nn::Module;

    use super::*;

    fn model() -> (nn::VarStore, nn::Linear, nn::Linear) {
        let store = nn::VarStore::new(Device::Cpu);
        let path = store.root();
        let first = nn::linear(&path / "first", 3, 5, nn::LinearConfig::default());
        let second = nn::linear(&path / "second", 5, 2, nn::LinearConfig::default());
        (store, first, second)
    }

    #[test]
    fn parameters_and_gradients_are_views_and_keep_their_values() {
        let (store, first, second) = model();
        let before = first.ws.copy();
        let mut flat = Flat::new(unimse_model::weights::parameters(&store), Device::Cpu).unwrap();
        let names: Vec<&str> = flat.entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["second.weight", "first.weight", "second.bias", "first.bias"]);
        assert_eq!(flat.decayed, 16 + 16, "ten and fifteen numbers, each rounded up");
        assert_eq!(first.ws, before);

        let loss =
            || second.forward(&first.forward(&Tensor::ones([1, 3], (Kind::Float, Device::Cpu)))).sum(Kind::Float);
        loss().backward();
        let once = flat.gradients.copy();
        assert!(f64::try_from(once.abs().sum(Kind::Float)).unwrap() > 0.0, "backward writes into the flat tensor");
        loss().backward();
        assert!(flat.gradients.allclose(&(once * 2), 1e-6, 1e-6, false), "and adds to what is there");

        let _ = flat.parameters.zero_();
        assert_eq!(
            f64::try_from(first.ws.abs().sum(Kind::Float)).unwrap(),
            0.0,
            "the model sees changes of the flat tensor"
        );
    }

    #[test]
    fn only_matrices_decay() {
        let matrix = Tensor::zeros([2, 2], (Kind::Float, Device::Cpu));
        let vector = Tensor::zeros([2], (Kind::Float, Device::Cpu));
        let q = "encoder.block.0.layer.0.SelfAttention";
        assert!(decays(&format!("{q}.q.weight"), &matrix));
        assert!(!decays(&format!("{q}.relative_attention_bias.weight"), &matrix));
        assert!(!decays("encoder.final_layer_norm.weight", &vector));
        assert!(!decays("acoustic.lstm.bias_ih_l0", &vector));
    }
}
