//! The bridge from plain arrays to tensors.

use tch::{Device, Tensor};
use unimse_data::batch::{Batch as Arrays, Modality as ModalityArrays};
use unimse_model::unimse::IGNORED_TARGET;
use unimse_model::{Answers, Batch, Inputs, Labels, Modality, ModalityPart};

/// The input side of a batch on a device.
pub(super) fn inputs(arrays: &Arrays, device: Device) -> Inputs {
    let shape = [arrays.input.rows as i64, arrays.input.columns as i64];
    let matrix = |values: &[i64]| Tensor::from_slice(values).view(shape).to_device(device);
    Inputs {
        input_ids: matrix(&arrays.input.ids),
        attention_mask: matrix(&arrays.input.mask),
        acoustic: modality(&arrays.acoustic, device),
        visual: modality(&arrays.visual, device),
    }
}

/// A batch with its targets, one row of tokens a sample, and with labels for heads where there are some; on a device.
pub(super) fn batch(arrays: &Arrays, targets: &[Vec<i64>], labels: &[Labels], device: Device) -> Batch {
    let longest = targets.iter().map(Vec::len).max().unwrap_or(0);
    let padded = targets
        .iter()
        .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(IGNORED_TARGET, longest - row.len())));
    let padded: Vec<i64> = padded.collect();
    let targets = Tensor::from_slice(&padded).view([targets.len() as i64, longest as i64]).to_device(device);
    let answers = (!labels.is_empty()).then(|| Answers::of(labels).to_device(device));
    Batch { inputs: inputs(arrays, device), targets, answers }
}

fn modality(arrays: &ModalityArrays, device: Device) -> Modality {
    let part = |group: &unimse_data::batch::FeatureGroup| {
        let shape = [group.rows.len() as i64, group.frames as i64, group.dim as i64];
        ModalityPart {
            rows: Tensor::from_slice(&group.rows).to_device(device),
            features: Tensor::from_slice(&group.data).view(shape).to_device(device),
            lengths: Tensor::from_slice(&group.lengths).to_device(device),
        }
    };
    Modality { parts: arrays.groups.iter().map(part).collect() }
}

#[cfg(test)]
mod tests {
    use unimse_data::batch::{FeatureGroup, Tokens};

    use super::*;

    #[test]
    fn arrays_become_tensors_of_the_same_numbers() {
        let tokens = Tokens { rows: 2, columns: 2, ids: vec![5, 1, 1, 0], mask: vec![1, 1, 1, 0] };
        let nothing = ModalityArrays { present: vec![false; 2], dim_group: vec![None; 2], groups: Vec::new() };
        let group =
            FeatureGroup { group: 0, dim: 2, rows: vec![1], lengths: vec![1], frames: 1, data: vec![0.5, -0.5] };
        let arrays = Arrays {
            ids: vec!["a".to_owned(), "b".to_owned()],
            input: tokens.clone(),
            target: tokens,
            targets: vec![String::new(); 2],
            acoustic: ModalityArrays { groups: vec![group], ..nothing.clone() },
            visual: nothing,
            truncated: 0,
        };
        let batch = batch(&arrays, &[vec![7, 8, 1], vec![9, 1]], &[], Device::Cpu);
        let numbers = |tensor: &Tensor| Vec::<i64>::try_from(tensor.flatten(0, -1)).unwrap();
        assert_eq!(numbers(&batch.inputs.input_ids), [5, 1, 1, 0]);
        assert_eq!(numbers(&batch.targets), [7, 8, 1, 9, 1, IGNORED_TARGET]);
        let part = &batch.inputs.acoustic.parts[0];
        assert_eq!(
            (part.features.size(), numbers(&part.rows), numbers(&part.lengths)),
            (vec![1, 1, 2], vec![1], vec![1])
        );
        assert!(batch.inputs.visual.parts.is_empty());
    }
}
