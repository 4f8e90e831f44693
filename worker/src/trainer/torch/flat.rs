//! All parameters, gradients and moments, each in one contiguous tensor.
//!
//! The model's parameters are views of one flat tensor, their gradients of another. So clearing gradients, adding them up over
//! the ranks, their norm, the optimiser and copying the state are a few calls on large tensors. Parameters come in reverse
//! order of the forward pass, so that what backward finishes first lies together, but for those that the optimiser treats
//! otherwise: they form groups of their own behind the others.
//!
//! The moments may be those of some ranges only, one behind the other: see [`zero`](super::zero).

use std::ops::Range;

use tch::{Device, Kind, Tensor};
use unimse_core::job::ExitCause;
use unimse_model::weights;
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
    /// First and second moments of the ranges in `own`.
    pub(super) averages: Tensor,
    pub(super) squares: Tensor,
    /// The gradients are 0: an update has left them so, and nothing was added since.
    cleared: bool,
    /// The ranges whose moments are here, in order: everything, or a rank's share.
    pub(super) own: Vec<Range<usize>>,
    /// They cover the flat tensors.
    pub(super) groups: Vec<Group>,
}

/// Parameters that the optimiser treats alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) range: Range<usize>,
    /// They have weight decay.
    pub(super) decays: bool,
    /// They are not T5's own.
    pub(super) added: bool,
}

impl Flat {
    /// Moves parameters, given in the order of the forward pass, into a flat tensor; they keep their values.
    pub(super) fn new(parameters: Vec<(String, Tensor)>, device: Device) -> Result<Self, ExitCause> {
        let mut flat = Self::without_moments(parameters, device)?;
        let whole = 0..flat.parameters.numel();
        flat.keep(Vec::from([whole]));
        Ok(flat)
    }

    /// The same, with no moments until [`Flat::keep`] says which.
    pub(super) fn without_moments(parameters: Vec<(String, Tensor)>, device: Device) -> Result<Self, ExitCause> {
        let mut parameters: Vec<_> = parameters
            .into_iter()
            .rev()
            .map(|(name, leaf)| (decays(&name, &leaf), weights::is_added(&name), name, leaf))
            .collect();
        parameters.sort_by_key(|&(decays, added, ..)| (!decays, added));
        let (mut entries, mut leaves, mut groups) = (Vec::new(), Vec::new(), Vec::<Group>::new());
        let mut end = 0;
        for (decays, added, name, leaf) in parameters {
            let (start, len) = (end, leaf.numel());
            end = (end + len).next_multiple_of(ALIGNMENT);
            match groups.last_mut().filter(|group| (group.decays, group.added) == (decays, added)) {
                Some(group) => group.range.end = end,
                None => groups.push(Group { range: start..end, decays, added }),
            }
            entries.push(Entry { name, shape: leaf.size(), start, len });
            leaves.push(leaf);
        }
        let zeros = |count: usize| Tensor::zeros([count as i64], (Kind::Float, device));
        let parameters = zeros(end);
        for (entry, leaf) in entries.iter().zip(&mut leaves) {
            let mut view = entry.view(&parameters);
            tch::no_grad(|| view.copy_(leaf));
            leaf.set_data(&view);
        }
        // The leaves' own memory is free before the other three are made: they are never there at the same time.
        let (gradients, averages, squares) = (zeros(end), zeros(0), zeros(0));
        for (entry, leaf) in entries.iter().zip(&mut leaves) {
            gradient::set(leaf, &entry.view(&gradients))
                .map_err(|error| failed(format!("cannot lay out the gradients: {error}")))?;
        }
        Ok(Self { entries, leaves, parameters, gradients, averages, squares, cleared: true, own: Vec::new(), groups })
    }

    /// Sets the gradients to 0 for backward passes to come.
    pub(super) fn clear(&mut self) {
        if !std::mem::take(&mut self.cleared) {
            let _ = self.gradients.zero_();
        }
    }

    /// Says whether something has cleared all gradients on its way, or used their memory for something else.
    pub(super) fn set_cleared(&mut self, cleared: bool) {
        self.cleared = cleared;
    }

    /// Keeps the moments of these ranges from now on, beginning with zeros if they are others than before.
    pub(super) fn keep(&mut self, own: Vec<Range<usize>>) {
        if own == self.own {
            return;
        }
        let count = own.iter().map(ExactSizeIterator::len).sum::<usize>() as i64;
        // The old ones go first: both are never there at the same time.
        let kind = (Kind::Float, self.parameters.device());
        (self.averages, self.squares) = (Tensor::zeros([0], kind), Tensor::zeros([0], kind));
        (self.averages, self.squares) = (Tensor::zeros([count], kind), Tensor::zeros([count], kind));
        self.own = own;
    }

    /// The parts of a range whose moments are here, and where among the moments each begins.
    pub(super) fn kept(&self, range: Range<usize>) -> impl Iterator<Item = (Range<usize>, usize)> {
        let mut place = 0;
        self.own.iter().filter_map(move |own| {
            let part = own.start.max(range.start)..own.end.min(range.end);
            let at = place + part.start.saturating_sub(own.start);
            place += own.len();
            (!part.is_empty()).then_some((part, at))
        })
    }

    /// The tensors that make the state, in the order in which a checkpoint names them.
    pub(super) fn state(&mut self) -> [&mut Tensor; 3] {
        [&mut self.parameters, &mut self.averages, &mut self.squares]
    }
}

impl Entry {
    /// Where it lies in the flat tensors.
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }

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
        let mut flat = Flat::new(weights::parameters(&store), Device::Cpu).unwrap();
        let names: Vec<&str> = flat.entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["second.weight", "first.weight", "second.bias", "first.bias"]);
        let group = |range, decays| Group { range, decays, added: false };
        assert_eq!(flat.groups, [group(0..32, true), group(32..64, false)], "ten and fifteen numbers, each rounded up");
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
    fn moments_may_be_those_of_some_ranges() {
        let (store, ..) = model();
        let mut flat = Flat::new(weights::parameters(&store), Device::Cpu).unwrap();
        let kept = |flat: &Flat, range| flat.kept(range).collect::<Vec<_>>();
        assert_eq!(kept(&flat, 3..40), [(3..40, 3)]);
        let _ = flat.averages.fill_(1.0);
        flat.keep(vec![8..16, 32..48]);
        assert_eq!((flat.averages.numel(), flat.squares.numel()), (24, 24));
        assert_eq!(f64::try_from(flat.averages.sum(Kind::Float)).unwrap(), 0.0, "other moments begin with zeros");
        assert_eq!(kept(&flat, 0..64), [(8..16, 0), (32..48, 8)]);
        assert_eq!(kept(&flat, 10..33), [(10..16, 2), (32..33, 8)]);
        assert_eq!(kept(&flat, 40..44), [(40..44, 16)]);
        assert_eq!(kept(&flat, 16..32), []);
    }

    #[test]
    fn what_is_added_to_t5_is_a_group_of_its_own() {
        let store = nn::VarStore::new(Device::Cpu);
        let names = ["shared.weight", "encoder.block.0.fusion.up.weight", "encoder.block.0.layer.0.layer_norm.weight"];
        let parameters = names.map(|name| (name.to_owned(), store.root().ones(&name.replace('.', "_"), &[4, 4])));
        let flat = Flat::new(parameters.into(), Device::Cpu).unwrap();
        let found: Vec<_> = flat.groups.iter().map(|group| (group.decays, group.added)).collect();
        assert_eq!(found, [(true, false), (true, true), (false, false)]);
        assert_eq!(flat.groups.last().unwrap().range.end, flat.parameters.numel());
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
