//! The sum in rank order, which makes all back ends agree to the bit.
#![expect(unsafe_code, reason = "contributions may lie in memory that is shared between processes")]

use std::ptr::NonNull;

use half::bf16;

use crate::buffer::{Plain, numbers_of};
use crate::{DType, Error, Result};

/// Elements summed at a time: the accumulators stay in the first-level cache.
const BLOCK: usize = 1024;

/// A number that can be summed, in a wider type where its own is too coarse.
pub(crate) trait Element: Plain {
    type Wide: Copy + Default;
    fn widen(self) -> Self::Wide;
    fn add(left: Self::Wide, right: Self::Wide) -> Self::Wide;
    fn narrow(wide: Self::Wide) -> Self;
}

macro_rules! element {
    ($type:ty, $add:expr) => {
        impl Element for $type {
            type Wide = $type;
            fn widen(self) -> $type {
                self
            }
            fn add(left: $type, right: $type) -> $type {
                $add(left, right)
            }
            fn narrow(wide: $type) -> $type {
                wide
            }
        }
    };
}
element!(f32, |left, right| left + right);
element!(f64, |left, right| left + right);
element!(u64, u64::wrapping_add);

impl Element for bf16 {
    type Wide = f32;

    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    fn add(left: f32, right: f32) -> f32 {
        left + right
    }

    // Rounds to nearest even as `bf16::from_f32` does, without its branch, so that it vectorises.
    fn narrow(wide: f32) -> bf16 {
        let bits = wide.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        let quiet_nan = bits >> 16 | 0x40;
        bf16::from_bits(if wide.is_nan() { quiet_nan } else { rounded } as u16)
    }
}

/// Fails for types that have no sum.
pub(crate) fn check_summable(operation: &'static str, dtype: DType) -> Result<()> {
    if dtype == DType::Bytes {
        return Err(Error::Unsupported { operation, what: "bytes".to_owned() });
    }
    Ok(())
}

/// Sums into `own`, which holds the contribution of rank `rank`; that of rank r lies at `r * stride` in `parts`, whose
/// place for `rank` itself is not looked at. All are aligned for the type.
pub(crate) fn sum_in_rank_order(
    dtype: DType,
    own: &mut [u8],
    rank: usize,
    world: usize,
    parts: &mut [u8],
    stride: usize,
) {
    let (parts, room, len) = (NonNull::from(&mut *parts).cast::<u8>(), parts.len(), own.len());
    let part = |rank: usize| {
        assert!(rank * stride + len <= room);
        // SAFETY: in bounds by the assertion.
        unsafe { parts.add(rank * stride) }
    };
    // SAFETY: the parts lie in borrowed memory, by the assertion, and `own` apart from them.
    unsafe { sum_at(dtype, own, (rank, world), part, Sums::Kept) }
}

/// Where sums go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sums {
    /// To the owner only.
    Kept,
    /// To the owner and to the place of every contribution.
    Returned,
}

/// Sums into `own`, which holds the contribution of `rank` of `world`; that of another rank r lies at `part(r)`.
///
/// # Safety
/// At `part(r)` is memory as long as `own`, aligned for the type, that nobody else accesses meanwhile.
pub(crate) unsafe fn sum_at(
    dtype: DType,
    own: &mut [u8],
    (rank, world): (usize, usize),
    part: impl Fn(usize) -> NonNull<u8>,
    sums: Sums,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        match dtype {
            DType::F32 => sum::<f32>(own, rank, world, part, sums),
            DType::Bf16 => sum::<bf16>(own, rank, world, part, sums),
            DType::F64 => sum::<f64>(own, rank, world, part, sums),
            DType::U64 => sum::<u64>(own, rank, world, part, sums),
            DType::Bytes => unreachable!("check_summable comes first"),
        }
    }
}

/// # Safety
/// As `sum_at`.
unsafe fn sum<T: Element>(own: &mut [u8], rank: usize, world: usize, part: impl Fn(usize) -> NonNull<u8>, sums: Sums) {
    let own = numbers_of::<T>(own);
    let part = |rank: usize| part(rank).cast::<T>();
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function is compiled for; the rest is passed on to the caller.
        return unsafe { sum_in_wide_registers(own, rank, world, part, sums) };
    }
    // SAFETY: passed on to the caller.
    unsafe { sum_blocks(own, rank, world, part, sums) }
}

