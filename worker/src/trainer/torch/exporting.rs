//! A folder that transformers loads as it loads any T5, with what UniMSE adds in a file of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tch::{Kind, Tensor};
use unimse_model::{Config, weights};

use super::folder::{ADDED, text, weight_files};

/// The element type of exported weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    Fp32,
    Bf16,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Numbers of T5's own parameters.
    pub t5: usize,
    /// Numbers of what is added to it.
    pub added: usize,
}

/// Writes the model of one folder, pulled or exported, to another, which must be absent or empty.
///
/// `model.safetensors` has T5's own tensors under Hugging Face's names, low-rank updates merged into them; `unimse.safetensors` has
/// the rest. With the tokenizer and its configuration the folder is complete for `from_pretrained`.
pub fn export(from: &Path, to: &Path, precision: Precision) -> Result<Exported, String> {
    let files =
        weight_files(from).map_err(|error| format!("cannot read the weights in {}: {error}", from.display()))?;
    let read = |name| text(from, name).map_err(|cause| cause.to_string());
    let config = read("config.json")?;
    let parsed = Config::from_json(&config).map_err(|error| format!("{}/config.json: {error}", from.display()))?;
    let (labels, tokenizer) = (read("labels.json")?, read("tokenizer.json")?);

    let mut tensors = BTreeMap::new();
    for name in files.names() {
        let tensor = files.read(name).map_err(|error| error.to_string())?.ok_or("a tensor is gone")?;
        tensors.insert(name.to_owned(), tensor);
    }
    weights::merge_lora(&mut tensors, &parsed.unimse.lora);
    let kind = match precision {
        Precision::Fp32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    };
    let tensors = tensors.into_iter().map(|(name, tensor)| (name, tensor.to_kind(kind)));
    let (added, t5): (Vec<_>, Vec<_>) = tensors.partition(|(name, _)| weights::is_added(name));
    let numbers = |tensors: &[(String, Tensor)]| tensors.iter().map(|(_, tensor)| tensor.numel()).sum();
    let exported = Exported { t5: numbers(&t5), added: numbers(&added) };

    prepare(to)?;
    let write = |name: &str, text: &str| {
        let path = to.join(name);
        fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    write("config.json", &config_of(&config, &parsed, precision)?)?;
    write("labels.json", &labels)?;
    write("tokenizer.json", &tokenizer)?;
    write("tokenizer_config.json", &pretty(&tokenizer_config()))?;
    write("generation_config.json", &pretty(&generation_config(&parsed)))?;
    if !added.is_empty() {
        weights::write_tensors(added, &to.join(ADDED)).map_err(|error| error.to_string())?;
    }
    // Last, so that a folder that has it is whole.
    weights::write_tensors(t5, &to.join("model.safetensors")).map_err(|error| error.to_string())?;
    Ok(exported)
}

fn prepare(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    let mut entries = fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(format!("{} is not empty; hint: name a new folder", folder.display())),
    }
}

/// The configuration as it was, with what does not hold any more changed.
fn config_of(text: &str, parsed: &Config, precision: Precision) -> Result<String, String> {
    let mut config: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let dtype = match precision {
        Precision::Fp32 => "float32",
        Precision::Bf16 => "bfloat16",
    };
    config["dtype"] = dtype.into();
    // transformers asks for it before it trusts `tie_word_embeddings`.
    config["scale_decoder_outputs"] = parsed.t5.scales_outputs().into();
    if let Some(ours) = config.get_mut("unimse").and_then(Value::as_object_mut) {
        ours.remove("lora");
    }
    Ok(pretty(&config))
}

fn tokenizer_config() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "padding_side": "right",
    })
}

fn generation_config(config: &Config) -> Value {
    json!({
        "decoder_start_token_id": config.t5.decoder_start_token_id,
        "eos_token_id": config.t5.eos_token_id,
        "pad_token_id": config.t5.pad_token_id,
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
