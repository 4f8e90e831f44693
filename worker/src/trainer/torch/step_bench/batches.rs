//! The batches and weights that a peer has prepared in a folder.

use std::path::Path;

use serde::Deserialize;
use tch::{Device, Tensor, nn};
use unimse_model::unimse::IGNORED_TARGET;
use unimse_model::{Batch, Config, Inputs, Modality, ModalityPart, weights};

/// A sample as `batches.json` has it.
#[derive(Debug, Deserialize)]
pub(super) struct Sample {
    input: Vec<i64>,
    labels: Vec<i64>,
    acoustic: Option<Vec<f32>>,
    visual: Option<Vec<f32>>,
}

#[derive(Debug, Deserialize)]
struct Steps {
    steps: Vec<Vec<Sample>>,
}

#[derive(Debug, Deserialize)]
struct Frozen {
    last_blocks: i64,
}

/// The rows of a rank of `batch.safetensors`.
pub(super) fn fixed(folder: &Path, (rank, world): (u32, u32)) -> Result<Batch, String> {
    let tensors = Tensor::read_safetensors(folder.join("batch.safetensors")).map_err(|error| error.to_string())?;
    let get = |name: &str| {
        let found = tensors.iter().find(|(known, _)| known == name);
        let whole = found.map(|(_, tensor)| tensor).ok_or_else(|| format!("the batch has no `{name}`"))?;
        let rows = whole.size()[0] / i64::from(world);
        Ok::<_, String>(whole.narrow(0, i64::from(rank) * rows, rows).contiguous())
    };
    let none = || Modality { parts: Vec::new() };
    let (input_ids, attention_mask) = (get("input_ids")?, get("attention_mask")?);
    let inputs = Inputs { input_ids, attention_mask, acoustic: none(), visual: none() };
    Ok(Batch { inputs, targets: get("labels")?.to_kind(tch::Kind::Int64), answers: None })
}

/// The global batches of `batches.json`.
pub(super) fn steps(folder: &Path) -> Result<Vec<Vec<Sample>>, String> {
    let text = std::fs::read(folder.join("batches.json")).map_err(|error| error.to_string())?;
    serde_json::from_slice::<Steps>(&text).map(|steps| steps.steps).map_err(|error| error.to_string())
}

/// Cuts a global batch into micro-shards of like length, and counts its target tokens and samples.
pub(super) fn shards(mut samples: Vec<Sample>, micro: usize) -> (Vec<Batch>, (f64, f64)) {
    samples.sort_by_key(|sample| sample.input.len());
    let tokens: usize = samples.iter().map(|sample| sample.labels.len()).sum();
    (samples.chunks(micro.max(1)).map(batch).collect(), (tokens as f64, samples.len() as f64))
}

fn batch(samples: &[Sample]) -> Batch {
    let matrix = |rows: Vec<&[i64]>, filler: i64| {
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let padded: Vec<i64> = rows
            .iter()
            .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(filler, longest - row.len())))
            .collect();
        Tensor::from_slice(&padded).view([rows.len() as i64, longest as i64])
    };
    let ones: Vec<Vec<i64>> = samples.iter().map(|sample| vec![1; sample.input.len()]).collect();
    let modality = |feature: fn(&Sample) -> Option<&Vec<f32>>| {
        let present: Vec<(i64, &Vec<f32>)> =
            (0..).zip(samples).filter_map(|(row, sample)| Some((row, feature(sample)?))).collect();
        let Some((_, first)) = present.first() else { return Modality { parts: Vec::new() } };
        let (count, width) = (present.len() as i64, first.len() as i64);
        let rows: Vec<i64> = present.iter().map(|(row, _)| *row).collect();
        let values: Vec<f32> = present.iter().flat_map(|(_, values)| values.iter().copied()).collect();
        let part = ModalityPart {
            rows: Tensor::from_slice(&rows),
            features: Tensor::from_slice(&values).view([count, 1, width]),
            lengths: Tensor::ones([count], (tch::Kind::Int64, Device::Cpu)),
        };
        Modality { parts: vec![part] }
    };
    let inputs = Inputs {
        input_ids: matrix(samples.iter().map(|sample| sample.input.as_slice()).collect(), 0),
        attention_mask: matrix(ones.iter().map(Vec::as_slice).collect(), 0),
        acoustic: modality(|sample| sample.acoustic.as_ref()),
        visual: modality(|sample| sample.visual.as_ref()),
    };
    let targets = matrix(samples.iter().map(|sample| sample.labels.as_slice()).collect(), IGNORED_TARGET);
    Batch { inputs, targets, answers: None }
}

/// Loads all of a UniMSE's tensors.
pub(super) fn load(store: &nn::VarStore, folder: &Path) -> Result<(), String> {
    let bytes = std::fs::read(folder.join("model.safetensors")).map_err(|error| error.to_string())?;
    let tensors = weights::read_safetensors(&bytes).map_err(|error| error.to_string())?;
    let report = weights::load_tensors(store, tensors).map_err(|error| error.to_string())?;
    report.require_complete().map(drop).map_err(|error| error.to_string())
}

/// The parameters that learn: all, or those of the last blocks where `frozen.json` says so.
pub(super) fn learning(
    parameters: Vec<(String, Tensor)>,
    folder: &Path,
    config: &Config,
) -> Result<Vec<(String, Tensor)>, String> {
    let Ok(text) = std::fs::read(folder.join("frozen.json")) else { return Ok(parameters) };
    let Frozen { last_blocks } = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let learns = |name: &str| {
        let mut parts = name.split('.');
        let blocks = match parts.next() {
            Some("encoder") => config.t5.num_layers,
            Some("decoder") => config.t5.decoder_layers(),
            _ => return false,
        };
        parts.next() == Some("block")
            && parts
                .next()
                .and_then(|block| block.parse::<i64>().ok())
                .is_some_and(|block| block >= blocks - last_blocks)
    };
    let (learning, frozen): (Vec<_>, Vec<_>) = parameters.into_iter().partition(|(name, _)| learns(name));
    for (_, tensor) in &frozen {
        let _ = tensor.set_requires_grad(false);
    }
    Ok(learning)
}
