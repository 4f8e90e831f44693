//! Starting from a published T5.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use tch::{Tensor, nn};

use super::{LoadReport, load_tensors, read_safetensors};
use crate::Error;
use crate::config::Config;

/// The names under which old checkpoints repeat the embedding.
const EMBEDDINGS: [&str; 3] = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];

/// Parts of parameter names that no T5 has.
const OURS: [&str; 4] = [".fusion.", "acoustic.", "visual.", "contrastive."];

/// The index of a checkpoint in several files.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Fills the T5 part of a model from a Hugging Face directory (`model.safetensors`, or several files with
/// `model.safetensors.index.json`). What UniMSE adds keeps its initial values, and is what the report lists as
/// missing, unless the directory has it too.
///
/// Fails if a tensor of the T5 part is missing or has another shape.
pub fn initialise_from_t5(store: &nn::VarStore, config: &Config, directory: &Path) -> Result<LoadReport, Error> {
    let mut tensors = BTreeMap::new();
    for file in files(directory)? {
        tensors.extend(read_safetensors(&read(&directory.join(file))?)?);
    }
    unify_embeddings(&mut tensors);
    if config.t5.tie_word_embeddings {
        drop_tied_output(&mut tensors)?;
    }
    let needed: Vec<String> = store
        .variables()
        .into_keys()
        .filter(|name| !OURS.iter().any(|part| name.contains(part)) && !tensors.contains_key(name))
        .collect();
    if !needed.is_empty() {
        let mut names = needed;
        names.sort_unstable();
        return Err(Error::Missing { names });
    }
    load_tensors(store, tensors.into_iter().collect())
}

fn files(directory: &Path) -> Result<Vec<String>, Error> {
    let index = directory.join("model.safetensors.index.json");
    if !index.is_file() {
        return Ok(vec!["model.safetensors".to_owned()]);
    }
    let index: Index = serde_json::from_slice(&read(&index)?).map_err(Error::ConfigJson)?;
    let mut files: Vec<String> = index.weight_map.into_values().collect();
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// Keeps one embedding under its proper name.
fn unify_embeddings(tensors: &mut BTreeMap<String, Tensor>) {
    let mut found: Vec<Tensor> = EMBEDDINGS.iter().filter_map(|name| tensors.remove(*name)).collect();
    if !found.is_empty() {
        tensors.insert(EMBEDDINGS[0].to_owned(), found.swap_remove(0));
    }
}

/// Drops a copy of the embedding that is stored as the output layer, and refuses one that is no copy: ignoring it would
/// give another model.
fn drop_tied_output(tensors: &mut BTreeMap<String, Tensor>) -> Result<(), Error> {
    let Some(output) = tensors.remove("lm_head.weight") else { return Ok(()) };
    if tensors.get(EMBEDDINGS[0]).is_some_and(|shared| *shared == output) {
        return Ok(());
    }
    Err(Error::Config {
        field: "tie_word_embeddings",
        problem: "is true, but the weights have an `lm_head.weight` that is not the embedding".to_owned(),
        hint: "set it to false; transformers 5 writes true for every T5, also for v1.1".to_owned(),
    })
}
