//! Sums of small gradients in 64 bits, so that they do not depend on who computed what.
//!
//! In 32 bits the order of additions shows in the last bit, that order depends on the world size, and an optimiser that divides by
//! the root of a square makes more of it at every step. In 64 bits the sum of a few 32-bit numbers is all but exact, and rounding it
//! to 32 bits gives the same number in any order. Models that fit one bucket have nothing to overlap, and on CPU the longer
//! numbers cost them little.

use tch::{Device, Kind, Tensor};
use unimse_collectives::{Buffer, Collective};
use unimse_torch_ext::view;

use super::super::{Halt, failed};
use super::flat::Flat;

/// The sum over micro-shards, then over ranks.
#[derive(Debug)]
pub(super) struct Exact {
    sums: Tensor,
}

impl Exact {
    /// For gradients of one bucket on the CPU; none for others.
    pub(super) fn of(flat: &Flat, buckets: usize) -> Option<Self> {
        let small = flat.gradients.device() == Device::Cpu && buckets == 1;
        small.then(|| Self { sums: flat.gradients.zeros_like().to_kind(Kind::Double) })
    }

    /// Begins a step.
    pub(super) fn clear(&mut self) {
        let _ = self.sums.zero_();
    }

    /// Adds the gradients of one micro-shard and clears them.
    pub(super) fn take(&mut self, gradients: &mut Tensor) {
        self.sums += &*gradients;
        let _ = gradients.zero_();
    }

    /// What was added up since the step began.
    pub(super) fn sums(&self) -> &Tensor {
        &self.sums
    }

    /// Adds up over the ranks and writes the result to the gradients.
    pub(super) fn reduce(&mut self, gradients: &mut Tensor, group: &mut dyn Collective) -> Result<(), Halt> {
        if group.world_size() > 1 {
            group.all_reduce(Buffer::F64(view::host_mut(&mut self.sums).map_err(failed)?))?;
        }
        gradients.copy_(&self.sums);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tch::nn;

    use super::*;

    #[test]
    fn the_order_of_additions_does_not_show() {
        let store = nn::VarStore::new(Device::Cpu);
        let parameters = vec![("weight".to_owned(), store.root().zeros("weight", &[1000]))];
        let mut flat = Flat::new(parameters, Device::Cpu).unwrap();
        let mut group = unimse_collectives::local::group(1, 1).remove(0);
        let parts: Vec<Tensor> = (0..7)
            .map(|n| super::super::seeding::seeded(n, || flat.gradients.randn_like() * 10_f64.powi(n as i32 - 3)))
            .collect();
        let mut sum = |order: &mut dyn Iterator<Item = usize>| {
            let mut exact = Exact::of(&flat, 1).unwrap();
            for part in order {
                flat.gradients.copy_(&parts[part]);
                exact.take(&mut flat.gradients);
            }
            exact.reduce(&mut flat.gradients, &mut group).unwrap();
            flat.gradients.copy()
        };
        assert_eq!(sum(&mut (0..7)), sum(&mut (0..7).rev()));
        let plain =
            |order: &mut dyn Iterator<Item = usize>| order.fold(parts[0].zeros_like(), |sum, part| sum + &parts[part]);
        assert_ne!(plain(&mut (0..7)), plain(&mut (0..7).rev()), "in 32 bits it does");
    }
}
