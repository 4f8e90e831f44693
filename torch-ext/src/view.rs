//! The memory of a CPU tensor as a slice, for collectives and checkpoints.

use half::bf16;
use tch::{Device, Kind, Tensor};

use crate::Error;

/// A type of number that tensors hold.
pub trait Number: Copy + sealed::Sealed {
    /// What libtorch calls it.
    const KIND: Kind;
    /// For messages.
    const NAME: &'static str;
}

mod sealed {
    /// Only types whose layout is that of libtorch's.
    pub trait Sealed {}
}

macro_rules! number {
    ($($type:ty, $kind:ident;)*) => {$(
        impl sealed::Sealed for $type {}
        impl Number for $type {
            const KIND: Kind = Kind::$kind;
            const NAME: &'static str = stringify!($type);
        }
    )*};
}

number! {
    f32, Float;
    f64, Double;
    bf16, BFloat16;
    i64, Int64;
    i32, Int;
    u8, Uint8;
}

fn checked<T: Number>(tensor: &Tensor) -> Result<usize, Error> {
    let wanted = T::NAME;
    if tensor.kind() != T::KIND {
        return Err(Error::View { wanted, is: format!("holds {:?}", tensor.kind()) });
    }
    if tensor.device() != Device::Cpu {
        return Err(Error::View { wanted, is: format!("is on {:?}", tensor.device()) });
    }
    if !tensor.is_contiguous() {
        return Err(Error::View { wanted, is: format!("is not contiguous (strides {:?})", tensor.stride()) });
    }
    Ok(tensor.numel())
}

/// The numbers of a contiguous CPU tensor.
///
/// # Errors
/// When the tensor holds another type, is on another device or is not contiguous.
pub fn host<T: Number>(tensor: &Tensor) -> Result<&[T], Error> {
    let count = checked::<T>(tensor)?;
    if count == 0 {
        return Ok(&[]);
    }
    // SAFETY: contiguous memory of `count` numbers of that type, kept alive by the borrow of the tensor.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), count) })
}

/// The numbers of a contiguous CPU tensor, to be changed. As everywhere in tch, other handles to the same storage see the
/// change; the caller lets none of them run while it holds the slice.
///
/// # Errors
/// As [`host`].
pub fn host_mut<T: Number>(tensor: &mut Tensor) -> Result<&mut [T], Error> {
    let count = checked::<T>(tensor)?;
    if count == 0 {
        return Ok(&mut []);
    }
    // SAFETY: as in `host`; the mutable borrow keeps this handle from being used beside the slice.
    Ok(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), count) })
}

/// The bytes of a contiguous CPU tensor, whatever it holds.
///
/// # Errors
/// When the tensor is on another device or is not contiguous.
pub fn bytes(tensor: &Tensor) -> Result<&[u8], Error> {
    if tensor.device() != Device::Cpu || !tensor.is_contiguous() {
        let is = format!("is on {:?}, contiguous: {}", tensor.device(), tensor.is_contiguous());
        return Err(Error::View { wanted: "bytes", is });
    }
    let count = tensor.numel() * tensor.kind().elt_size_in_bytes();
    if count == 0 {
        return Ok(&[]);
    }
    // SAFETY: contiguous memory of that many bytes, kept alive by the borrow; any bit pattern is a byte.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), count) })
}

/// The device pointer of a CUDA tensor, for NCCL; none for a tensor elsewhere.
pub fn device_pointer(tensor: &Tensor) -> Option<u64> {
    matches!(tensor.device(), Device::Cuda(_)).then(|| tensor.data_ptr() as u64)
}
