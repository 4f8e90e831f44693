//! `pytorch_model.bin`: what `torch.save` wrote, read without Python and without running anything.
//!
//! The file is a zip archive of a pickle and of storages, the bytes of tensors in a row. The pickle, `<name>/data.pkl`, is decoded by
//! [`pickle`](crate::read::pickle), which knows the few functions that make tensors and refuses all others by name. The
//! storages, `<name>/data/<key>`, are not compressed: a tensor is a range of bytes of the file, and nothing of it is read here.
//!
//! - `archive` finds entries in the file, `state` finds tensors in the pickle, `fault` says what can be wrong.
//! - `folder` knows the files of a published model, which may have been cut into several.
//!
//! Every count is bounded and every length compared with the file: reading one takes memory by its tensors' number, not by their size.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use self::archive::Archive;
use crate::error::Error;
use crate::read::pickle::{Document, Limits, ReadAt, Tensor};

mod archive;
mod fault;
mod folder;
mod state;

pub use crate::read::pickle::TorchDtype;
pub use fault::TorchFault;
pub use folder::torch_files_of;

#[cfg(test)]
mod tests;

/// A tensor takes some twenty values: enough for two hundred thousand of them, and below a gigabyte of memory at worst.
const LIMITS: Limits = Limits { depth: 64, items: 4_000_000, memo: 4_000_000, bytes: 256 << 20, text: 4096 };

/// A tensor and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TorchTensor {
    /// Its name in the state dict, such as `encoder.layer.0.attention.self.query.weight`.
    pub name: String,
    /// What its elements are.
    pub dtype: TorchDtype,
    /// The lengths of its axes; none for a single number.
    pub shape: Vec<usize>,
    /// Its bytes in the file: the elements in C order, little-endian. Tied tensors have the same.
    pub span: Range<u64>,
}

/// Finds the tensors of a file that `torch.save` (1.6 or newer) wrote, sorted by name.
///
/// The file holds a state dict, or a dict with all of its tensors in a state dict under `state_dict` or `model`. What is
/// no tensor is passed over, but only if it is plain data.
pub fn read_torch_file(path: &Path) -> Result<Vec<TorchTensor>, Error> {
    let file = File::open(path).map_err(|cause| Error::io("open", path, cause))?;
    read(Arc::new(file)).map_err(|fault| Error::TorchFile { path: path.display().to_string(), fault })
}

fn read(source: Arc<dyn ReadAt>) -> Result<Vec<TorchTensor>, TorchFault> {
    let archive = Archive::open(source)?;
    let document = Document::torch(archive.pickle()?, LIMITS).map_err(TorchFault::Pickle)?;
    let tensors = state::tensors(&document)?;
    tensors.into_iter().map(|(name, tensor)| place(&archive, name, &tensor)).collect()
}

/// Says where the bytes of a tensor are, if they are in the file and in order.
fn place(archive: &Archive, name: String, tensor: &Tensor<'_>) -> Result<TorchTensor, TorchFault> {
    let storage = archive.storage(tensor.key)?;
    let outside =
        |problem: &str| TorchFault::Outside { tensor: name.clone(), problem: format!("{problem} {:?}", tensor.shape) };
    let size = tensor.dtype.item_size();
    let held = storage.end - storage.start;
    if tensor.items.checked_mul(size).is_none_or(|bytes| bytes > held) {
        let problem = format!("its storage `{}` of {} elements has {held} bytes", tensor.key, tensor.items);
        return Err(TorchFault::Outside { tensor: name, problem });
    }
    let items = items(tensor.shape).ok_or_else(|| outside("no file has room for its shape"))?;
    if !contiguous(tensor) {
        let (shape, strides) = (tensor.shape.to_vec(), tensor.strides.to_vec());
        return Err(TorchFault::Strided { tensor: name, shape, strides });
    }
    let end = tensor.offset.checked_add(items).filter(|end| *end <= tensor.items);
    let end = end.ok_or_else(|| {
        let Tensor { offset, items, .. } = tensor;
        outside(&format!("from element {offset} of {items} there is no room for its shape"))
    })?;
    // Neither overflows: the storage's bytes have been compared with the file's.
    let span = storage.start + tensor.offset * size..storage.start + end * size;
    let shape = tensor.shape.iter().map(|axis| *axis as usize).collect();
    Ok(TorchTensor { name, dtype: tensor.dtype, shape, span })
}

/// How many elements a shape has; an array that is empty along one axis must not be endless along another.
fn items(shape: &[u64]) -> Option<u64> {
    let bound = shape.iter().try_fold(1_u64, |product, axis| product.checked_mul((*axis).max(1)))?;
    (bound < 1 << 48).then(|| shape.iter().product())
}

/// Whether the elements are in C order without gaps, as torch's `is_contiguous` sees it.
fn contiguous(tensor: &Tensor<'_>) -> bool {
    if tensor.shape.contains(&0) {
        return true;
    }
    let mut expected = 1;
    for (axis, stride) in tensor.shape.iter().zip(tensor.strides).rev() {
        // Nobody ever steps along an axis of one.
        if *axis != 1 && *stride != expected {
            return false;
        }
        expected *= axis;
    }
    true
}
