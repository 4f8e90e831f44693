//! Which part of a buffer belongs to which rank.

use std::ops::Range;

/// The elements of a buffer of `len` that belong to a rank after [`reduce_scatter`](crate::Collective::reduce_scatter) and
/// before [`all_gather`](crate::Collective::all_gather).
///
/// Segments follow one another in rank order and cover the buffer; where `len` does not divide by `world_size`, the first
/// ones are longer by one element.
///
/// # Panics
/// If `rank` is not below `world_size`.
pub fn segment(len: usize, world_size: u32, rank: u32) -> Range<usize> {
    assert!(rank < world_size, "rank {rank} in a world of {world_size}");
    let (world, rank) = (world_size as usize, rank as usize);
    let (share, larger) = (len / world, len % world);
    let start = |rank: usize| rank * share + rank.min(larger);
    start(rank)..start(rank + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_everything_once_in_order() {
        for (world, len) in [(1, 5), (2, 5), (3, 2), (7, 100), (4, 0)] {
            let segments: Vec<_> = (0..world).map(|rank| segment(len, world, rank)).collect();
            assert_eq!(segments[0].start, 0);
            assert_eq!(segments[world as usize - 1].end, len);
            assert!(segments.windows(2).all(|pair| pair[0].end == pair[1].start), "{segments:?}");
        }
        assert_eq!(segment(5, 2, 0), 0..3);
    }
}
