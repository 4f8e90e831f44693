//! The tensors of a state dict, by name.

use std::collections::BTreeMap;

use super::fault::TorchFault;
use crate::read::pickle::{Document, Search, Tensor, Value};

/// Under which keys training scripts put the state dict of a model.
const WRAPPERS: [&str; 2] = ["state_dict", "model"];

/// Finds the tensors of a file, whose root is a state dict or has one under a known key.
pub(super) fn tensors(document: &Document) -> Result<BTreeMap<String, Tensor<'_>>, TorchFault> {
    let root = Level::of(document, document.root(), "")?;
    if let (true, [(key, inner)]) = (root.tensors.is_empty(), root.nested.as_slice())
        && WRAPPERS.contains(&key.as_str())
        && inner.entries().is_some()
    {
        return Level::of(document, *inner, &format!("{key}."))?.flat();
    }
    root.flat()
}

/// What one dict holds.
struct Level<'d> {
    tensors: BTreeMap<String, Tensor<'d>>,
    /// Values that hold tensors somewhere inside.
    nested: Vec<(String, Value<'d>)>,
}

impl<'d> Level<'d> {
    fn of(document: &'d Document, dict: Value<'d>, path: &str) -> Result<Self, TorchFault> {
        let entries = dict.entries().ok_or_else(|| TorchFault::NotADict { found: dict.kind() })?;
        let mut search = Search::new(document);
        let mut level = Self { tensors: BTreeMap::new(), nested: Vec::new() };
        for (key, value) in entries {
            if let Some(tensor) = value.tensor() {
                let name = key.text().map_err(|_| TorchFault::Unnamed { found: key.kind() })?;
                if level.tensors.contains_key(&name) {
                    return Err(TorchFault::Twice { tensor: name });
                }
                level.tensors.insert(name, tensor);
            } else if search.finds(value) {
                let name = key.label().unwrap_or_else(|_| key.kind().to_owned());
                level.nested.push((format!("{path}{name}"), value));
            }
        }
        Ok(level)
    }

    /// The tensors, if there are some and no others further inside.
    fn flat(self) -> Result<BTreeMap<String, Tensor<'d>>, TorchFault> {
        // What stands beside a model's dict is named before the dict itself, which would have been read alone.
        let beside = self.nested.iter().find(|(key, _)| !WRAPPERS.contains(&key.as_str()));
        match beside.or_else(|| self.nested.first()) {
            Some((key, value)) => Err(TorchFault::Nested { key: key.clone(), found: value.kind() }),
            None if self.tensors.is_empty() => Err(TorchFault::NoTensors),
            None => Ok(self.tensors),
        }
    }
}
