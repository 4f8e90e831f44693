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
    /// Micro-shards of this step that are in `sums`.
    aside: usize,
}

impl Exact {
    /// For gradients of one bucket on the CPU whose steps have up to `shards` micro-shards; none for others.
    pub(super) fn of(flat: &Flat, buckets: usize, shards: u64) -> Option<Self> {
        let small = flat.gradients.device() == Device::Cpu && buckets == 1;
        // Two numbers have the same sum in either order, also in 32 bits.
        let kind = if shards > 2 { Kind::Double } else { Kind::Float };
        small.then(|| Self { sums: flat.gradients.zeros_like().to_kind(kind), aside: 0 })
    }

    /// Sets the gradients of a micro-shard aside and clears them for the next one of the same step.
    pub(super) fn set_aside(&mut self, gradients: &mut Tensor) {
        self.add(gradients);
        let _ = gradients.zero_();
    }

    /// Adds up what was set aside, what the last micro-shard left in the gradients, and the other ranks' sums; the result is in the
    /// gradients.
    pub(super) fn reduce(&mut self, gradients: &mut Tensor, group: &mut dyn Collective) -> Result<(), Halt> {
        if self.sums.kind() == Kind::Double && (self.aside > 0 || group.world_size() > 1) {
            self.add(gradients);
            if group.world_size() > 1 {
                group.all_reduce(Buffer::F64(view::host_mut(&mut self.sums).map_err(failed)?))?;
            }
            gradients.copy_(&self.sums);
        } else {
            if self.aside > 0 {
                *gradients += &self.sums;
            }
            if group.world_size() > 1 {
                group.all_reduce(Buffer::F32(view::host_mut(gradients).map_err(failed)?))?;
            }
        }
        self.aside = 0;
        Ok(())
    }

    /// Forgets what a step that was given up has set aside.
    pub(super) fn clear(&mut self) {
        self.aside = 0;
    }

    fn add(&mut self, gradients: &Tensor) {
        if self.aside == 0 {
            self.sums.copy_(gradients);
        } else {
            self.sums += gradients;
        }
        self.aside += 1;
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
        let mut sum = |order: &[usize]| {
            let mut exact = Exact::of(&flat, 1, order.len() as u64).unwrap();
            for (place, &part) in order.iter().enumerate() {
                if place > 0 {
                    exact.set_aside(&mut flat.gradients);
                }
                flat.gradients.copy_(&parts[part]);
            }
            exact.reduce(&mut flat.gradients, &mut group).unwrap();
            flat.gradients.copy()
        };
        assert_eq!(sum(&[0, 1, 2, 3, 4, 5, 6]), sum(&[6, 5, 4, 3, 2, 1, 0]));
        assert_eq!(sum(&[0, 6]), sum(&[6, 0]));
        assert_eq!(sum(&[3]), parts[3]);
        let plain =
            |order: &mut dyn Iterator<Item = usize>| order.fold(parts[0].zeros_like(), |sum, part| sum + &parts[part]);
        assert_ne!(plain(&mut (0..7)), plain(&mut (0..7).rev()), "in 32 bits it does");
    }
}
