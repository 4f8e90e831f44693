//! The exchange of a sum's parts through shared memory.
//!
//! A rank has in the segment of every owner two slots. It puts its part of the owner's numbers into one; the owner adds up
//! the slots of all ranks and leaves the sum in each of them; the rank takes the sum out and puts its next part in, in
//! one pass. So a cache line that goes to the owner comes back with the sum and need not be fetched to be overwritten,
//! which between two cores costs as much as to read it. The other slot is on its way meanwhile.
#![expect(unsafe_code, reason = "memory that is shared between processes has no safe interface")]

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use super::ring::RING;
use super::{GIVEN, Lane, PAGE, SUMMED, Segment};

/// The slots of a rank with each owner.
pub(in crate::tcp) const SLOTS: usize = 2;
/// What the slots of all ranks with one owner hold together at most, half at a time: with the numbers that they come from
/// they stay in the second-level cache.
const AT_A_TIME: usize = 128 << 10;
/// A cache line, which slots begin and end with.
const LINE: usize = 64;

/// The size of the largest slot in a world of ranks.
pub(in crate::tcp) fn largest_slot(world: usize) -> usize {
    (AT_A_TIME / world).clamp(4 << 10, 64 << 10).next_multiple_of(LINE)
}

impl Segment {
    /// Where a rank's part of a step lies with this owner.
    pub(in crate::tcp) fn slot(&self, rank: usize, step: u64) -> NonNull<u8> {
        let at = self.place_of(rank) + PAGE + RING + (step % SLOTS as u64) as usize * self.slot;
        assert!(at + self.slot <= self.len);
        // SAFETY: in bounds by the assertion.
        unsafe { self.base.add(at) }
    }

    /// The owner has added up this many steps since the group was formed: their slots are the ranks' again.
    pub(in crate::tcp) fn count_summed(&self, steps: u64) {
        self.counter(SUMMED).store(steps, Ordering::Release);
    }
}

impl Lane {
    /// The steps that the peer, as the owner, has added up.
    pub(in crate::tcp) fn summed_by_peer(&self) -> u64 {
        self.theirs.counter(SUMMED).load(Ordering::Acquire)
    }

    /// The steps to which the peer has given its part to us, the owner.
    pub(in crate::tcp) fn given_by_peer(&self) -> u64 {
        self.own.counter(self.own.place_of(self.peer) + GIVEN).load(Ordering::Acquire)
    }

    /// Tells the peer that our parts of this many steps are in its slots.
    pub(in crate::tcp) fn count_given(&self, steps: u64) {
        self.theirs.counter(self.theirs.place_of(self.rank) + GIVEN).store(steps, Ordering::Release);
        self.theirs.ring_bell();
    }

    /// Tells the peer that something changed in our segment.
    pub(in crate::tcp) fn notify(&self) {
        self.theirs.ring_bell();
    }

    /// Puts our part of a step into its slot with the peer; the slot is ours.
    pub(in crate::tcp) fn put(&self, step: u64, part: &[u8]) {
        assert!(part.len() <= self.theirs.slot);
        let slot = self.theirs.slot(self.rank, step).as_ptr();
        // SAFETY: the slot is that long; the peer does not touch it before the step is counted as given.
        unsafe { slot.copy_from_nonoverlapping(part.as_ptr(), part.len()) };
    }

    /// Takes the sum of a step out of its slot with the peer; the slot is ours again.
    pub(in crate::tcp) fn take(&self, step: u64, sum: &mut [u8]) {
        assert!(sum.len() <= self.theirs.slot);
        let slot = self.theirs.slot(self.rank, step).as_ptr();
        // SAFETY: the slot is that long; the peer does not touch it after it has counted the step as summed.
        unsafe { slot.copy_to_nonoverlapping(sum.as_mut_ptr(), sum.len()) };
    }

    /// Takes the sum of a step out of its slot and puts the part of a later step, as long and of the same slot, in.
    pub(in crate::tcp) fn swap(&self, step: u64, sum: &mut [u8], part: &[u8]) {
        assert!(sum.len() == part.len() && part.len() <= self.theirs.slot);
        let slot = self.theirs.slot(self.rank, step).as_ptr();
        // SAFETY: the slot is that long, and ours from the count of the step as summed to that of the later one as given.
        let slot = unsafe { std::slice::from_raw_parts_mut(slot, part.len()) };
        swap(slot, sum, part);
    }
}

/// Moves `slot` to `sum` and `part` to `slot`, all of one length, line by line.
fn swap(slot: &mut [u8], sum: &mut [u8], part: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function is compiled for.
        return unsafe { swap_in_wide_registers(slot, sum, part) };
    }
    swap_lines(slot, sum, part);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn swap_in_wide_registers(slot: &mut [u8], sum: &mut [u8], part: &[u8]) {
    swap_lines(slot, sum, part);
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "is compiled anew in each function that calls it, for other processors")]
fn swap_lines(slot: &mut [u8], sum: &mut [u8], part: &[u8]) {
    let (slots, slot_rest) = slot.as_chunks_mut::<LINE>();
    let (sums, sum_rest) = sum.as_chunks_mut::<LINE>();
    let (parts, part_rest) = part.as_chunks::<LINE>();
    for ((slot, sum), part) in slots.iter_mut().zip(sums).zip(parts) {
        let (outgoing, incoming) = (*slot, *part);
        *sum = outgoing;
        *slot = incoming;
    }
    sum_rest.copy_from_slice(slot_rest);
    slot_rest.copy_from_slice(part_rest);
}

#[cfg(test)]
mod tests {
    use super::super::tests::pair;
    use super::*;

    #[test]
    fn a_part_goes_to_the_owner_and_the_sum_comes_back_as_the_next_part_goes() {
        let (rank, owner) = pair();
        let len = 1000;
        rank.put(0, &vec![1; len]);
        rank.count_given(1);
        assert_eq!(owner.given_by_peer(), 1);
        // SAFETY: the slot is ours between the two counts.
        let slot = unsafe { std::slice::from_raw_parts_mut(owner.own.slot(0, 0).as_ptr(), len) };
        assert!(slot.iter().all(|&byte| byte == 1));
        slot.fill(2);
        owner.own.count_summed(1);
        assert_eq!(rank.summed_by_peer(), 1);
        let mut sum = vec![0; len];
        rank.swap(2, &mut sum, &vec![3; len]);
        assert_eq!(sum, vec![2; len]);
        rank.take(0, &mut sum);
        assert_eq!(sum, vec![3; len], "steps 0 and 2 share a slot");
    }

    #[test]
    fn slots_of_any_world_end_with_a_line_and_fit() {
        for world in 2..200 {
            let slot = largest_slot(world);
            assert!(slot.is_multiple_of(LINE) && (4096..=64 << 10).contains(&slot), "{slot}");
            let (segment, _offer) = Segment::create(world).unwrap();
            for step in 0..SLOTS as u64 {
                segment.slot(world - 1, step);
            }
        }
    }
}
