//! PowerSGD: gradient matrices travel as two thin factors, and what those miss is added to the next step's gradient.
//!
//! Vogels et al., NeurIPS 2019, algorithms 1 and 2, with one step of power iteration from the last step's factor. A rank keeps what its
//! own matrix lost; as its sum over the ranks is what the sum of gradients lost, nothing is forgotten but what `precision: bf16` rounds
//! on the way. At a step that will be saved
//! gradients and leftovers are added up as they are, so a checkpoint needs neither leftovers nor factors, and
//! resuming from it gives the same numbers as going on.

use tch::{Device, Kind, Tensor};
use unimse_collectives::Collective;
use unimse_core::id::Step;
use unimse_core::spec::SyncSpec;

use super::super::{Halt, failed};
use super::flat::{Entry, Flat};
use super::reducer::{self, Wire};
use super::seeding::seeded;

/// The compression of one rank's gradients.
#[derive(Debug)]
pub(super) struct PowerSgd {
    rank: i64,
    wire: Wire,
    /// The last step that sends gradients as they are.
    warmup: Step,
    seed: u64,
    matrices: Vec<Matrix>,
    /// Parameters that are too small or too thin to gain anything.
    others: Vec<Entry>,
    /// What this rank's factors have missed, as the flat gradients lie.
    leftover: Tensor,
}

#[derive(Debug)]
struct Matrix {
    entry: Entry,
    rows: i64,
    columns: i64,
    /// `[columns, rank]`, the same on all ranks; none until it is needed.
    factor: Option<Tensor>,
}

impl PowerSgd {
    /// For the gradients of `flat`, if the job wants it.
    pub(super) fn of(flat: &Flat, sync: &SyncSpec, seed: u64) -> Option<Self> {
        let rank = i64::from(sync.rank);
        if rank == 0 {
            return None;
        }
        let (mut matrices, mut others) = (Vec::new(), Vec::new());
        for entry in &flat.entries {
            let rows = entry.shape.first().copied().unwrap_or(1).max(1);
            let columns = entry.len as i64 / rows;
            // Less than half of the bytes, or it is not worth the arithmetic.
            if entry.shape.len() > 1 && 2 * rank * (rows + columns) <= rows * columns {
                matrices.push(Matrix { entry: entry.clone(), rows, columns, factor: None });
            } else {
                others.push(entry.clone());
            }
        }
        let leftover = flat.gradients.zeros_like();
        Some(Self { rank, wire: Wire::of(sync.precision), warmup: Step(sync.warmup), seed, matrices, others, leftover })
    }

    /// Replaces the gradients by the sum over the ranks, or what the factors give of it; returns the bytes that this rank gave to
    /// sums.
    pub(super) fn reduce(
        &mut self,
        gradients: &mut Tensor,
        step: Step,
        exactly: bool,
        group: &mut dyn Collective,
    ) -> Result<u64, Halt> {
        if group.world_size() == 1 {
            return Ok(0);
        }
        *gradients += &self.leftover;
        if exactly || step <= self.warmup {
            self.forget();
            return reducer::add_up(group, gradients, self.wire);
        }
        tch::no_grad(|| self.factored(gradients, step, group))
    }

    /// Forgets factors and leftovers: the group is a new one, or everything was just sent.
    pub(super) fn forget(&mut self) {
        let _ = self.leftover.zero_();
        for matrix in &mut self.matrices {
            matrix.factor = None;
        }
    }

    fn factored(&mut self, gradients: &mut Tensor, step: Step, group: &mut dyn Collective) -> Result<u64, Halt> {
        let (rank, seed, wire, device) = (self.rank, self.seed, self.wire, gradients.device());
        // P = M Q for each matrix, and what is not factored beside them.
        let mut parts = Vec::with_capacity(self.matrices.len() + self.others.len());
        for (place, matrix) in self.matrices.iter_mut().enumerate() {
            let (own, shape) = (matrix.of(gradients), [matrix.columns, rank]);
            let factor = matrix.factor.get_or_insert_with(|| first_factor(seed, step, place, shape, device));
            parts.push(own.matmul(factor));
        }
        parts.extend(self.others.iter().map(|entry| entry.view(gradients)));
        let first = together(group, &mut parts, wire)?;
        for (entry, summed) in self.others.iter().zip(&parts[self.matrices.len()..]) {
            entry.view(gradients).copy_(summed);
        }
        // Q = M^T P of each rank, with P orthonormal; the sum of the ranks' P Q^T is then P times the sum of their Q.
        let bases: Vec<Tensor> = parts[..self.matrices.len()].iter().map(orthonormal).collect();
        let mut factors = Vec::with_capacity(self.matrices.len());
        for (matrix, basis) in self.matrices.iter().zip(&bases) {
            let own = matrix.of(gradients);
            let factor = own.transpose(0, 1).matmul(basis);
            let mut leftover = matrix.of(&self.leftover);
            leftover.copy_(&(own - basis.matmul(&factor.transpose(0, 1))));
            factors.push(factor);
        }
        for entry in &self.others {
            let _ = entry.view(&self.leftover).zero_();
        }
        let second = together(group, &mut factors, wire)?;
        for ((matrix, basis), factor) in self.matrices.iter_mut().zip(&bases).zip(factors) {
            matrix.of(gradients).copy_(&basis.matmul(&factor.transpose(0, 1)));
            matrix.factor = Some(factor);
        }
        Ok(first + second)
    }
}

impl Matrix {
    /// Its part of a flat tensor, `[rows, columns]`.
    fn of(&self, flat: &Tensor) -> Tensor {
        self.entry.view(flat).view([self.rows, self.columns])
    }
}

