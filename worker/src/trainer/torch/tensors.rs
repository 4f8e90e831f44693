//! The bridge from plain arrays to tensors.
//!
//! For a GPU lengths are rounded up, for two reasons: its attention kernel reads rows of a multiple of 16, and few different shapes
//! make few recordings. What is added is padding like any other. The tensors lie in pinned memory, so that nobody waits for a copy.

use tch::{Device, Tensor};
use unimse_data::batch::{Batch as Arrays, Modality as ModalityArrays};
use unimse_model::unimse::IGNORED_TARGET;
use unimse_model::{Answers, Batch, Inputs, Labels, Modality, ModalityPart};
use unimse_torch_ext::cuda;

/// The input side of a batch on a device.
pub(super) fn inputs(arrays: &Arrays, device: Device) -> Inputs {
    host_inputs(arrays, device.is_cuda()).map(&|tensor| placed(tensor, device))
}

/// A batch with its targets, one row of tokens a sample, and with labels for heads where there are some; on the host, ready to be copied
/// to a device.
pub(super) fn batch(arrays: &Arrays, targets: &[Vec<i64>], labels: &[Labels], device: Device) -> Batch {
    let longest = targets.iter().map(Vec::len).max().unwrap_or(0);
    let longest = if device.is_cuda() { rung(longest) } else { longest };
    let padded = targets
        .iter()
        .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(IGNORED_TARGET, longest - row.len())));
    let padded: Vec<i64> = padded.collect();
    let targets = Tensor::from_slice(&padded).view([targets.len() as i64, longest as i64]);
    let answers = (!labels.is_empty()).then(|| Answers::of(labels));
    let batch = Batch { inputs: host_inputs(arrays, device.is_cuda()), targets, answers };
    if device.is_cuda() { batch.map(&|tensor| pinned(tensor)) } else { batch }
}

/// The batch on a device; the copies are only queued where it is in pinned memory.
pub(super) fn to_device(batch: &Batch, device: Device) -> Batch {
    batch.map(&|tensor| queued(tensor, device))
}

/// Memory of a device with the numbers of a tensor, which nobody else has.
pub(super) fn to_device_for_good(tensor: &Tensor, device: Device) -> Tensor {
    tensor.to_device_(device, tensor.kind(), false, true)
}

/// A tensor of the host on a device.
pub(super) fn placed(tensor: &Tensor, device: Device) -> Tensor {
    if device.is_cuda() { queued(&pinned(tensor), device) } else { tensor.shallow_clone() }
}

fn queued(tensor: &Tensor, device: Device) -> Tensor {
    tensor.to_device_(device, tensor.kind(), true, false)
}

/// Pageable memory does as well, but the copy is waited for.
fn pinned(tensor: &Tensor) -> Tensor {
    cuda::pinned(tensor).unwrap_or_else(|_| tensor.shallow_clone())
}

/// The length that a sequence gets: 1, or the next multiple of 16, from 128 on of an eighth to a quarter of itself.
fn rung(length: usize) -> usize {
    let step = if length <= 128 { 16 } else { length.next_power_of_two() / 8 };
    if length <= 1 { length } else { length.next_multiple_of(step) }
}

fn host_inputs(arrays: &Arrays, rounded: bool) -> Inputs {
    let shape = [arrays.input.rows as i64, arrays.input.columns as i64];
    let wider = if rounded { rung(arrays.input.columns) - arrays.input.columns } else { 0 };
    // Padding is 0 in both.
    let matrix = |values: &[i64]| longer(Tensor::from_slice(values).view(shape), &[0, wider as i64]);
    Inputs {
        input_ids: matrix(&arrays.input.ids),
        attention_mask: matrix(&arrays.input.mask),
        acoustic: modality(&arrays.acoustic, rounded),
        visual: modality(&arrays.visual, rounded),
    }
}

fn modality(arrays: &ModalityArrays, rounded: bool) -> Modality {
    let part = |group: &unimse_data::batch::FeatureGroup| {
        let shape = [group.rows.len() as i64, group.frames as i64, group.dim as i64];
        let more = if rounded { rung(group.frames) - group.frames } else { 0 };
        ModalityPart {
            rows: Tensor::from_slice(&group.rows),
            features: longer(Tensor::from_slice(&group.data).view(shape), &[0, 0, 0, more as i64]),
            lengths: Tensor::from_slice(&group.lengths),
        }
    };
    Modality { parts: arrays.groups.iter().map(part).collect() }
}

/// Adds zeros, given as libtorch wants it: before and after, the last dimension first.
fn longer(tensor: Tensor, by: &[i64]) -> Tensor {
    if by.iter().all(|&count| count == 0) { tensor } else { tensor.constant_pad_nd(by) }
}

#[cfg(test)]
mod tests {
    use unimse_data::batch::{FeatureGroup, Tokens};

    use super::*;

    #[test]
    fn lengths_for_a_gpu_are_few_and_not_much_longer() {
        assert_eq!([0, 1, 2, 16, 17, 128, 129, 150, 257, 300].map(rung), [0, 1, 16, 16, 32, 128, 160, 160, 320, 320]);
        for length in 16..2000 {
            let found = rung(length);
            assert!(
                found >= length && found.is_multiple_of(16) && (length < 64 || found <= length + length / 4),
                "{length} {found}"
            );
        }
    }

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

        let rounded = host_inputs(&arrays, true);
        assert_eq!(rounded.input_ids.size(), [2, 16]);
        assert_eq!(numbers(&rounded.attention_mask.sum_dim_intlist(1, false, tch::Kind::Int64)), [2, 1]);
        assert_eq!(rounded.acoustic.parts[0].features.size(), [1, 1, 2], "one frame stays one");
    }
}
