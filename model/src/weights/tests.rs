use tch::{Device, Kind};

use super::*;
use crate::config::Config;
use crate::unimse::fixtures::{config, generator, model};

fn from_folder(store: &nn::VarStore, config: &Config, folder: &tempfile::TempDir) -> Result<LoadReport, Error> {
    initialise_from_t5(store, config, WeightFiles::of_folder(folder.path())?)
}

/// Makes a directory as Hugging Face has it from a plain T5 of our own, with some names changed.
fn t5_directory(config: &Config, change: impl Fn(&mut Vec<(String, Tensor)>)) -> tempfile::TempDir {
    let (store, _model) = model(&plain(config), 30);
    let mut tensors = parameters(&store);
    change(&mut tensors);
    let directory = tempfile::tempdir().unwrap();
    let copy = nn::VarStore::new(Device::Cpu);
    for (name, tensor) in tensors {
        let (folders, leaf) = name.rsplit_once('.').unwrap();
        let path = folders.split('.').fold(copy.root(), |path, folder| path / folder);
        let _ = path.var_copy(leaf, &tensor);
    }
    write_safetensors(&copy, &directory.path().join("model.safetensors")).unwrap();
    directory
}

fn plain(config: &Config) -> Config {
    let mut config = config.clone();
    config.unimse.fusion.layers = 0;
    config.unimse.acoustic.dims.clear();
    config.unimse.visual.dims.clear();
    config
}

fn untied() -> Config {
    let mut config = config();
    config.t5.tie_word_embeddings = false;
    config
}

#[test]
fn a_written_file_loads_back_bit_for_bit_and_says_that_it_is_pytorchs() {
    let _generator = generator(101);
    for config in [config(), untied()] {
        let (store, _model) = model(&config, 31);
        let bytes = to_safetensors(&store).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
        assert_eq!(metadata.tensors().contains_key("lm_head.weight"), !config.t5.tie_word_embeddings);

        let (other, _model) = model(&config, 32);
        load_safetensors(&other, &bytes).unwrap().require_complete().unwrap();
        assert_eq!(parameters(&store), parameters(&other));
        assert!(other.trainable_variables().iter().all(Tensor::requires_grad));
    }
}

