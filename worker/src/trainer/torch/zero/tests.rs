//! Training with shared moments beside plain training, and their way through checkpoints.

use tch::nn::{self, Module};
use tch::{Device, Kind};
use unimse_collectives::local;
use unimse_core::id::Step;
use unimse_core::spec::{TrainSpec, parse_job};
use unimse_torch_ext::view;

use super::super::optimiser;
use super::super::reducer::{Reducer, Wire};
use super::*;

const WIDTHS: [i64; 5] = [7, 16, 11, 16, 3];
const FULL: usize = 200;

struct Model {
    _store: nn::VarStore,
    layers: Vec<nn::Linear>,
    flat: Flat,
}

fn model() -> Model {
    let store = nn::VarStore::new(Device::Cpu);
    let path = store.root();
    let layer =
        |(place, sizes): (usize, &[i64])| nn::linear(&path / place, sizes[0], sizes[1], nn::LinearConfig::default());
    let layers: Vec<nn::Linear> = WIDTHS.windows(2).enumerate().map(layer).collect();
    let parameters = unimse_model::weights::parameters(&store);
    for (place, (_, tensor)) in parameters.iter().enumerate() {
        let ramp = Tensor::arange(tensor.numel() as i64, (Kind::Float, Device::Cpu)).view(tensor.size().as_slice());
        tch::no_grad(|| tensor.shallow_clone().copy_(&((ramp * 0.7 + place as f64).sin() * 0.4)));
    }
    let flat = Flat::without_moments(parameters, Device::Cpu).unwrap();
    Model { _store: store, layers, flat }
}

fn train(clip: f64, decoupled: bool) -> TrainSpec {
    let text = format!(
        "name: t\nmodel: {{preset: tiny}}\ndata: {{train: [{{path: a.arrow}}]}}\ntrain: {{max_steps: 20, learning_rate: 1e-2, \
         weight_decay: 0.1, clip: {clip}, adam: {{decoupled: {decoupled}}}}}"
    );
    parse_job(&text, "t.yaml").unwrap_or_else(|error| panic!("{error}")).train
}