/// # Safety
/// As `sum_at`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn sum_in_wide_registers<T: Element>(
    own: &mut [T],
    rank: usize,
    world: usize,
    part: impl Fn(usize) -> NonNull<T>,
    sums: Sums,
) {
    // SAFETY: passed on to the caller.
    unsafe { sum_blocks(own, rank, world, part, sums) }
}

/// # Safety
/// As `sum_at`.
#[inline(always)]
#[expect(clippy::inline_always, reason = "is compiled anew in each function that calls it, for other processors")]
unsafe fn sum_blocks<T: Element>(
    own: &mut [T],
    rank: usize,
    world: usize,
    part: impl Fn(usize) -> NonNull<T>,
    sums: Sums,
) {
    if world == 2 {
        // SAFETY: by the contract of `sum_at`.
        let other = unsafe { std::slice::from_raw_parts_mut(part(1 - rank).as_ptr(), own.len()) };
        // Addition of two is commutative to the bit, so the order needs no care.
        if sums == Sums::Returned {
            for (mine, theirs) in own.iter_mut().zip(other) {
                let total = T::narrow(T::add(mine.widen(), theirs.widen()));
                (*mine, *theirs) = (total, total);
            }
        } else {
            for (mine, theirs) in own.iter_mut().zip(other) {
                *mine = T::narrow(T::add(mine.widen(), theirs.widen()));
            }
        }
        return;
    }
    let mut wide = [T::Wide::default(); BLOCK];
    for (index, block) in own.chunks_mut(BLOCK).enumerate() {
        let wide = &mut wide[..block.len()];
        let len = block.len();
        // SAFETY: by the contract of `sum_at`; the block lies in the part as it does in `own`.
        let part = |rank: usize| unsafe { std::slice::from_raw_parts_mut(part(rank).as_ptr().add(index * BLOCK), len) };
        for source in 0..world {
            let values: &[T] = if source == rank { block } else { part(source) };
            for (total, &value) in wide.iter_mut().zip(values) {
                *total = if source == 0 { value.widen() } else { T::add(*total, value.widen()) };
            }
        }
        for (value, &total) in block.iter_mut().zip(wide.iter()) {
            *value = T::narrow(total);
        }
        if sums == Sums::Returned {
            for other in (0..world).filter(|&other| other != rank) {
                part(other).copy_from_slice(block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::buffer::bytes_of;

    fn summed(contributions: &[Vec<f32>], rank: usize) -> Vec<f32> {
        let len = contributions[0].len();
        let mut own = contributions[rank].clone();
        let mut parts: Vec<f32> = contributions.concat();
        parts[rank * len..][..len].fill(f32::NAN);
        let stride = len * 4;
        sum_in_rank_order(DType::F32, bytes_of(&mut own), rank, contributions.len(), bytes_of(&mut parts), stride);
        own
    }

    proptest! {
        #[test]
        fn every_rank_gets_the_sequential_sum(
            world in 2usize..6, len in prop::sample::select(vec![0, 1, 7, 2047, 2048, 5000]), seed in any::<u32>()
        ) {
            let value = |rank: usize, i: usize| ((seed as usize + rank * 7919 + i * 104_729) % 2003) as f32 * 0.37 - 300.0;
            let contributions: Vec<Vec<f32>> =
                (0..world).map(|rank| (0..len).map(|i| value(rank, i)).collect()).collect();
            let expected: Vec<f32> = (0..len)
                .map(|i| (1..world).fold(contributions[0][i], |sum, rank| sum + contributions[rank][i]))
                .collect();
            for rank in 0..world {
                prop_assert_eq!(summed(&contributions, rank), expected.clone());
            }
        }

        #[test]
        fn bf16_rounds_as_the_half_crate_does(bits in any::<u32>()) {
            let wide = f32::from_bits(bits);
            prop_assert_eq!(<bf16 as Element>::narrow(wide).to_bits(), bf16::from_f32(wide).to_bits());
        }
    }

    #[test]
    fn bf16_is_summed_in_f32_and_rounded_once() {
        // Added one by one in bf16, 256 + 1 stays 256; in f32 the three ones survive.
        let mut own = [bf16::from_f32(256.0)];
        let mut parts = [bf16::ZERO, bf16::ONE, bf16::ONE, bf16::from_f32(2.0)];
        sum_in_rank_order(DType::Bf16, bytes_of(&mut own), 0, 4, bytes_of(&mut parts), 2);
        assert_eq!(own[0].to_f32(), 260.0);
    }
}
