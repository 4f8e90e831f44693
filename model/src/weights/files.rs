//! Safetensors files on disk, of which one tensor at a time comes into memory: a model of 1 GB must not need 3 GB to start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use safetensors::SafeTensorError;
use safetensors::tensor::{Metadata, TensorInfo};
use tch::{Tensor, nn};

use super::LoadReport;
use super::safetensors_io::tensor_of;
use crate::Error;

/// Bytes of the number that begins a file.
const LENGTH: u64 = 8;
/// A longer header is refused, as the safetensors crate does.
const LONGEST_HEADER: u64 = 100_000_000;

/// Tensors by name, in one file or several.
#[derive(Debug, Default)]
pub struct WeightFiles {
    files: Vec<WeightFile>,
    /// The file of each tensor, and its name there.
    places: BTreeMap<String, (usize, String)>,
}

#[derive(Debug)]
struct WeightFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    metadata: Metadata,
}

impl WeightFiles {
    /// Opens files and reads their headers; a later file wins where two have the same tensor.
    pub fn open(paths: &[PathBuf]) -> Result<Self, Error> {
        let mut all = Self::default();
        for path in paths {
            let file = WeightFile::open(path)?;
            let place = all.files.len();
            all.places.extend(file.metadata.tensors().into_keys().map(|name| (name.clone(), (place, name))));
            all.files.push(file);
        }
        Ok(all)
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
        let Some((place, own)) = self.places.get(name) else { return Ok(None) };
        let file = &self.files[*place];
        file.metadata.info(own).map(|info| file.read(own, info)).transpose()
    }

    /// Copies all tensors into the parameters of the same names, converting element type and device.
    ///
    /// Fails, without having changed anything, if a shape differs.
    pub fn load_into(&self, store: &nn::VarStore) -> Result<LoadReport, Error> {
        let mut targets: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
        let mut report = LoadReport::default();
        let mut copies = Vec::with_capacity(self.places.len());
        for (name, (place, own)) in &self.places {
            let file = &self.files[*place];
            let Some(info) = file.metadata.info(own) else { continue };
            let found: Vec<i64> = info.shape.iter().map(|&size| size as i64).collect();
            match targets.remove(name) {
                Some(target) if target.size() == found => copies.push((target, file, own, info)),
                Some(target) => return Err(Error::Shape { name: name.clone(), expected: target.size(), found }),
                None => report.unexpected.push(name.clone()),
            }
        }
        for (mut target, file, name, info) in copies {
            let tensor = file.read(name, info)?;
            tch::no_grad(|| target.f_copy_(&tensor))?;
        }
        report.missing = targets.into_keys().collect();
        Ok(report)
    }
}

impl WeightFile {
    fn open(path: &Path) -> Result<Self, Error> {
        let fail = |source| Error::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(fail)?;
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
        let data_start = LENGTH + length;
        if data_start + metadata.data_len() as u64 != size {
            return Err(Error::Safetensors(SafeTensorError::MetadataIncompleteBuffer));
        }
        Ok(Self { path: path.to_owned(), file, data_start, metadata })
    }

    fn read(&self, name: &str, info: &TensorInfo) -> Result<Tensor, Error> {
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        let read: io::Result<()> = self.file.read_exact_at(&mut bytes, self.data_start + start as u64);
        read.map_err(|source| Error::Io { path: self.path.clone(), source })?;
        tensor_of(name, info.dtype, &info.shape, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

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