/// Parameters after 20 steps on every rank, and how many moments each keeps.
fn trained(world: u32, shares: bool, train: &TrainSpec) -> Vec<(Vec<f32>, usize)> {
    std::thread::scope(|scope| {
        let run = |(rank, mut group): (usize, local::Local)| {
            tch::set_num_threads(1);
            let Model { layers, mut flat, .. } = model();
            let reducer = Reducer::with_buckets_of(&flat, FULL, Wire::F32).unwrap();
            let reducer = if shares { reducer.scattering() } else { reducer };
            assert!(reducer.ranges().len() > 2);
            let whole = std::iter::once(0..flat.parameters.numel()).collect();
            flat.keep(if shares { own(reducer.ranges(), rank as u32, world) } else { whole });
            for step in 1..=20 {
                flat.clear();
                let input = Tensor::arange(14, (Kind::Float, Device::Cpu)).view([2, 7]);
                let input = (input + f64::from(step) + rank as f64 * 0.3).sin();
                let loss = layers.iter().fold(input, |x, layer| layer.forward(&x).tanh()).square().sum(Kind::Float);
                if reducer.overlaps(&group) {
                    reducer.during(&mut group, || loss.backward()).unwrap();
                } else {
                    loss.backward();
                    reducer.all(&mut group).unwrap();
                }
                let step = Step(step as u64);
                if shares {
                    let norm = norm(&flat, &mut group).unwrap();
                    optimiser::update_with(&mut flat, norm, train, step, 20).unwrap();
                    reducer.gather(&flat.parameters, &mut group).unwrap();
                } else {
                    optimiser::update(&mut flat, train, step, 20).unwrap();
                }
            }
            (view::host::<f32>(&flat.parameters).unwrap().to_vec(), flat.averages.numel())
        };
        let threads: Vec<_> =
            local::group(world, 1).into_iter().enumerate().map(|rank| scope.spawn(move || run(rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn ranks_with_shares_of_the_moments_train_as_ranks_with_all_of_them() {
    for world in [1, 2, 3, 4] {
        for (clip, decoupled, bound) in [(0.0, true, 0.0), (0.05, true, 2e-6), (0.05, false, 2e-6)] {
            let train = train(clip, decoupled);
            let (plain, shared) = (trained(world, false, &train), trained(world, true, &train));
            let total = plain[0].1;
            assert_eq!(shared.iter().map(|(_, moments)| moments).sum::<usize>(), total);
            for (rank, (parameters, moments)) in shared.iter().enumerate() {
                assert!(moments.abs_diff(total / world as usize) <= 16, "rank {rank} keeps {moments} of {total}");
                assert_eq!(parameters, &shared[0].0, "rank {rank} of {world}");
                for (found, expected) in parameters.iter().zip(&plain[0].0) {
                    assert!((found - expected).abs() <= bound, "world {world}, clip {clip}: {found} {expected}");
                }
            }
        }
    }
}

const PREFIX: &str = "optimizer.exp_avg.";

/// What ranks of a world write of a moment that counts from 0.
fn written(flat: &Flat, buckets: &[Range<usize>], world: u32) -> Vec<(String, Stored)> {
    let stored = |piece: Piece| {
        let spec = piece.spec(PREFIX, &flat.entries);
        let data: Vec<u8> = piece.range.flat_map(|place| (place as f32).to_le_bytes()).collect();
        (spec.name, Stored { dtype: spec.dtype, shape: spec.shape, data: data.into() })
    };
    Piece::all(&flat.entries, buckets, world).into_iter().map(stored).collect()
}

fn read(flat: &Flat, found: Vec<(String, Stored)>) -> Result<Vec<f32>, ExitCause> {
    let moment = flat.averages.ones_like() * -1.0;
    let found = found.into_iter().filter(|(name, _)| wants(flat, PREFIX, name));
    fill(flat, PREFIX, &moment, found)?;
    Ok(view::host::<f32>(&moment).unwrap().to_vec())
}

#[test]
fn moments_of_any_number_of_ranks_are_read_by_any_other() {
    let mut flat = model().flat;
    let buckets: Vec<Range<usize>> = Reducer::with_buckets_of(&flat, FULL, Wire::F32).unwrap().ranges().to_vec();
    for (writers, readers) in [(1, 1), (3, 2), (2, 5), (4, 1)] {
        for rank in 0..readers {
            flat.keep(own(&buckets, rank, readers));
            let found = read(&flat, written(&flat, &buckets, writers)).unwrap();
            for (range, at) in flat.entries.iter().flat_map(|entry| flat.kept(entry.range())) {
                let numbers = &found[at..at + range.len()];
                assert!(range.zip(numbers).all(|(place, number)| place as f32 == *number), "rank {rank} of {readers}");
            }
        }
    }
}

#[test]
fn a_piece_that_is_missing_or_does_not_fit_is_named() {
    let mut flat = model().flat;
    let buckets: Vec<Range<usize>> = Reducer::with_buckets_of(&flat, FULL, Wire::F32).unwrap().ranges().to_vec();
    flat.keep(own(&buckets, 0, 1));
    let mut found = written(&flat, &buckets, 3);
    let (lost, _) = found.swap_remove(4);
    let (whole, _) = part_of(&lost);
    let error = read(&flat, found.clone()).unwrap_err().to_string();
    assert!(error.contains(whole), "{error}");
    found[0].0 = format!("{}[0:100000]", part_of(&found[0].0).0);
    let error = read(&flat, found).unwrap_err().to_string();
    assert!(error.contains("goes beyond"), "{error}");
}

#[test]
fn names_of_pieces_are_told_from_those_of_tensors() {
    assert_eq!(part_of("a.weight[3:17]"), ("a.weight", Some(3..17)));
    for name in ["a.weight", "a[b]", "a[1:x]", "a[1:2"] {
        assert_eq!(part_of(name), (name, None));
    }
}
