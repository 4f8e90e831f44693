use tch::{Device, Kind, Tensor, nn};

use super::*;
use crate::config::{Config, Preset};
use crate::unimse::fixtures::generator;
use crate::weights::read_safetensors;

/// Made by tests/golden/make_t5.py with transformers.
const GOLDEN: &[u8] = include_bytes!("../../tests/golden/t5_v1_0.safetensors");

fn config() -> Config {
    let mut config = Preset::Tiny.config();
    config.t5.d_model = 24;
    config.t5.d_ff = 40;
    config
}

#[test]
fn position_buckets_are_those_of_transformers() {
    let _generator = generator(101);
    let tensors = read_safetensors(GOLDEN).unwrap();
    let values = |name: &str| -> Vec<i64> {
        let (_, tensor) = tensors.iter().find(|(key, _)| key == name).unwrap();
        Vec::try_from(tensor).unwrap()
    };
    let mut config = config();
    config.t5.relative_attention_num_buckets = 16;
    config.t5.relative_attention_max_distance = 40;
    let store = nn::VarStore::new(Device::Cpu);
    for (name, bidirectional) in [("buckets_encoder", true), ("buckets_decoder", false)] {
        let bias = RelativeBias::new(&(store.root() / name), &config.t5, bidirectional);
        assert_eq!(bias.buckets_of(&values("distances")), values(name), "{name}");
    }
}

#[test]
fn a_causal_bias_hides_exactly_the_later_positions() {
    let _generator = generator(102);
    let store = nn::VarStore::new(Device::Cpu);
    let bias = RelativeBias::new(&store.root(), &config().t5, false);
    let hidden = bias.causal(5).le(f64::from(f32::MIN) / 2.0);
    let expected = Tensor::ones([5, 5], (Kind::Bool, Device::Cpu)).triu(1);
    assert_eq!(hidden, expected.unsqueeze(0).unsqueeze(0).expand_as(&hidden));
}

#[test]
fn the_norm_divides_by_the_root_of_the_mean_square() {
    let _generator = generator(103);
    let store = nn::VarStore::new(Device::Cpu);
    let norm = LayerNorm::new(&store.root(), 4, 1e-6);
    let input = Tensor::from_slice(&[1.0_f32, -2.0, 2.0, 4.0]);
    let expected = &input / (25.0_f64 / 4.0 + 1e-6).sqrt();
    assert!(norm.forward(&input).allclose(&expected, 1e-6, 0.0, false));
}

#[test]
fn a_row_without_any_visible_position_stays_finite() {
    let _generator = generator(104);
    let mask = Tensor::from_slice(&[1_i64, 0, 0, 0]).view([2, 2]);
    for kind in [Kind::Float, Kind::BFloat16, Kind::Half, Kind::Double] {
        let bias = padding_bias(&mask, kind);
        assert_eq!((bias.size(), bias.kind()), (vec![2, 1, 1, 2], kind));
        assert!(bias.isfinite().all().int64_value(&[]) != 0, "{kind:?}");
        assert!((bias - 3.0).softmax(-1, None).isfinite().all().int64_value(&[]) != 0, "{kind:?}");
    }
}

#[test]
fn initial_weights_have_the_deviations_of_t5() {
    let _generator = generator(105);
    let config = Preset::Tiny.config();
    let store = nn::VarStore::new(Device::Cpu);
    let attention = Attention::new(&(store.root() / "a"), &config);
    let feed_forward = FeedForward::new(&(store.root() / "f"), &config.t5);
    let variables = store.variables();
    let check = |name: &str, stdev: f64| {
        let found = variables[name].std(true).double_value(&[]);
        assert!((found / stdev - 1.0).abs() < 0.05, "{name}: {found}, expected {stdev}");
    };
    let model = config.t5.d_model as f64;
    check("a.q.weight", (model * 32.0).powf(-0.5));
    check("a.k.weight", model.powf(-0.5));
    check("a.o.weight", 128_f64.powf(-0.5));
    check("f.DenseReluDense.wi.weight", model.powf(-0.5));
    check("f.DenseReluDense.wo.weight", 256_f64.powf(-0.5));
    drop((attention, feed_forward));
}
