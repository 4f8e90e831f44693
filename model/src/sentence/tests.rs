use std::collections::BTreeMap;

use super::*;
use crate::unimse::fixtures::generator;
use crate::weights::{read_safetensors, write_tensors};

/// What transformers computed, as `tests/golden/make_bert.py` kept it.
fn golden() -> (String, BTreeMap<String, Tensor>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bert.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let config = metadata.metadata().as_ref().unwrap()["config"].clone();
    (config, read_safetensors(&bytes).unwrap().into_iter().collect())
}

fn folder(config: &str, tensors: &BTreeMap<String, Tensor>, prefix: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let weights = tensors
        .iter()
        .filter_map(|(name, tensor)| Some((format!("{prefix}{}", name.strip_prefix("weights.")?), tensor.copy())));
    write_tensors(weights.collect(), &folder.path().join("model.safetensors")).unwrap();
    folder
}

#[expect(clippy::print_stdout, reason = "the line is read by `cargo xtask bench golden`")]
#[track_caller]
fn close(what: &str, found: &Tensor, expected: &Tensor) {
    let scale = expected.abs().max().double_value(&[]);
    let error = (found - expected).abs().max().double_value(&[]);
    println!("golden bert.safetensors {what} {:e} 1e-5", error / scale);
    assert!(error <= 1e-5 * scale, "off by {error}, the largest number is {scale}");
}

fn open(folder: &tempfile::TempDir, pooling: Option<Pooling>) -> Result<SentenceEncoder, Error> {
    SentenceEncoder::open(folder.path(), WeightFiles::of_folder(folder.path())?, pooling, Device::Cpu)
}

#[test]
fn states_and_vectors_are_those_of_transformers() {
    let _generator = generator(150);
    let (config, tensors) = golden();
    for (prefix, pooling, name) in
        [("", Pooling::Mean, "mean"), ("bert.", Pooling::Pooler, "pooler"), ("", Pooling::Cls, "cls")]
    {
        let folder = folder(&config, &tensors, prefix);
        let encoder = open(&folder, Some(pooling)).unwrap();
        tch::no_grad(|| {
            let (ids, mask) = (&tensors["ids"], &tensors["mask"]);
            close("states", &(encoder.states(ids, mask) * mask.unsqueeze(2)), &tensors["states"]);
            close(name, &encoder.pooled(ids, mask), &tensors[name]);
            let lengths = encoder.encode(ids, mask).norm_scalaropt_dim(2, -1, false);
            assert!(lengths.allclose(&lengths.ones_like(), 1e-6, 1e-6, false));
        });
    }
}

#[test]
fn the_folder_says_how_it_is_pooled() {
    let _generator = generator(151);
    let (config, tensors) = golden();
    let open = |folder: &tempfile::TempDir| open(folder, None).unwrap().pooling();
    let published = folder(&config, &tensors, "");
    assert_eq!(open(&published), Pooling::Pooler, "the weights have a pooler");
    std::fs::create_dir(published.path().join("1_Pooling")).unwrap();
    let say = |text: &str| std::fs::write(published.path().join("1_Pooling/config.json"), text).unwrap();
    say(r#"{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}"#);
    assert_eq!(open(&published), Pooling::Mean);
    say(r#"{"pooling_mode_cls_token": true}"#);
    assert_eq!(open(&published), Pooling::Cls);
    let bare: BTreeMap<String, Tensor> =
        tensors.iter().filter(|(name, _)| !name.contains("pooler")).map(|(name, t)| (name.clone(), t.copy())).collect();
    assert_eq!(open(&folder(&config, &bare, "")), Pooling::Cls);
}

#[test]
fn what_is_no_bert_or_not_whole_is_refused_by_name() {
    let _generator = generator(152);
    let (config, mut tensors) = golden();
    let roberta = folder(&config.replace("\"bert\"", "\"roberta\""), &tensors, "");
    let error = open(&roberta, None).unwrap_err().to_string();
    assert!(error.contains("model_type") && error.contains("roberta"), "{error}");

    tensors.remove("weights.encoder.layer.1.output.dense.bias");
    let cut = folder(&config, &tensors, "");
    let error = open(&cut, None).unwrap_err().to_string();
    assert!(error.contains("encoder.layer.1.output.dense.bias"), "{error}");
}