#[test]
fn a_wrong_shape_names_the_tensor_and_both_shapes_and_changes_nothing() {
    let _generator = generator(102);
    let (store, _model) = model(&config(), 33);
    let before: Vec<(String, Tensor)> =
        parameters(&store).into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect();
    let mut tensors: Vec<(String, Tensor)> =
        before.iter().map(|(name, tensor)| (name.clone(), tensor.zeros_like())).collect();
    let broken = tensors.iter_mut().find(|(name, _)| name == "visual.proj.weight").unwrap();
    broken.1 = Tensor::zeros([3, 4], (Kind::Float, Device::Cpu));
    let error = load_tensors(&store, tensors).unwrap_err().to_string();
    for part in ["`visual.proj.weight`", "[3, 4]", "[32, 32]", "hint:"] {
        assert!(error.contains(part), "{error}");
    }
    for ((name, found), (_, expected)) in parameters(&store).iter().zip(&before) {
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn missing_and_unexpected_tensors_are_listed_sorted() {
    let _generator = generator(103);
    let (store, _model) = model(&config(), 34);
    let mut tensors = parameters(&store);
    tensors.retain(|(name, _)| !name.starts_with("visual.proj"));
    tensors.push(("b".to_owned(), Tensor::from(0.0)));
    tensors.push(("a".to_owned(), Tensor::from(0.0)));
    let report = load_tensors(&store, tensors).unwrap();
    assert_eq!(report.missing, ["visual.proj.bias", "visual.proj.weight"]);
    assert_eq!(report.unexpected, ["a", "b"]);
    let error = report.require_complete().unwrap_err().to_string();
    assert!(error.contains("2 of the model's tensors") && error.contains("`visual.proj.bias`"), "{error}");
}

#[test]
fn halves_are_widened_when_they_are_loaded() {
    let _generator = generator(104);
    let (mut store, _model) = model(&config(), 35);
    store.bfloat16();
    let bytes = to_safetensors(&store).unwrap();
    let (other, _model) = model(&config(), 36);
    load_safetensors(&other, &bytes).unwrap().require_complete().unwrap();
    for ((name, half), (_, full)) in parameters(&store).iter().zip(parameters(&other)) {
        assert_eq!(full.kind(), Kind::Float, "{name}");
        assert_eq!(half.to_kind(Kind::Float), full, "{name}");
    }
}

#[test]
fn a_published_t5_fills_its_part_and_leaves_ours_as_it_was() {
    let _generator = generator(105);
    for config in [config(), untied()] {
        let directory = t5_directory(&config, |tensors| {
            let copy = |tensors: &mut Vec<(String, Tensor)>, name: &str| {
                let shared = tensors[0].1.shallow_clone();
                tensors.push((name.to_owned(), shared));
            };
            // Old checkpoints repeat the embedding and have a table in cross-attention that nothing reads.
            copy(tensors, "encoder.embed_tokens.weight");
            if config.t5.tie_word_embeddings {
                copy(tensors, "lm_head.weight");
            }
            copy(tensors, "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight");
        });
        let (store, _model) = model(&config, 37);
        let (untouched, _model) = model(&config, 37);
        let report = from_folder(&store, &config, &directory).unwrap();
        assert_eq!(report.unexpected, ["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"]);
        assert!(report.missing.iter().any(|name| name == "encoder.block.1.fusion.out.weight"));
        let (source, _model) = model(&plain(&config), 30);
        let source = source.variables();
        for ((name, found), (_, initial)) in parameters(&store).iter().zip(parameters(&untouched)) {
            let kept = report.missing.contains(name);
            assert_eq!(found, if kept { &initial } else { &source[name] }, "{name}");
            assert_eq!(kept, !source.contains_key(name), "{name}");
        }
    }
}

#[test]
fn a_t5_in_several_files_is_found_through_its_index() {
    let _generator = generator(106);
    let config = config();
    let directory = t5_directory(&config, |_| ());
    let whole = std::fs::read(directory.path().join("model.safetensors")).unwrap();
    let parted = tempfile::tempdir().unwrap();
    let mut index = serde_json::Map::new();
    for part in 0..2 {
        let store = nn::VarStore::new(Device::Cpu);
        let file = format!("model-0000{}-of-00002.safetensors", part + 1);
        for (name, tensor) in read_safetensors(&whole).unwrap().into_iter().skip(part).step_by(2) {
            let (folders, leaf) = name.rsplit_once('.').unwrap();
            let path = folders.split('.').fold(store.root(), |path, folder| path / folder);
            let _ = path.var_copy(leaf, &tensor);
            index.insert(name, file.clone().into());
        }
        write_safetensors(&store, &parted.path().join(&file)).unwrap();
    }
    let index = serde_json::json!({ "metadata": {"total_size": 1}, "weight_map": index });
    std::fs::write(parted.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let (one, _model) = model(&config, 38);
    let (two, _model) = model(&config, 38);
    from_folder(&one, &config, &directory).unwrap();
    from_folder(&two, &config, &parted).unwrap();
    assert_eq!(parameters(&one), parameters(&two));
}

#[test]
fn a_t5_that_lacks_a_tensor_or_hides_its_own_output_layer_is_refused() {
    let _generator = generator(107);
    let config = config();
    let (store, _model) = model(&config, 39);
    let lacking = t5_directory(&config, |tensors| tensors.retain(|(name, _)| !name.contains("decoder.final")));
    let error = from_folder(&store, &config, &lacking).unwrap_err().to_string();
    assert!(error.contains("decoder.final_layer_norm.weight"), "{error}");

    let own_output = t5_directory(&untied(), |_| ());
    let error = from_folder(&store, &config, &own_output).unwrap_err().to_string();
    assert!(error.contains("tie_word_embeddings") && error.contains("lm_head.weight"), "{error}");

    let nothing = tempfile::tempdir().unwrap();
    let error = from_folder(&store, &config, &nothing).unwrap_err().to_string();
    assert!(error.contains("model.safetensors"), "{error}");
}

#[test]
fn a_tensor_of_a_type_that_libtorch_lacks_is_refused_by_name() {
    let _generator = generator(108);
    let header = r#"{"x":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0]].concat();
    let error = read_safetensors(&bytes).unwrap_err().to_string();
    assert!(error.contains("`x`") && error.contains("F8_E4M3"), "{error}");
    assert!(matches!(read_safetensors(&bytes[..20]), Err(Error::Safetensors(_))));
}
