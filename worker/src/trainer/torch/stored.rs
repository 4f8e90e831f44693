//! Tensors of a checkpoint as libtorch's, or why they cannot be.

use tch::{Kind, Tensor};
use unimse_checkpoint::{Dtype, Tensor as StoredTensor};
use unimse_core::job::ExitCause;

use super::super::{failed, invalid};

/// The tensor, which must have 32 bits and this shape.
pub(super) fn tensor(name: &str, tensor: &StoredTensor, shape: &[i64]) -> Result<Tensor, ExitCause> {
    let found: Vec<i64> = tensor.shape.iter().map(|&size| size as i64).collect();
    if tensor.dtype != Dtype::F32 || found != shape {
        return Err(invalid(format!(
            "tensor `{name}` of the checkpoint is {:?} {found:?}, the model needs F32 {shape:?}; hint: resume with the \
             `model` section that the checkpoint was made with",
            tensor.dtype
        )));
    }
    Tensor::f_from_data_size(&tensor.data, shape, Kind::Float).map_err(failed)
}

pub(super) fn missing(name: &str) -> ExitCause {
    invalid(format!(
        "the checkpoint has no tensor `{name}`; hint: resume with the `model.trainable` and `model.lora` that it was made with"
    ))
}
