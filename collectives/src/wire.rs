//! Types that numbers may be rounded to on their way.

use half::bf16;

use crate::DType;
use crate::sum::Element;

/// The type in which the numbers of a compressed sum travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// 8 bits of precision over the range of f32; half the bytes.
    Bf16,
}

impl Wire {
    /// The type of an element on its way.
    pub fn dtype(self) -> DType {
        match self {
            Self::Bf16 => DType::Bf16,
        }
    }
}

/// Rounds all numbers, to nearest even; what `rounded` held before is overwritten.
pub(crate) fn round_to(values: &[f32], rounded: &mut Vec<bf16>) {
    rounded.clear();
    rounded.extend(values.iter().map(|&value| <bf16 as Element>::narrow(value)));
}

/// Overwrites `values` with the numbers that travelled.
pub(crate) fn widen_to(rounded: &[bf16], values: &mut [f32]) {
    for (value, &rounded) in values.iter_mut().zip(rounded) {
        *value = rounded.widen();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_nearest_even_and_come_back_as_they_travelled() {
        let step = 1.0 / 128.0;
        let mut values = [1.0, 1.0 + 0.5 * step, 1.0 + 0.51 * step, 1.0 + 1.5 * step, -3.0e38, f32::NAN];
        let mut rounded = vec![bf16::ZERO; 9];
        round_to(&values, &mut rounded);
        widen_to(&rounded, &mut values);
        assert_eq!(values[..4], [1.0, 1.0, 1.0 + step, 1.0 + 2.0 * step]);
        assert!(values[4] < -2.9e38 && values[5].is_nan());
    }
}
