//! Views of the memory that a call works on.
#![expect(unsafe_code, reason = "numbers are sent as the bytes they consist of")]

use half::bf16;

use crate::{Error, Result};

/// The type of an element of a [`Buffer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit brain float, summed in f32.
    Bf16,
    /// 64-bit float.
    F64,
    /// 64-bit unsigned integer, summed modulo 2^64.
    U64,
    /// Bytes without a meaning; they can be broadcast, not summed.
    Bytes,
}

impl DType {
    /// The size of an element in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Bytes => 1,
            Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 | Self::U64 => 8,
        }
    }

    /// The name as it stands in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F64 => "f64",
            Self::U64 => "u64",
            Self::Bytes => "bytes",
        }
    }
}

/// Borrows the memory that a call reads and overwrites with its result.
#[derive(Debug)]
pub enum Buffer<'a> {
    /// Host memory.
    F32(&'a mut [f32]),
    /// Host memory.
    Bf16(&'a mut [bf16]),
    /// Host memory.
    F64(&'a mut [f64]),
    /// Host memory.
    U64(&'a mut [u64]),
    /// Host memory of any contents.
    Bytes(&'a mut [u8]),
    /// Memory of a GPU.
    Device(DeviceBuffer),
}

/// Names memory of a GPU and the stream in whose order it is written before and read after a call.
///
/// The fields are plain numbers because the owner of the memory (libtorch) hands them out as such. `nccl` asks the driver
/// whether the address belongs to the communicator's GPU before it uses it. The owner keeps the memory allocated until
/// the call, or for [`DeviceCollective`](crate::DeviceCollective) the next `synchronize`, has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceBuffer {
    /// The device address of the first element.
    pub ptr: u64,
    /// The number of elements.
    pub len: usize,
    /// The type of the elements.
    pub dtype: DType,
    /// The `CUstream` handle; 0 is the legacy default stream.
    pub stream: u64,
}

impl Buffer<'_> {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::U64(values) => values.len(),
            Self::Bytes(values) => values.len(),
            Self::Device(device) => device.len,
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::Bf16(_) => DType::Bf16,
            Self::F64(_) => DType::F64,
            Self::U64(_) => DType::U64,
            Self::Bytes(_) => DType::Bytes,
            Self::Device(device) => device.dtype,
        }
    }

    /// The memory as bytes in the machine's order, or an error for device memory.
    pub(crate) fn host_bytes(&mut self, operation: &'static str) -> Result<&mut [u8]> {
        Ok(match self {
            Self::F32(values) => bytes_of(values),
            Self::Bf16(values) => bytes_of(values),
            Self::F64(values) => bytes_of(values),
            Self::U64(values) => bytes_of(values),
            Self::Bytes(values) => values,
            Self::Device(_) => {
                return Err(Error::Unsupported { operation, what: "device memory on a host back end".to_owned() });
            }
        })
    }
}

/// Marks types whose values are any bytes of their size, so that views of them as bytes and back are sound.
///
/// # Safety
/// No padding, no invalid bit patterns, no pointers.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: a primitive number without padding; every bit pattern is a value.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for f64 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: a transparent wrapper of u16; every bit pattern is a value.
unsafe impl Plain for bf16 {}

/// Views numbers as bytes.
pub(crate) fn bytes_of<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: the region is the slice's own, u8 has no alignment, and by `Plain` any bytes written are valid values.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast::<u8>(), size_of_val(values)) }
}

/// Views bytes as numbers; they must be aligned and a whole number of them.
pub(crate) fn numbers_of<T: Plain>(bytes: &mut [u8]) -> &mut [T] {
    // SAFETY: by `Plain` any bytes are valid values; `align_to_mut` keeps to aligned whole elements.
    let (before, values, after) = unsafe { bytes.align_to_mut::<T>() };
    assert!(before.is_empty() && after.is_empty(), "bytes of a buffer are cut at elements");
    values
}

macro_rules! from_slice {
    ($($element:ty => $variant:ident),*) => {$(
        impl<'a> From<&'a mut [$element]> for Buffer<'a> {
            fn from(values: &'a mut [$element]) -> Self {
                Self::$variant(values)
            }
        }
    )*};
}
from_slice!(f32 => F32, bf16 => Bf16, f64 => F64, u64 => U64, u8 => Bytes);

impl From<DeviceBuffer> for Buffer<'_> {
    fn from(buffer: DeviceBuffer) -> Self {
        Self::Device(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_numbers_are_views_of_the_same_memory() {
        let mut values = [1.0f32, -2.5];
        let bytes = bytes_of(&mut values);
        assert_eq!(bytes.len(), 8);
        bytes[4..].copy_from_slice(&7.0f32.to_ne_bytes());
        numbers_of::<f32>(bytes)[0] = 3.0;
        assert_eq!(values, [3.0, 7.0]);
    }

    #[test]
    fn a_buffer_knows_its_shape() {
        let mut values = [bf16::ONE; 3];
        let mut buffer = Buffer::from(&mut values[..]);
        assert_eq!((buffer.len(), buffer.dtype(), buffer.is_empty()), (3, DType::Bf16, false));
        assert_eq!(buffer.host_bytes("test").unwrap().len(), 6);
    }

    #[test]
    fn device_memory_is_refused_by_host_back_ends() {
        let mut buffer = Buffer::from(DeviceBuffer { ptr: 64, len: 1, dtype: DType::F32, stream: 0 });
        let error = buffer.host_bytes("all_reduce").unwrap_err();
        assert_eq!(error.to_string(), "all_reduce does not work with device memory on a host back end");
    }
}
