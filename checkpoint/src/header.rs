//! The safetensors header of a shard, written before any tensor's bytes are known.
//!
//! The format is an 8-byte little-endian length, JSON padded with spaces to 8 bytes, then the data of the tensors sorted by type
//! (the wider first) and name. It needs only names, types and shapes, so a shard can be streamed.

use std::collections::{HashMap, HashSet};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::manifest::TensorEntry;

/// The key that safetensors reserves for its free-form metadata.
const RESERVED: &str = "__metadata__";

/// A tensor to come: everything about it but its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name, unique in the checkpoint.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its extent in each dimension; empty for a scalar.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Gives the size of its data in bytes; `None` when that overflows or is not whole.
    pub fn bytes(&self) -> Option<u64> {
        bytes_of(self.dtype, &self.shape)
    }
}

pub(crate) fn bytes_of(dtype: Dtype, shape: &[usize]) -> Option<u64> {
    let bits = shape.iter().try_fold(dtype.bitsize() as u64, |bits, &extent| bits.checked_mul(extent as u64))?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// A header and the places of the tensors that follow it.
#[derive(Debug)]
pub(crate) struct Header {
    /// The first bytes of the file, up to the first tensor.
    pub(crate) bytes: Vec<u8>,
    /// The tensors in the order of the file.
    pub(crate) entries: Vec<TensorEntry>,
    /// The size of the whole file in bytes.
    pub(crate) total: u64,
}

/// Lays out a file of `tensors`; the error says what is wrong with them.
pub(crate) fn lay_out(mut tensors: Vec<TensorSpec>) -> Result<Header, String> {
    tensors.sort_by(|left, right| right.dtype.cmp(&left.dtype).then_with(|| left.name.cmp(&right.name)));
    let mut seen = HashSet::with_capacity(tensors.len());
    let mut infos = Vec::with_capacity(tensors.len());
    let mut offset = 0_usize;
    for tensor in &tensors {
        let TensorSpec { name, dtype, shape } = tensor;
        if name == RESERVED || !seen.insert(name) {
            return Err(format!(
                "the tensor name `{name}` is {}",
                if name == RESERVED { "reserved" } else { "used twice" }
            ));
        }
        let end = tensor
            .bytes()
            .and_then(|bytes| offset.checked_add(usize::try_from(bytes).ok()?))
            .ok_or_else(|| format!("tensor `{name}` of type {dtype} and shape {shape:?} has no size in whole bytes"))?;
        infos.push((name.clone(), TensorInfo { dtype: *dtype, shape: shape.clone(), data_offsets: (offset, end) }));
        offset = end;
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(metadata), infos).map_err(|error| error.to_string())?;
    let mut json = serde_json::to_vec(&metadata).map_err(|error| error.to_string())?;
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);

    let mut start = bytes.len() as u64;
    let entries = tensors
        .into_iter()
        .map(|TensorSpec { name, dtype, shape }| {
            let end = start + bytes_of(dtype, &shape).unwrap_or_default();
            let entry = TensorEntry { name, dtype, shape, start, end };
            start = end;
            entry
        })
        .collect();
    Ok(Header { bytes, entries, total: start })
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

    fn spec(name: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
        TensorSpec { name: name.to_owned(), dtype, shape: shape.to_vec() }
    }

    #[test]
    fn the_order_of_tensors_and_padding_are_those_of_the_safetensors_crate() {
        let specs = [
            spec("b", Dtype::F32, &[2, 3]),
            spec("a", Dtype::BF16, &[4]),
            spec("z", Dtype::I64, &[]),
            spec("a2", Dtype::F32, &[0, 3]),
            spec("flag", Dtype::BOOL, &[3]),
        ];
        let header = lay_out(specs.to_vec()).expect("the specs are good");
        let zeros: Vec<Vec<u8>> = specs.iter().map(|spec| vec![0; spec.bytes().expect("small") as usize]).collect();
        let views = specs.iter().zip(&zeros).map(|(spec, bytes)| {
            (spec.name.clone(), TensorView::new(spec.dtype, spec.shape.clone(), bytes).expect("sizes agree"))
        });
        let reference = safetensors::serialize(views, Some(HashMap::from([("format".to_owned(), "pt".to_owned())])))
            .expect("the crate serialises the same tensors");
        assert_eq!(header.total, reference.len() as u64);
        // The JSON's own key order is that of a hash map, so the two headers are compared by what they say.
        let mut ours = header.bytes.clone();
        ours.resize(reference.len(), 0);
        let (length, ours) = safetensors::SafeTensors::read_metadata(&ours).expect("our header parses");
        let (expected_length, theirs) = safetensors::SafeTensors::read_metadata(&reference).expect("theirs parses");
        assert_eq!(length, expected_length);
        for entry in &header.entries {
            let place = (entry.start - header.bytes.len() as u64) as usize;
            let [ours, theirs] = [&ours, &theirs].map(|metadata| metadata.info(&entry.name).expect("it was given"));
            assert_eq!(
                (ours.dtype, &ours.shape, ours.data_offsets),
                (theirs.dtype, &theirs.shape, theirs.data_offsets)
            );
            assert_eq!(ours.data_offsets.0, place);
        }
        assert_eq!(ours.metadata().as_ref().expect("it has metadata")["format"], "pt");
    }

    #[test]
    fn names_used_twice_and_sizes_that_overflow_are_refused() {
        let twice = lay_out(vec![spec("a", Dtype::F32, &[1]), spec("a", Dtype::I8, &[1])]);
        assert_eq!(twice.expect_err("a name twice").as_str(), "the tensor name `a` is used twice");
        assert!(lay_out(vec![spec("a", Dtype::F32, &[usize::MAX, usize::MAX])]).is_err());
        assert!(lay_out(vec![spec(RESERVED, Dtype::F32, &[1])]).is_err());
        assert!(lay_out(vec![spec("half a byte", Dtype::F4, &[1])]).is_err());
    }

    #[test]
    fn no_tensor_at_all_is_a_valid_file() {
        let header = lay_out(Vec::new()).expect("an empty file is fine");
        assert!(safetensors::SafeTensors::deserialize(&header.bytes).expect("it parses").is_empty());
    }
}
