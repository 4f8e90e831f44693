//! Which rank writes which tensors of a checkpoint.

use unimse_checkpoint::TensorSpec;

/// The places of the tensors that `rank` of `world` writes: disjoint over the ranks, all of them together, and balanced by
/// bytes (the largest first, each to whoever has least).
pub(super) fn share(tensors: &[TensorSpec], rank: u32, world: u32) -> Vec<usize> {
    let mut by_size: Vec<(u64, usize)> =
        tensors.iter().enumerate().map(|(place, tensor)| (tensor.bytes().unwrap_or(0), place)).collect();
    by_size.sort_by_key(|&(bytes, place)| (std::cmp::Reverse(bytes), place));
    let mut loads = vec![0_u64; world.max(1) as usize];
    let mut own = Vec::new();
    for (bytes, place) in by_size {
        let (least, load) =
            loads.iter_mut().enumerate().min_by_key(|(rank, load)| (**load, *rank)).expect("a world has ranks");
        *load += bytes;
        if least as u32 == rank {
            own.push(place);
        }
    }
    own.sort_unstable();
    own
}

#[cfg(test)]
mod tests {
    use unimse_checkpoint::Dtype;

    use super::*;

    fn tensors(sizes: &[usize]) -> Vec<TensorSpec> {
        let tensor = |(place, &size)| TensorSpec { name: format!("t{place}"), dtype: Dtype::F32, shape: vec![size] };
        sizes.iter().enumerate().map(tensor).collect()
    }

    #[test]
    fn every_tensor_is_written_once_and_ranks_write_about_the_same() {
        let sizes: Vec<usize> = (1..200).map(|n| n * n % 97 + 1).collect();
        let tensors = tensors(&sizes);
        let total: usize = sizes.iter().sum();
        for world in [1, 2, 3, 8] {
            let shares: Vec<Vec<usize>> = (0..world).map(|rank| share(&tensors, rank, world)).collect();
            let mut all: Vec<usize> = shares.concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..sizes.len()), "world {world}");
            for own in &shares {
                let bytes: usize = own.iter().map(|&place| sizes[place]).sum();
                assert!(bytes.abs_diff(total / world as usize) <= 97, "world {world}: {bytes} of {total}");
            }
        }
    }

    #[test]
    fn more_ranks_than_tensors_leave_some_with_nothing() {
        let tensors = tensors(&[4, 2]);
        assert_eq!(share(&tensors, 0, 3), [0]);
        assert_eq!(share(&tensors, 1, 3), [1]);
        assert!(share(&tensors, 2, 3).is_empty());
    }
}
