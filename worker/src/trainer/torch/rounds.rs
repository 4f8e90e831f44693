//! Rounds of steps in which each rank goes its own way, and the agreement at their end.
//!
//! DiLoCo (Douillard et al. 2023, arXiv 2311.08105): after `every` steps of AdamW on its own samples, each rank's way from the common
//! start is averaged and followed with Nesterov momentum. Here the moments of AdamW are averaged as well, so that after an
//! agreement all ranks hold the same numbers: that is what checkpoints, peers that join and peers that are lost build on. A round
//! that is broken off is begun anew from the last agreement, so that every sample counts once.

use tch::Tensor;
use unimse_collectives::Collective;
use unimse_core::spec::SyncSpec;

use super::super::Halt;
use super::flat::Flat;
use super::reducer::{self, Wire};

/// What a replica needs for rounds beside its state.
#[derive(Debug)]
pub(super) struct Rounds {
    sync: SyncSpec,
    wire: Wire,
    /// The outer momentum: part of the state.
    pub(super) momentum: Tensor,
    /// Parameters and moments at the last agreement.
    start: [Tensor; 3],
    /// The state has gone its own way since `start` was copied.
    away: bool,
}

impl Rounds {
    /// For a state, if the job wants rounds.
    pub(super) fn of(flat: &Flat, sync: &SyncSpec) -> Option<Self> {
        (sync.every > 1).then(|| Self {
            sync: *sync,
            wire: Wire::of(sync.precision),
            momentum: flat.parameters.zeros_like(),
            start: [&flat.parameters, &flat.averages, &flat.squares].map(Tensor::empty_like),
            away: false,
        })
    }

    /// The state is about to change: remembers where the round began.
    pub(super) fn leave(&mut self, flat: &mut Flat) {
        if !self.away {
            for (start, state) in self.start.iter_mut().zip(flat.state()) {
                start.copy_(state);
            }
            self.away = true;
        }
    }

    /// Goes back to where the round began.
    pub(super) fn rewind(&mut self, flat: &mut Flat) {
        if self.away {
            for (start, state) in self.start.iter().zip(flat.state()) {
                state.copy_(start);
            }
            self.away = false;
        }
    }

    /// The state was replaced by another.
    pub(super) fn arrive(&mut self) {
        self.away = false;
    }

    /// Ends a round. Until all sums are there, `start` and `momentum` stay as they are; the gradients serve as scratch.
    pub(super) fn agree(&mut self, flat: &mut Flat, group: &mut dyn Collective) -> Result<u64, Halt> {
        let share = 1.0 / f64::from(group.world_size());
        flat.set_cleared(false);
        let way = &mut flat.gradients;
        way.copy_(&self.start[0]);
        *way -= &flat.parameters;
        let mut sent = 0;
        if group.world_size() > 1 {
            for sum in [&mut flat.gradients, &mut flat.averages, &mut flat.squares] {
                sent += reducer::add_up(group, sum, self.wire)?;
                let _ = sum.g_mul_scalar_(share);
            }
        }
        let SyncSpec { outer_learning_rate: rate, outer_momentum: keep, .. } = self.sync;
        let way = &flat.gradients;
        let _ = self.momentum.g_mul_scalar_(keep);
        self.momentum += way;
        // As PyTorch's SGD with nesterov=True, whose gradient is the mean way back.
        flat.parameters.copy_(&self.start[0]);
        flat.parameters -= way * rate;
        flat.parameters -= &self.momentum * (rate * keep);
        self.away = false;
        Ok(sent)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, nn};
    use unimse_collectives::local;

    use super::*;

    fn flat(value: f64) -> Flat {
        let store = nn::VarStore::new(Device::Cpu);
        let leaf = store.root().zeros("w", &[16]);
        let flat = Flat::new(vec![("w".to_owned(), leaf)], Device::Cpu).unwrap();
        let _ = flat.parameters.shallow_clone().fill_(value);
        flat
    }

    fn rounds(flat: &Flat, rate: f64, momentum: f64) -> Rounds {
        let sync = SyncSpec { every: 2, outer_learning_rate: rate, outer_momentum: momentum, ..SyncSpec::default() };
        Rounds::of(flat, &sync).unwrap()
    }

    fn first(tensor: &Tensor) -> f64 {
        tensor.double_value(&[0])
    }

    #[test]
    fn ranks_meet_in_the_middle_and_the_momentum_is_nesterovs() {
        let ends: Vec<[f64; 3]> = std::thread::scope(|scope| {
            let ranks = local::group(2, 1).into_iter().map(|mut group| {
                scope.spawn(move || {
                    let mut flat = flat(1.0);
                    let mut rounds = rounds(&flat, 0.5, 0.9);
                    let away = 1.0 + f64::from(group.rank());
                    let mut end = [0.0; 3];
                    for place in &mut end[..2] {
                        rounds.leave(&mut flat);
                        let _ = flat.parameters.g_add_scalar_(-away);
                        let _ = flat.averages.fill_(away);
                        rounds.agree(&mut flat, &mut group).unwrap();
                        *place = first(&flat.parameters);
                    }
                    end[2] = first(&flat.averages);
                    end
                })
            });
            let ranks: Vec<_> = ranks.collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        // The mean way is 1.5: the first step is 0.5 * (1.5 + 0.9 * 1.5), the second 0.5 * (1.5 + 0.9 * (0.9 * 1.5 + 1.5)).
        for end in ends {
            assert!((end[0] - (1.0 - 0.5 * 2.85)).abs() < 1e-6, "{end:?}");
            assert!((end[1] - (end[0] - 0.5 * (1.5 + 0.9 * 2.85))).abs() < 1e-6, "{end:?}");
            assert_eq!(end[2], 1.5, "moments are averaged");
        }
    }

    #[test]
    fn a_round_that_is_broken_off_leaves_no_trace() {
        let mut flat = flat(3.0);
        let mut rounds = rounds(&flat, 0.7, 0.9);
        rounds.rewind(&mut flat);
        assert_eq!(first(&flat.parameters), 3.0, "there is nothing to go back to");
        rounds.leave(&mut flat);
        let _ = flat.parameters.fill_(9.0);
        let _ = flat.squares.fill_(9.0);
        rounds.leave(&mut flat);
        rounds.rewind(&mut flat);
        assert_eq!((first(&flat.parameters), first(&flat.squares)), (3.0, 0.0));
        assert_eq!(first(&rounds.momentum.sum(Kind::Float).view(1)), 0.0);
    }

    #[test]
    fn one_rank_alone_follows_its_own_way() {
        let mut flat = flat(1.0);
        let mut rounds = rounds(&flat, 1.0, 0.0);
        rounds.leave(&mut flat);
        let _ = flat.parameters.fill_(0.25);
        let mut group = local::group(1, 1).remove(0);
        assert_eq!(rounds.agree(&mut flat, &mut group).unwrap(), 0);
        assert_eq!(first(&flat.parameters), 0.25);
    }
}
