//! Files of weights on disk, of which one tensor at a time comes into memory: a model of 1 GB must not need 3 GB to start.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use safetensors::SafeTensorError;
use safetensors::tensor::Metadata;
use serde::Deserialize;
use tch::{Kind, Tensor, nn};

use super::LoadReport;
use super::safetensors_io::kind_of;
use crate::Error;

/// Bytes of the number that begins a safetensors file.
const LENGTH: u64 = 8;
/// A longer header is refused, as the safetensors crate does.
const LONGEST_HEADER: u64 = 100_000_000;

/// Tensors by name, in one file or several.
#[derive(Debug, Default)]
pub struct WeightFiles {
    files: Vec<(PathBuf, File)>,
    /// The file of each tensor, and where in it.
    places: BTreeMap<String, (usize, Located)>,
}

/// A tensor of a file: its elements lie in a row, little-endian, in C order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// What the elements are.
    pub kind: Kind,
    /// Lengths of the axes.
    pub shape: Vec<i64>,
    /// Its bytes in the file.
    pub span: Range<u64>,
}

/// The index of a checkpoint in several files.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl WeightFiles {
    /// Opens safetensors files and reads their headers; a later file wins where two have the same tensor.
    pub fn open(paths: &[PathBuf]) -> Result<Self, Error> {
        let mut all = Self::default();
        for path in paths {
            let file = File::open(path).map_err(|source| Error::Io { path: path.clone(), source })?;
            let tensors = header(path, &file)?;
            all.add(path, file, tensors);
        }
        Ok(all)
    }

    /// Opens what a published model has: `model.safetensors`, or several files with `model.safetensors.index.json`.
    pub fn of_folder(folder: &Path) -> Result<Self, Error> {
        let index = folder.join("model.safetensors.index.json");
        if !index.is_file() {
            return Self::open(&[folder.join("model.safetensors")]);
        }
        let text = std::fs::read(&index).map_err(|source| Error::Io { path: index, source })?;
        let index: Index = serde_json::from_slice(&text).map_err(Error::ConfigJson)?;
        let mut files: Vec<PathBuf> = index.weight_map.into_values().map(|file| folder.join(file)).collect();
        files.sort_unstable();
        files.dedup();
        Self::open(&files)
    }

    /// Adds the tensors of a file of any format, found by somebody who knows it.
    pub fn add_located(&mut self, path: &Path, tensors: Vec<(String, Located)>) -> Result<(), Error> {
        let file = File::open(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        self.add(path, file, tensors);
        Ok(())
    }

    fn add(&mut self, path: &Path, file: File, tensors: Vec<(String, Located)>) {
        let place = self.files.len();
        self.files.push((path.to_owned(), file));
        self.places.extend(tensors.into_iter().map(|(name, located)| (name, (place, located))));
    }

    /// Returns the files, in the order in which they were opened.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// Tells whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Returns the names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Forgets a tensor.
    pub fn remove(&mut self, name: &str) -> bool {
        self.places.remove(name).is_some()
    }

    /// Calls a tensor by another name from now on.
    pub fn rename(&mut self, from: &str, to: &str) {
        if let Some(place) = self.places.remove(from) {
            self.places.insert(to.to_owned(), place);
        }
    }

    /// Reads one tensor onto the CPU; `None` if there is none of this name.
    pub fn read(&self, name: &str) -> Result<Option<Tensor>, Error> {
        self.places.get(name).map(|(file, located)| self.bring(*file, located)).transpose()
    }

    /// Copies all tensors into the parameters of the same names, converting element type and device.
    ///
    /// Fails, without having changed anything, if a shape differs.
    pub fn load_into(&self, store: &nn::VarStore) -> Result<LoadReport, Error> {
        let mut targets: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
        let mut report = LoadReport::default();
        let mut copies = Vec::with_capacity(self.places.len());
        for (name, (file, located)) in &self.places {
            match targets.remove(name) {
                Some(target) if target.size() == located.shape => copies.push((target, *file, located)),
                Some(target) => {
                    let (name, found) = (name.clone(), located.shape.clone());
                    return Err(Error::Shape { name, expected: target.size(), found });
                }
                None => report.unexpected.push(name.clone()),
            }
        }
        for (mut target, file, located) in copies {
            let tensor = self.bring(file, located)?;
            tch::no_grad(|| target.f_copy_(&tensor))?;
        }
        report.missing = targets.into_keys().collect();
        Ok(report)
    }

    fn bring(&self, file: usize, Located { kind, shape, span }: &Located) -> Result<Tensor, Error> {
        let (path, file) = &self.files[file];
        let mut bytes = vec![0; (span.end - span.start) as usize];
        file.read_exact_at(&mut bytes, span.start).map_err(|source| Error::Io { path: path.clone(), source })?;
        Ok(Tensor::f_from_data_size(&bytes, shape, *kind)?)
    }
}

