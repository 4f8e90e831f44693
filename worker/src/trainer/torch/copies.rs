//! Host memory that checkpoints are copied to, kept from one to the next: taking new pages costs as much as the copy itself, and
//! the next update waits for it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tch::{Device, Tensor};
use unimse_core::job::ExitCause;
use unimse_torch_ext::view;

use super::super::failed;

type Home = Arc<Mutex<Vec<u8>>>;

/// Where the memory waits between checkpoints.
#[derive(Clone, Debug, Default)]
pub(super) struct Copies(Home);

/// The memory while somebody reads it.
struct Lent {
    bytes: Vec<u8>,
    home: Home,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        if home.capacity() < self.bytes.capacity() {
            *home = std::mem::take(&mut self.bytes);
        }
    }
}

impl Copies {
    /// Copies tensors, wherever they are. The memory comes back when the last of the copies is dropped; if it is still out, there is
    /// more for this once.
    pub(super) fn of(&self, tensors: &[Tensor]) -> Result<Vec<Bytes>, ExitCause> {
        let mut bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        bytes.clear();
        bytes.reserve_exact(tensors.iter().map(|tensor| tensor.numel() * tensor.kind().elt_size_in_bytes()).sum());
        let mut ends = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let here = tensor.f_to_device(Device::Cpu).map_err(failed)?;
            bytes.extend_from_slice(view::bytes(&here).map_err(failed)?);
            ends.push(bytes.len());
        }
        let whole = Bytes::from_owner(Lent { bytes, home: Arc::clone(&self.0) });
        let starts = std::iter::once(0).chain(ends.iter().copied());
        Ok(starts.zip(&ends).map(|(start, &end)| whole.slice(start..end)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_once_nobody_reads_it() {
        let copies = Copies::default();
        let tensors = [Tensor::from_slice(&[1_f32, 2.0]), Tensor::from_slice(&[3_f32])];
        let first = copies.of(&tensors).unwrap();
        assert_eq!(first[0][..], [1_f32, 2.0].map(f32::to_le_bytes).concat());
        assert_eq!(first[1][..], 3_f32.to_le_bytes());
        let place = first[0].as_ptr();
        let second = copies.of(&tensors).unwrap();
        assert_ne!(second[0].as_ptr(), place, "the first copy is still read");
        drop(second);
        let rest = first.into_iter().nth(1);
        let third = copies.of(&tensors).unwrap();
        assert_ne!(third[0].as_ptr(), place, "a part of it is");
        drop((rest, third));
        let place = copies.of(&tensors).unwrap()[0].as_ptr();
        assert_eq!(copies.of(&tensors).unwrap()[0].as_ptr(), place);
    }

    #[test]
    fn nothing_to_copy_is_no_mistake() {
        assert!(Copies::default().of(&[]).unwrap().is_empty());
    }
}
