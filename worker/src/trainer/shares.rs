//! Which rank writes which tensors of a checkpoint.

use unimse_checkpoint::TensorSpec;
use unimse_core::id::Rank;

/// The places of the tensors that `rank` of `world` writes: disjoint over the ranks, all of them together, and balanced by
/// bytes (what only one can write first, then the largest, each to whoever has least).
pub(super) fn share(tensors: &[(TensorSpec, Option<Rank>)], rank: u32, world: u32) -> Vec<usize> {
    let mut by_size: Vec<(u64, usize)> =
        tensors.iter().enumerate().map(|(place, (tensor, _))| (tensor.bytes().unwrap_or(0), place)).collect();
    by_size.sort_by_key(|&(bytes, place)| (tensors[place].1.is_none(), std::cmp::Reverse(bytes), place));
    let mut loads = vec![0_u64; world.max(1) as usize];
    let mut own = Vec::new();
    for (bytes, place) in by_size {
        let least = || (0..loads.len()).min_by_key(|&rank| (loads[rank], rank)).expect("a world has ranks");
        let writer = tensors[place].1.map_or_else(least, |owner| owner.0 as usize);
        loads[writer] += bytes;
        if writer as u32 == rank {
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

    fn tensors(sizes: &[usize]) -> Vec<(TensorSpec, Option<Rank>)> {
        let tensor =
            |(place, &size)| (TensorSpec { name: format!("t{place}"), dtype: Dtype::F32, shape: vec![size] }, None);
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
    fn what_one_rank_holds_alone_it_writes_and_the_others_write_the_rest() {
        let mut tensors = tensors(&[5, 9, 4, 3, 2]);
        tensors[0].1 = Some(Rank(1));
        tensors[4].1 = Some(Rank(1));
        assert_eq!(share(&tensors, 0, 2), [1, 3]);
        assert_eq!(share(&tensors, 1, 2), [0, 2, 4]);
    }

    #[test]
    fn more_ranks_than_tensors_leave_some_with_nothing() {
        let tensors = tensors(&[4, 2]);
        assert_eq!(share(&tensors, 0, 3), [0]);
        assert_eq!(share(&tensors, 1, 3), [1]);
        assert!(share(&tensors, 2, 3).is_empty());
    }
}
