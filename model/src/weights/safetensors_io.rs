//! The safetensors format, between bytes and tensors.

use std::borrow::Cow;
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use safetensors::tensor::{SafeTensors, View};
use safetensors::{Dtype, SafeTensorError};
use tch::{Device, Kind, Tensor, nn};

use super::{buffers, parameters};
use crate::Error;

/// Reads all tensors of a safetensors file onto the CPU, sorted by name.
pub fn read_safetensors(bytes: &[u8]) -> Result<Vec<(String, Tensor)>, Error> {
    let file = SafeTensors::deserialize(bytes).map_err(Error::Safetensors)?;
    let mut tensors: Vec<(String, Tensor)> = file
        .iter()
        .map(|(name, view)| Ok((name.to_owned(), tensor_of(name, view.dtype(), view.shape(), view.data())?)))
        .collect::<Result<_, Error>>()?;
    tensors.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(tensors)
}

/// Everything that a file of weights holds.
fn all(store: &nn::VarStore) -> Vec<(String, Tensor)> {
    parameters(store).into_iter().chain(buffers(store)).collect()
}

/// Makes a tensor on the CPU of what a file says.
fn tensor_of(name: &str, dtype: Dtype, shape: &[usize], data: &[u8]) -> Result<Tensor, Error> {
    let kind = kind_of(dtype).ok_or_else(|| Error::Dtype { name: name.to_owned(), dtype: format!("{dtype:?}") })?;
    let size: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
    Ok(Tensor::f_from_data_size(data, &size, kind)?)
}

/// Returns all parameters as the bytes of a safetensors file that transformers reads; a tied output layer is not in it.
pub fn to_safetensors(store: &nn::VarStore) -> Result<Vec<u8>, Error> {
    safetensors::serialize(views(all(store))?, Some(metadata())).map_err(Error::Safetensors)
}

/// Writes all parameters to a file at `path`; see [`to_safetensors`].
pub fn write_safetensors(store: &nn::VarStore, path: &Path) -> Result<(), Error> {
    write_tensors(all(store), path)
}

/// Writes tensors to a file at `path` in the order of its format.
pub fn write_tensors(tensors: Vec<(String, Tensor)>, path: &Path) -> Result<(), Error> {
    let fail = |source| Error::Io { path: path.to_owned(), source };
    safetensors::serialize_to_file(views(tensors)?, Some(metadata()), path).map_err(|error| match error {
        SafeTensorError::IoError(source) => fail(source),
        other => Error::Safetensors(other),
    })?;
    // The crate goes through a temporary file that only its owner may read; models are for sharing.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).map_err(fail)
}

/// The mark by which transformers knows that the tensors are PyTorch's.
fn metadata() -> HashMap<String, String> {
    HashMap::from([("format".to_owned(), "pt".to_owned())])
}

fn views(tensors: Vec<(String, Tensor)>) -> Result<Vec<(String, HostTensor)>, Error> {
    tensors
        .into_iter()
        .map(|(name, tensor)| {
            let dtype = dtype_of(tensor.kind())
                .ok_or_else(|| Error::Dtype { name: name.clone(), dtype: format!("{:?}", tensor.kind()) })?;
            let shape = tensor.size().iter().map(|&size| size as usize).collect();
            let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
            let mut data = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
            tensor.f_copy_data_u8(&mut data, tensor.numel())?;
            Ok((name, HostTensor { dtype, shape, data }))
        })
        .collect()
}

struct HostTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl View for HostTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// The types that a checkpoint may hold.
const TYPES: [(Dtype, Kind); 10] = [
    (Dtype::F32, Kind::Float),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::F16, Kind::Half),
    (Dtype::F64, Kind::Double),
    (Dtype::I64, Kind::Int64),
    (Dtype::I32, Kind::Int),
    (Dtype::I16, Kind::Int16),
    (Dtype::I8, Kind::Int8),
    (Dtype::U8, Kind::Uint8),
    (Dtype::BOOL, Kind::Bool),
];

pub(super) fn kind_of(dtype: Dtype) -> Option<Kind> {
    TYPES.iter().find(|(known, _)| *known == dtype).map(|(_, kind)| *kind)
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    TYPES.iter().find(|(_, known)| *known == kind).map(|(dtype, _)| *dtype)
}
