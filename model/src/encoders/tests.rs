use tch::Device;
use tch::nn::VarStore;

use super::*;
use crate::unimse::fixtures::generator;

fn config(bidirectional: bool) -> ModalityConfig {
    ModalityConfig { dims: vec![5, 3], hidden: 6, out: 4, bidirectional, dropout: 0.3, standardise: false }
}

fn encoder(bidirectional: bool) -> (VarStore, ModalityEncoder) {
    let store = VarStore::new(Device::Cpu);
    let encoder = ModalityEncoder::new(&(store.root() / "acoustic"), "acoustic", &config(bidirectional)).unwrap();
    (store, encoder)
}

fn random(size: &[i64]) -> Tensor {
    Tensor::randn(size, (Kind::Float, Device::Cpu))
}

#[track_caller]
fn close(found: &Tensor, expected: &Tensor) {
    assert_eq!(found.size(), expected.size());
    assert!(found.allclose(expected, 1e-5, 1e-6, false), "found {found}, expected {expected}");
}

#[test]
fn parameters_have_pytorchs_names_and_shapes() {
    let _generator = generator(101);
    let (store, _encoder) = encoder(true);
    let mut found: Vec<(String, Vec<i64>)> =
        store.variables().into_iter().map(|(name, tensor)| (name, tensor.size())).collect();
    found.sort();
    let mut expected = vec![
        ("acoustic.input.3.weight".to_owned(), vec![5, 3]),
        ("acoustic.input.3.bias".to_owned(), vec![5]),
        ("acoustic.proj.weight".to_owned(), vec![4, 12]),
        ("acoustic.proj.bias".to_owned(), vec![4]),
    ];
    for suffix in ["l0", "l0_reverse"] {
        expected.push((format!("acoustic.lstm.weight_ih_{suffix}"), vec![24, 5]));
        expected.push((format!("acoustic.lstm.weight_hh_{suffix}"), vec![24, 6]));
        expected.push((format!("acoustic.lstm.bias_ih_{suffix}"), vec![24]));
        expected.push((format!("acoustic.lstm.bias_hh_{suffix}"), vec![24]));
    }
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_ragged_batch_equals_each_sample_alone_with_its_true_length() {
    let _generator = generator(102);
    for bidirectional in [false, true] {
        let (_store, encoder) = encoder(bidirectional);
        let lengths = [7_i64, 1, 4, 9];
        let features = random(&[4, 9, 5]);
        let batch = Modality::uniform(features.shallow_clone(), Tensor::from_slice(&lengths));
        let together = encoder.encode(&batch, 4, false).unwrap();
        for (row, &length) in lengths.iter().enumerate() {
            let alone = features.narrow(0, row as i64, 1).narrow(1, 0, length);
            let alone = Modality::uniform(alone, Tensor::from_slice(&[length]));
            let alone = encoder.encode(&alone, 1, false).unwrap();
            close(&together.utterance.get(row as i64), &alone.utterance.get(0));
            close(&together.mean.get(row as i64), &alone.mean.get(0));
        }
    }
}

#[test]
fn the_states_are_those_of_libtorchs_own_bidirectional_lstm() {
    let _generator = generator(103);
    let (store, encoder) = encoder(true);
    let features = random(&[2, 6, 5]);
    let variables = store.variables();
    let weights: Vec<&Tensor> = ["l0", "l0_reverse"]
        .iter()
        .flat_map(|suffix| {
            ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
                .map(|name| &variables[&format!("acoustic.lstm.{name}_{suffix}")])
        })
        .collect();
    let zero = Tensor::zeros([2, 2, 6], (Kind::Float, Device::Cpu));
    let (outputs, last, _) = features.lstm(&[&zero, &zero], &weights, true, 1, 0.0, false, true, true);
    let state = Tensor::cat(&[last.get(0), last.get(1)], 1);
    let encoded = encoder.encode(&Modality::uniform(features, Tensor::from_slice(&[6_i64, 6])), 2, false).unwrap();
    close(&encoded.utterance, &encoder.proj.forward(&state));
    close(&encoded.mean, &outputs.mean_dim(1, false, Kind::Float));
}

#[test]
fn padding_has_no_influence_on_values_or_gradients() {
    let _generator = generator(104);
    for bidirectional in [false, true] {
        let (store, encoder) = encoder(bidirectional);
        let features = random(&[2, 5, 5]);
        let lengths = Tensor::from_slice(&[5_i64, 2]);
        let longer = Tensor::cat(&[&features, &random(&[2, 4, 5])], 1);
        let gradient = |features: &Tensor| {
            let modality = Modality::uniform(features.shallow_clone(), lengths.shallow_clone());
            let encoded = encoder.encode(&modality, 2, false).unwrap();
            let total = encoded.utterance.square().sum(Kind::Float) + encoded.mean.square().sum(Kind::Float);
            let weight = &store.variables()["acoustic.lstm.weight_ih_l0"];
            (encoded.utterance, Tensor::run_backward(&[total], &[weight], false, false).swap_remove(0))
        };
        let (short_vector, short_gradient) = gradient(&features);
        let (long_vector, long_gradient) = gradient(&longer);
        close(&long_vector, &short_vector);
        close(&long_gradient, &short_gradient);
    }
}

#[test]
fn a_missing_modality_is_a_zero_vector_and_not_present() {
    let _generator = generator(105);
    let (_store, encoder) = encoder(false);
    let part = ModalityPart {
        rows: Tensor::from_slice(&[3_i64, 1]),
        features: random(&[2, 4, 5]),
        lengths: Tensor::from_slice(&[2_i64, 0]),
    };
    let encoded = encoder.encode(&Modality { parts: vec![part] }, 4, false).unwrap();
    assert_eq!(Vec::<f32>::try_from(&encoded.present).unwrap(), [0.0, 0.0, 0.0, 1.0]);
    for row in 0..3 {
        assert_eq!(encoded.utterance.get(row).abs().max().double_value(&[]), 0.0, "row {row}");
        assert_eq!(encoded.mean.get(row).abs().max().double_value(&[]), 0.0, "row {row}");
    }
    assert!(encoded.utterance.get(3).abs().max().double_value(&[]) > 0.0);
    let nothing = encoder.encode(&Modality::default(), 2, false).unwrap();
    assert_eq!(nothing.present.sum(Kind::Float).double_value(&[]), 0.0);
}

#[test]
fn datasets_with_other_feature_dimensions_share_the_lstm() {
    let _generator = generator(106);
    let (_store, encoder) = encoder(false);
    let part = |rows: &[i64], dim: i64| ModalityPart {
        rows: Tensor::from_slice(rows),
        features: random(&[rows.len() as i64, 4, dim]),
        lengths: Tensor::full([rows.len() as i64], 4, (Kind::Int64, Device::Cpu)),
    };
    let mixed = Modality { parts: vec![part(&[0, 2], 5), part(&[1], 3)] };
    let encoded = encoder.encode(&mixed, 3, false).unwrap();
    assert_eq!(encoded.present.sum(Kind::Float).double_value(&[]), 3.0);
    let alone = Modality::uniform(mixed.parts[1].features.shallow_clone(), mixed.parts[1].lengths.shallow_clone());
    close(&encoded.utterance.get(1), &encoder.encode(&alone, 1, false).unwrap().utterance.get(0));

    let error = encoder.encode(&Modality { parts: vec![part(&[0], 7)] }, 1, false).unwrap_err().to_string();
    assert!(error.contains("acoustic features have dimension 7") && error.contains("[5, 3]"), "{error}");
}

#[test]
fn standardised_features_are_shifted_scaled_and_cut() {
    let _generator = generator(109);
    let config = ModalityConfig {
        dims: vec![2],
        hidden: 3,
        out: 3,
        dropout: 0.0,
        standardise: true,
        ..ModalityConfig::default()
    };
    let plain = ModalityConfig { standardise: false, ..config.clone() };
    let store = VarStore::new(Device::Cpu);
    let encoder = ModalityEncoder::new(&(store.root() / "acoustic"), "acoustic", &config).unwrap();
    let buffers = crate::weights::buffers(&store);
    let names: Vec<&str> = buffers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["acoustic.standard.2.mean", "acoustic.standard.2.scale"]);
    assert!(crate::weights::parameters(&store).iter().all(|(name, _)| !name.contains("standard")));
    for ((_, buffer), values) in buffers.iter().zip([[1.0_f32, -2.0], [0.5, 10.0]]) {
        buffer.shallow_clone().copy_(&Tensor::from_slice(&values));
    }
    let raw = Tensor::from_slice(&[3.0_f32, -2.1, 100.0, -1.9]).view([1, 2, 2]);
    let scaled = Tensor::from_slice(&[1.0_f32, -1.0, 3.0, 1.0]).view([1, 2, 2]);

    let other = VarStore::new(Device::Cpu);
    let reference = ModalityEncoder::new(&(other.root() / "acoustic"), "acoustic", &plain).unwrap();
    crate::weights::load_tensors(&other, crate::weights::parameters(&store)).unwrap().require_complete().unwrap();
    let lengths = || Tensor::from_slice(&[2_i64]);
    let found = encoder.encode(&Modality::uniform(raw, lengths()), 1, false).unwrap().utterance;
    let expected = reference.encode(&Modality::uniform(scaled, lengths()), 1, false).unwrap().utterance;
    assert!(found.allclose(&expected, 1e-5, 1e-6, false), "{found} {expected}");
}