/// A random factor, the same on all ranks, and another for each matrix and each beginning.
fn first_factor(seed: u64, step: Step, place: usize, shape: [i64; 2], device: Device) -> Tensor {
    let mut hasher = blake3::Hasher::new_derive_key("unimse powersgd v1");
    hasher.update(&seed.to_le_bytes()).update(&step.0.to_le_bytes()).update(&(place as u64).to_le_bytes());
    let seed = u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("a hash has 32 bytes"));
    seeded(seed, || Tensor::randn(shape, (Kind::Float, Device::Cpu))).to_device(device)
}

/// An orthonormal basis of the columns of `p`, `[n, rank]`.
fn orthonormal(p: &Tensor) -> Tensor {
    Tensor::linalg_qr(p, "reduced").0
}

/// Adds up several tensors over the ranks in one call, in place; returns the bytes that this rank gave.
fn together(group: &mut dyn Collective, tensors: &mut [Tensor], wire: Wire) -> Result<u64, Halt> {
    let lines: Vec<Tensor> = tensors.iter().map(|tensor| tensor.reshape(-1)).collect();
    let mut joined = Tensor::f_cat(&lines, 0).map_err(failed)?;
    let sent = reducer::add_up(group, &mut joined, wire)?;
    let mut start = 0;
    for tensor in tensors {
        let len = tensor.numel() as i64;
        *tensor = joined.narrow(0, start, len).view(tensor.size().as_slice());
        start += len;
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use tch::nn;
    use unimse_collectives::local;

    use super::*;

    fn flat(shapes: &[&[i64]]) -> Flat {
        let store = nn::VarStore::new(Device::Cpu);
        let named = |(place, shape): (usize, &&[i64])| {
            let name = format!("w{place}.weight");
            (name.clone(), store.root().zeros(&name.replace('.', "_"), shape))
        };
        Flat::new(shapes.iter().enumerate().map(named).collect(), Device::Cpu).unwrap()
    }

    /// Runs `steps` steps on two ranks whose gradients are `gradient(rank, step)`, and gives what rank 0 saw and sent.
    fn run(
        rank: u32,
        steps: u64,
        exactly: impl Fn(u64) -> bool + Sync,
        gradient: impl Fn(u32, u64) -> Tensor + Sync,
    ) -> Vec<(Tensor, u64)> {
        let sync = SyncSpec { rank, ..SyncSpec::default() };
        let one = |mut group: Box<dyn Collective>| {
            let flat = flat(&[&[40, 30], &[7]]);
            let mut powersgd = PowerSgd::of(&flat, &sync, 1).unwrap();
            (1..=steps)
                .map(|step| {
                    let mut gradients = gradient(group.rank(), step);
                    let sent = powersgd.reduce(&mut gradients, Step(step), exactly(step), group.as_mut()).unwrap();
                    (gradients, sent)
                })
                .collect::<Vec<_>>()
        };
        let mut groups = local::group(2, 1).into_iter().map(|group| Box::new(group) as Box<dyn Collective>);
        let (first, second) = (groups.next().unwrap(), groups.next().unwrap());
        std::thread::scope(|scope| {
            let other = scope.spawn(|| one(second));
            let own = one(first);
            let other = other.join().unwrap();
            for ((a, _), (b, _)) in own.iter().zip(&other) {
                assert_eq!(a, b, "all ranks end with the same bits");
            }
            own
        })
    }

    fn random(rank: u32, step: u64) -> Tensor {
        let like = flat(&[&[40, 30], &[7]]);
        let values = seeded(100 * step + u64::from(rank), || like.gradients.randn_like());
        for entry in &like.entries {
            entry.view(&like.gradients).copy_(&entry.view(&values));
        }
        like.gradients
    }

    #[test]
    fn matrices_of_low_rank_are_sent_whole_and_small_parts_as_they_are() {
        let low = |rank: u32, step: u64| {
            let like = flat(&[&[40, 30], &[7]]);
            let (a, b) = seeded(step, || {
                (Tensor::randn([40, 1], (Kind::Float, Device::Cpu)), Tensor::randn([1, 30], (Kind::Float, Device::Cpu)))
            });
            for entry in &like.entries {
                let mut view = entry.view(&like.gradients);
                if entry.shape.len() > 1 {
                    view.copy_(&(a.matmul(&b) * f64::from(rank + 1)));
                } else {
                    let _ = view.fill_(f64::from(rank + 1));
                }
            }
            like.gradients
        };
        for (step, (sum, sent)) in (1..).zip(run(2, 3, |_| false, low)) {
            let expected = low(0, step) + low(1, step);
            assert!(sum.allclose(&expected, 1e-4, 1e-4, false), "step {step}");
            assert_eq!(sent, 4 * (2 * (40 + 30) + 7), "of 4 * 1207 bytes");
        }
    }

    #[test]
    fn what_factors_miss_comes_later_and_an_exact_step_leaves_nothing() {
        let steps = 6;
        let seen = run(1, steps, |step| step == steps, random);
        let total = seen.iter().skip(1).fold(seen[0].0.copy(), |sum, (part, _)| sum + part);
        let expected = (1..=steps).map(|step| random(0, step) + random(1, step)).reduce(|a, b| a + b).unwrap();
        assert!(total.allclose(&expected, 1e-4, 1e-3, false), "nothing is forgotten");
        assert!(!seen[0].0.allclose(&(random(0, 1) + random(1, 1)), 1e-2, 1e-2, false), "rank 1 cannot hold noise");
    }

    #[test]
    fn after_an_exact_step_nothing_depends_on_what_was_before() {
        let whole = run(2, 4, |step| step == 2, random);
        let rest = run(2, 4, |step| step <= 2, random);
        assert_eq!(whole[2].0, rest[2].0);
        assert_eq!(whole[3].0, rest[3].0);
    }
}