/// Reads the header of a safetensors file.
fn header(path: &Path, file: &File) -> Result<Vec<(String, Located)>, Error> {
    let fail = |source| Error::Io { path: path.to_owned(), source };
    let size = file.metadata().map_err(fail)?.len();
    let mut length = [0; LENGTH as usize];
    file.read_exact_at(&mut length, 0).map_err(|_| Error::Safetensors(SafeTensorError::HeaderTooSmall))?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return Err(Error::Safetensors(SafeTensorError::HeaderTooLarge));
    }
    if length > size - LENGTH {
        return Err(Error::Safetensors(SafeTensorError::InvalidHeaderLength));
    }
    let mut header = vec![0; length as usize];
    file.read_exact_at(&mut header, LENGTH).map_err(fail)?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| Error::Safetensors(SafeTensorError::InvalidHeaderDeserialization(error)))?;
    let start = LENGTH + length;
    if start + metadata.data_len() as u64 != size {
        return Err(Error::Safetensors(SafeTensorError::MetadataIncompleteBuffer));
    }
    let located = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let kind = kind_of(info.dtype)
            .ok_or_else(|| Error::Dtype { name: name.clone(), dtype: format!("{:?}", info.dtype) })?;
        let shape = info.shape.iter().map(|&size| size as i64).collect();
        let span = start + info.data_offsets.0 as u64..start + info.data_offsets.1 as u64;
        Ok((name, Located { kind, shape, span }))
    };
    metadata.tensors().into_iter().map(located).collect()
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::weights::write_safetensors;

    fn written(folder: &Path) -> PathBuf {
        let store = nn::VarStore::new(Device::Cpu);
        let _ = (store.root() / "layer").ones("weight", &[2, 3]);
        let _ = (store.root() / "layer").zeros("bias", &[2]);
        let path = folder.join("model.safetensors");
        write_safetensors(&store, &path).unwrap();
        path
    }

    #[test]
    fn tensors_are_read_one_by_one_and_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = WeightFiles::open(&[written(folder.path())]).unwrap();
        assert_eq!(files.read("layer.weight").unwrap().unwrap(), Tensor::ones([2, 3], (Kind::Float, Device::Cpu)));
        files.rename("layer.weight", "other.weight");
        assert!(!files.contains("layer.weight") && files.contains("other.weight"));
        assert!(files.read("layer.weight").unwrap().is_none());
        assert_eq!(files.read("other.weight").unwrap().unwrap().size(), [2, 3]);
        assert!(files.remove("other.weight") && !files.remove("other.weight"));
    }

    #[test]
    fn a_cut_or_padded_file_is_refused_when_it_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let whole = std::fs::read(&path).unwrap();
        let longer = [&whole[..], b"x"].concat();
        for bytes in [&whole[..0], &whole[..7], &whole[..20], &whole[..whole.len() - 1], &longer] {
            std::fs::write(&path, bytes).unwrap();
            let error = WeightFiles::open(std::slice::from_ref(&path)).unwrap_err();
            assert!(matches!(error, Error::Safetensors(_)), "{} bytes: {error}", bytes.len());
        }
        std::fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
        assert!(matches!(WeightFiles::open(&[path]), Err(Error::Safetensors(SafeTensorError::HeaderTooLarge))));
    }
}
