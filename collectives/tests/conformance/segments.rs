//! What every back end promises of sums by halves and of compressed ones.

use half::bf16;
use unimse_collectives::{Buffer, Collective, Wire, segment};

use crate::fabric::Fabric;
use crate::suite::{LENGTHS, WORLDS, run, value};

/// Makes a sum by halves and at once, and compares the bits: first this rank's segment, then everything.
fn check_type<T: Copy + PartialEq>(rank: &mut dyn Collective, numbers: &[T], bits: impl Fn(T) -> u64)
where
    for<'a> Buffer<'a>: From<&'a mut [T]>,
{
    let (len, world) = (numbers.len(), rank.world_size());
    let own = segment(len, world, rank.rank());
    let bits = |values: &[T]| values.iter().map(|&value| bits(value)).collect::<Vec<_>>();
    let mut whole = numbers.to_vec();
    rank.all_reduce(whole.as_mut_slice().into()).unwrap();
    let mut halves = numbers.to_vec();
    rank.reduce_scatter(halves.as_mut_slice().into()).unwrap();
    assert!(bits(&halves[own.clone()]) == bits(&whole[own.clone()]), "segment of {len} elements, world {world}");
    // Only the own segment counts from here on.
    let (before, after) = (own.start, own.end);
    halves[..before].copy_from_slice(&numbers[..before]);
    halves[after..].copy_from_slice(&numbers[after..]);
    rank.all_gather(halves.as_mut_slice().into()).unwrap();
    assert!(bits(&halves) == bits(&whole), "{len} elements, world {world}");
}

pub(crate) fn check_halves(rank: &mut dyn Collective, seed: u64, len: usize) {
    let me = rank.rank();
    let numbers: Vec<f32> = (0..len).map(|i| value(seed, me, i)).collect();
    check_type(rank, &numbers, |value| u64::from(value.to_bits()));
    let small: Vec<bf16> = numbers.iter().map(|&value| bf16::from_f32(value)).collect();
    check_type(rank, &small, |value| u64::from(value.to_bits()));
    let wide: Vec<f64> = numbers.iter().map(|&value| f64::from(value) / 3.0).collect();
    check_type(rank, &wide, f64::to_bits);
}

pub(crate) fn reduce_scatter_and_all_gather_make_an_all_reduce(fabric: &dyn Fabric) {
    for world in WORLDS {
        run(fabric, world, |rank| {
            for len in LENGTHS {
                check_halves(rank, 3, len);
            }
            // Without sums any bytes can be gathered.
            let mut bytes = vec![rank.rank() as u8; 100_000];
            rank.all_gather(Buffer::Bytes(&mut bytes)).unwrap();
            for other in 0..world {
                assert!(bytes[segment(bytes.len(), world, other)].iter().all(|&byte| byte == other as u8));
            }
            // Of many sums in a row nobody takes anything back.
            for round in 0..20 {
                let mut values: Vec<f32> = (0..90_000).map(|i| value(round, rank.rank(), i)).collect();
                rank.reduce_scatter(values.as_mut_slice().into()).unwrap();
                for i in segment(values.len(), world, rank.rank()) {
                    let sum = (1..world).fold(value(round, 0, i), |sum, rank| sum + value(round, rank, i));
                    assert_eq!(values[i].to_bits(), sum.to_bits());
                }
            }
        });
    }
}

pub(crate) fn compressed_sums_are_those_of_rounded_numbers(fabric: &dyn Fabric) {
    for world in WORLDS {
        run(fabric, world, |rank| {
            for len in LENGTHS {
                let mut values: Vec<f32> = (0..len).map(|i| value(4, rank.rank(), i)).collect();
                rank.all_reduce_compressed(&mut values, Wire::Bf16).unwrap();
                let rounded = |rank, i| bf16::from_f32(value(4, rank, i)).to_f32();
                let expected = |i| {
                    let sum = (1..world).fold(rounded(0, i), |sum, rank| sum + rounded(rank, i));
                    bf16::from_f32(sum).to_f32()
                };
                let wrong = (0..len).find(|&i| values[i].to_bits() != expected(i).to_bits());
                assert_eq!(wrong, None, "{len} elements, world {world}");
            }
        });
    }
}

pub(crate) fn compressed_sums_are_within_the_bound(fabric: &dyn Fabric) {
    for (world, scale) in [(1, 1.0), (2, 1e-20), (4, 1.0), (7, 1e20)] {
        let results = run(fabric, world, |rank| {
            let mut values: Vec<f32> = (0..100_000).map(|i| value(6, rank.rank(), i) * scale).collect();
            rank.all_reduce_compressed(&mut values, Wire::Bf16).unwrap();
            values
        });
        assert!(results.iter().all(|values| *values == results[0]), "all ranks hold the same bits");
        for (i, &result) in results[0].iter().enumerate() {
            let parts = (0..world).map(|rank| f64::from(value(6, rank, i) * scale));
            let (sum, size) = parts.fold((0.0, 0.0), |(sum, size), part| (sum + part, size + part.abs()));
            let error = (f64::from(result) - sum).abs();
            // What f32 rounds is far below the difference between 255 and 256.
            assert!(error <= (size + sum.abs()) / 255.0, "element {i}: {result} instead of {sum}");
        }
    }
}
