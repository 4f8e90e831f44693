//! Sums of gradients for drawn shapes, bucket sizes, frozen and unused layers, accumulation and world sizes.

use proptest::prelude::*;
use tch::nn::{self, Module};
use unimse_collectives::local;

use super::*;

/// A stack of linear layers and how it is trained.
#[derive(Clone, Debug)]
struct Case {
    /// Widths of what goes in and of what each layer gives.
    widths: Vec<i64>,
    /// Layers that do not learn.
    frozen: Vec<bool>,
    /// Layers at the end that this step does not use.
    unused: usize,
    /// Numbers that fill a bucket.
    full: usize,
    /// Micro-batches of each rank; the last one's backward pass is watched.
    micro: Vec<usize>,
    bf16: bool,
    /// Each rank gets the sums of its segments only, and then the others' from them.
    scatters: bool,
}

fn cases() -> impl Strategy<Value = Case> {
    let layers = 2..6_usize;
    layers.prop_flat_map(|layers| {
        (
            prop::collection::vec(1..14_i64, layers + 1),
            prop::collection::vec(prop::bool::weighted(0.3), layers),
            0..layers,
            1..300_usize,
            prop_oneof![Just(1), Just(2), Just(4)]
                .prop_flat_map(|world: usize| prop::collection::vec(1..4_usize, world)),
            any::<bool>(),
            any::<bool>(),
        )
            .prop_map(|(widths, frozen, unused, full, micro, bf16, scatters)| Case {
                widths,
                frozen,
                unused,
                full,
                micro,
                bf16,
                scatters,
            })
    })
}

struct Stack {
    _store: nn::VarStore,
    layers: Vec<nn::Linear>,
    used: usize,
    flat: Flat,
}

impl Stack {
    /// `None` if nothing learns.
    fn new(case: &Case) -> Option<Self> {
        let store = nn::VarStore::new(Device::Cpu);
        let path = store.root();
        let layers: Vec<nn::Linear> = case
            .widths
            .windows(2)
            .enumerate()
            .map(|(place, sizes)| nn::linear(&path / place, sizes[0], sizes[1], nn::LinearConfig::default()))
            .collect();
        let number = |name: &str| name.split('.').next().and_then(|place| place.parse::<usize>().ok()).unwrap();
        let mut learning = Vec::new();
        for (name, tensor) in unimse_model::weights::parameters(&store) {
            tch::no_grad(|| {
                let ramp =
                    Tensor::arange(tensor.numel() as i64, (Kind::Float, Device::Cpu)).view(tensor.size().as_slice());
                tensor.shallow_clone().copy_(&((ramp * 0.37).sin() * 0.5));
            });
            if case.frozen[number(&name)] {
                let _ = tensor.set_requires_grad(false);
            } else {
                learning.push((name, tensor));
            }
        }
        let used = layers.len() - case.unused;
        let learns = !learning.is_empty() && case.frozen[..used].iter().any(|frozen| !frozen);
        let flat = learns.then(|| Flat::new(learning, Device::Cpu).unwrap())?;
        Some(Self { _store: store, layers, used, flat })
    }

    fn backward(&self, input: f64) {
        let width = self.layers[0].ws.size()[1];
        let input = Tensor::full([2, width], input, (Kind::Float, Device::Cpu));
        let output = self.layers[..self.used].iter().fold(input, |x, layer| layer.forward(&x).tanh());
        output.sum(Kind::Float).backward();
    }
}

fn input(rank: usize, micro: usize) -> f64 {
    0.3 + rank as f64 * 0.21 - micro as f64 * 0.13
}

/// What every rank has after the sums.
fn summed(case: &Case) -> Vec<Vec<f32>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = local::group(case.micro.len() as u32, 1)
            .into_iter()
            .zip(&case.micro)
            .enumerate()
            .map(|(place, (mut group, &micro))| {
                scope.spawn(move || {
                    tch::set_num_threads(1);
                    let stack = Stack::new(case).unwrap();
                    let wire = if case.bf16 { Wire::Bf16 } else { Wire::F32 };
                    let reducer = Reducer::with_buckets_of(&stack.flat, case.full, wire).unwrap();
                    let reducer = if case.scatters { reducer.scattering() } else { reducer };
                    (0..micro - 1).for_each(|at| stack.backward(input(place, at)));
                    if reducer.overlaps(&group) {
                        reducer.during(&mut group, || stack.backward(input(place, micro - 1))).unwrap();
                    } else {
                        stack.backward(input(place, micro - 1));
                        reducer.all(&mut group).unwrap();
                    }
                    reducer.finish(&mut group).unwrap();
                    if case.scatters {
                        reducer.gather(&stack.flat.gradients, &mut group).unwrap();
                    }
                    view::host::<f32>(&stack.flat.gradients).unwrap().to_vec()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_ranks_have_the_sum_of_all_gradients(case in cases()) {
        let Some(alone) = Stack::new(&case) else { return Ok(()) };
        for (place, &micro) in case.micro.iter().enumerate() {
            (0..micro).for_each(|at| alone.backward(input(place, at)));
        }
        let expected = view::host::<f32>(&alone.flat.gradients).unwrap();
        let most = expected.iter().fold(1e-3_f32, |most, number| most.max(number.abs()));
        // On the wire a bf16 has eight bits, and each rank's part is rounded once, the sum again.
        let bound = if case.bf16 && case.micro.len() > 1 { most / 32.0 } else { most * 1e-5 };
        let found = summed(&case);
        for (rank, sums) in found.iter().enumerate() {
            prop_assert_eq!(sums, &found[0], "rank {} differs from rank 0", rank);
            for (sum, expected) in sums.iter().zip(expected) {
                prop_assert!((sum - expected).abs() <= bound, "rank {rank}: {sum}, not {expected}");
            }
        }
    }
}
