//! Parameters by name: a stable order, loading with errors that name the tensor, and safetensors out.

mod files;
mod merge;
mod pretrained;
mod safetensors_io;

pub use files::{Located, WeightFiles};
pub use merge::merge_lora;
pub use pretrained::{initialise_from_t5, is_added};
pub use safetensors_io::{read_safetensors, to_safetensors, write_safetensors, write_tensors};

use std::collections::{BTreeMap, HashMap, HashSet};

use tch::{Tensor, nn};

use crate::Error;

/// Says which tensors of a load found no partner; both lists are sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// Parameters that kept the values they had.
    pub missing: Vec<String>,
    /// Tensors that no parameter has the name of.
    pub unexpected: Vec<String>,
}

impl LoadReport {
    /// Turns missing and unexpected tensors into an error, for checkpoints of our own, which are complete.
    pub fn require_complete(self) -> Result<(), Error> {
        if !self.missing.is_empty() {
            return Err(Error::Missing { names: self.missing });
        }
        if !self.unexpected.is_empty() {
            return Err(Error::Unexpected { names: self.unexpected });
        }
        Ok(())
    }
}

/// Returns all parameters with their names in the order in which the model creates them, which is the order of the
/// forward pass: equal configurations give equal lists, and gradients become ready roughly from the back.
pub fn parameters(store: &nn::VarStore) -> Vec<(String, Tensor)> {
    let mut names: HashMap<usize, String> =
        store.variables().into_iter().map(|(name, tensor)| (tensor.data_ptr() as usize, name)).collect();
    store
        .trainable_variables()
        .into_iter()
        .filter_map(|tensor| names.remove(&(tensor.data_ptr() as usize)).map(|name| (name, tensor)))
        .collect()
}

/// Returns the tensors that belong to the model but are not trained, sorted by name: the standardisation of features.
pub fn buffers(store: &nn::VarStore) -> Vec<(String, Tensor)> {
    let trained: HashSet<usize> = store.trainable_variables().iter().map(|tensor| tensor.data_ptr() as usize).collect();
    let mut buffers: Vec<(String, Tensor)> =
        store.variables().into_iter().filter(|(_, tensor)| !trained.contains(&(tensor.data_ptr() as usize))).collect();
    buffers.sort_by(|(one, _), (other, _)| one.cmp(other));
    buffers
}

/// Copies tensors into the parameters of the same names, converting element type and device.
///
/// Fails, without having changed anything, if a shape differs.
pub fn load_tensors(store: &nn::VarStore, tensors: Vec<(String, Tensor)>) -> Result<LoadReport, Error> {
    let mut targets: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
    let mut report = LoadReport::default();
    let mut copies = Vec::with_capacity(tensors.len());
    for (name, source) in tensors {
        match targets.remove(&name) {
            Some(target) if target.size() == source.size() => copies.push((target, source)),
            Some(target) => return Err(Error::Shape { name, expected: target.size(), found: source.size() }),
            None => report.unexpected.push(name),
        }
    }
    tch::no_grad(|| copies.iter_mut().try_for_each(|(target, source)| target.f_copy_(source)))?;
    report.missing = targets.into_keys().collect();
    report.unexpected.sort_unstable();
    Ok(report)
}

/// Loads the bytes of a safetensors file; see [`load_tensors`].
pub fn load_safetensors(store: &nn::VarStore, bytes: &[u8]) -> Result<LoadReport, Error> {
    load_tensors(store, read_safetensors(bytes)?)
}

#[cfg(test)]
mod tests;
