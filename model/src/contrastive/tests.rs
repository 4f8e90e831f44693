use tch::{Device, nn};

use super::*;
use crate::config::Preset;
use crate::unimse::fixtures::generator;

fn random(size: &[i64]) -> Tensor {
    Tensor::randn(size, (Kind::Float, Device::Cpu))
}

/// The loss as its definition reads, in `f64` and one sample at a time.
fn naive(queries: &Tensor, keys: &Tensor, present: &[f32], temperature: f64) -> Tensor {
    let (queries, keys) = (queries.to_kind(Kind::Double), keys.to_kind(Kind::Double));
    let mut total = Tensor::zeros([], (Kind::Double, Device::Cpu));
    for anchor in (0..present.len()).filter(|&row| present[row] == 1.0) {
        let score = |row: usize| {
            let (query, key) = (queries.get(anchor as i64), keys.get(row as i64));
            (&query * &key).sum(Kind::Double) / (query.norm() * key.norm()) / temperature
        };
        let all: Vec<Tensor> =
            (0..present.len()).filter(|&row| present[row] == 1.0).map(|row| score(row).exp()).collect();
        total = total + Tensor::stack(&all, 0).sum(Kind::Double).log() - score(anchor);
    }
    total
}

#[test]
fn info_nce_and_its_gradients_are_those_of_a_plain_loop() {
    let _generator = generator(101);
    for present in [[1.0_f32; 5].to_vec(), vec![1.0, 0.0, 1.0, 1.0, 0.0]] {
        let queries = random(&[5, 7]).set_requires_grad(true);
        let keys = random(&[5, 7]).set_requires_grad(true);
        let loss = info_nce(&unit(&queries), &unit(&keys), &Tensor::from_slice(&present), 0.1).sum(Kind::Float);
        let expected = naive(&queries, &keys, &present, 0.1);
        assert!((loss.double_value(&[]) - expected.double_value(&[])).abs() < 1e-4);
        let gradients = |loss: Tensor| Tensor::run_backward(&[loss], &[&queries, &keys], false, false);
        for (found, expected) in gradients(loss).iter().zip(gradients(expected)) {
            assert!(found.allclose(&expected, 1e-4, 1e-4, false), "found {found}, expected {expected}");
        }
    }
}

#[test]
fn samples_without_the_modality_change_neither_loss_nor_gradient() {
    let _generator = generator(102);
    let (queries, keys) = (unit(&random(&[4, 6])), unit(&random(&[4, 6])));
    let all = info_nce(&queries, &keys, &Tensor::from_slice(&[1.0_f32; 4]), 0.1).sum(Kind::Float);
    let wider = |rows: &Tensor| Tensor::cat(&[rows, &random(&[2, 6])], 0);
    let present = Tensor::from_slice(&[1.0_f32, 1.0, 1.0, 1.0, 0.0, 0.0]);
    let some = info_nce(&wider(&queries), &wider(&keys), &present, 0.1).sum(Kind::Float);
    assert!((all - some).abs().double_value(&[]) < 1e-5);

    let queries = random(&[3, 6]).set_requires_grad(true);
    let absent = Tensor::zeros([3], (Kind::Float, Device::Cpu));
    let none = info_nce(&unit(&queries), &unit(&random(&[3, 6])), &absent, 0.1).sum(Kind::Float);
    assert_eq!(none.double_value(&[]), 0.0);
    none.backward();
    assert_eq!(queries.grad().abs().max().double_value(&[]), 0.0);
}

#[test]
fn the_mean_leaves_out_padding() {
    let _generator = generator(103);
    let states = Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 9.0, 9.0, 5.0, 6.0, 9.0, 9.0, 9.0, 9.0]).view([2, 3, 2]);
    let mask = Tensor::from_slice(&[1_i64, 1, 0, 1, 0, 0]).view([2, 3]);
    let expected = Tensor::from_slice(&[2.0_f32, 3.0, 5.0, 6.0]).view([2, 2]);
    assert_eq!(masked_mean(&states, &mask), expected);
}

#[test]
fn the_blocks_losses_add_up_for_each_modality() {
    let _generator = generator(104);
    let mut config = Preset::Tiny.config();
    config.unimse.acoustic.dims = vec![5];
    config.unimse.visual.dims = vec![5];
    let store = nn::VarStore::new(Device::Cpu);
    let contrastive = Contrastive::new(&(store.root() / "contrastive"), &config).unwrap();
    let mut names: Vec<String> = store.variables().into_keys().collect();
    names.sort();
    assert_eq!(names, ["contrastive.acoustic.weight", "contrastive.text.weight", "contrastive.visual.weight"]);

    let texts = [random(&[3, 128]), random(&[3, 128])];
    let side = EncodedModality {
        utterance: random(&[3, 32]),
        mean: random(&[3, 32]),
        present: Tensor::ones([3], (Kind::Float, Device::Cpu)),
        frames: Tensor::ones([3], (Kind::Int64, Device::Cpu)),
    };
    let loss = |texts: &[Tensor]| contrastive.views(texts, Some(&side), None).losses(0.1);
    let (both, visual) = loss(&texts);
    let separate = loss(&texts[..1]).0 + loss(&texts[1..]).0;
    assert!((both - separate).abs().max().double_value(&[]) < 1e-5);
    assert_eq!(visual.abs().max().double_value(&[]), 0.0, "no visual side was given");
}

#[test]
fn a_model_without_modalities_or_weights_has_no_contrastive_part() {
    let _generator = generator(105);
    let store = nn::VarStore::new(Device::Cpu);
    let mut config = Preset::Tiny.config();
    assert!(Contrastive::new(&store.root(), &config).is_none());
    config.unimse.acoustic.dims = vec![5];
    config.unimse.contrastive.acoustic = 0.0;
    assert!(Contrastive::new(&store.root(), &config).is_none());
    assert!(store.is_empty());
}
