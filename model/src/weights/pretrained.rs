//! Starting from a published T5.

use tch::nn;

use super::{LoadReport, WeightFiles};
use crate::Error;
use crate::config::Config;

/// The names under which old checkpoints repeat the embedding.
const EMBEDDINGS: [&str; 3] = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];

/// Tells whether a parameter is not T5's own: fusion, encoders, contrastive projections, low-rank updates, heads.
pub fn is_added(name: &str) -> bool {
    ["acoustic.", "visual.", "contrastive.", "heads."].iter().any(|start| name.starts_with(start))
        || [".fusion.", ".lora_A.", ".lora_B."].iter().any(|part| name.contains(part))
}

/// Fills the T5 part of a model from the weights of a Hugging Face directory. What UniMSE adds keeps its initial values, and is
/// what the report lists as missing, unless the directory has it too.
///
/// Fails if a tensor of the T5 part is missing or has another shape.
pub fn initialise_from_t5(
    store: &nn::VarStore,
    config: &Config,
    mut weights: WeightFiles,
) -> Result<LoadReport, Error> {
    unify_embeddings(&mut weights);
    if config.t5.tie_word_embeddings {
        drop_tied_output(&mut weights)?;
    }
    let mut needed: Vec<String> =
        store.variables().into_keys().filter(|name| !is_added(name) && !weights.contains(name)).collect();
    if !needed.is_empty() {
        needed.sort_unstable();
        return Err(Error::Missing { names: needed });
    }
    weights.load_into(store)
}

/// Keeps one embedding under its proper name.
fn unify_embeddings(weights: &mut WeightFiles) {
    if let Some(first) = EMBEDDINGS.iter().find(|name| weights.contains(name)) {
        weights.rename(first, EMBEDDINGS[0]);
        for copy in &EMBEDDINGS[1..] {
            weights.remove(copy);
        }
    }
}

/// Drops a copy of the embedding that is stored as the output layer, and refuses one that is no copy: ignoring it would
/// give another model.
fn drop_tied_output(weights: &mut WeightFiles) -> Result<(), Error> {
    let Some(output) = weights.read("lm_head.weight")? else { return Ok(()) };
    weights.remove("lm_head.weight");
    if weights.read(EMBEDDINGS[0])?.is_some_and(|shared| shared == output) {
        return Ok(());
    }
    Err(Error::Config {
        field: "tie_word_embeddings",
        problem: "is true, but the weights have an `lm_head.weight` that is not the embedding".to_owned(),
        hint: "set it to false; transformers 5 writes true for every T5, also for v1.1".to_owned(),
    })
}
