//! Sums and gathers by segments through the slots of shared memory; see `shared::slots`.
//!
//! A segment is cut into steps of a slot each. Steps are counted since the group was formed, on each owner for itself, so
//! that a slot is never taken for that of an earlier call.
#![expect(unsafe_code, reason = "memory that is shared between processes has no safe interface")]

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use super::link::Link;
use super::mesh::{Mesh, Pass};
use super::poll::LANE;
use super::segments::Phases;
use super::shared::{Lane, SLOTS, Segment, largest_slot};
use crate::Result;
use crate::header::Header;
use crate::sum::{Sums, sum_at};

/// The smallest step: below, counting costs more than overlapping gains.
const SMALLEST: usize = 8 << 10;

pub(super) fn run(
    mesh: &mut Mesh,
    header: &Header,
    bytes: &mut [u8],
    phases: Phases,
    of_rank: impl Fn(u32) -> Range<usize>,
) -> Result<()> {
    let Some(segment) = mesh.segment() else { unreachable!("there is shared memory, or the call goes over sockets") };
    mesh.announce(header, &[], |_, _| 0)?;
    mesh.rewind();
    let (rank, world) = (mesh.rank(), mesh.world());
    // A segment of a few slots is cut finer, so that its parts and sums overlap.
    let slot =
        (bytes.len() / world / 4).next_multiple_of(64).clamp(SMALLEST.min(largest_slot(world)), largest_slot(world));
    let mut owner = Owner { segment, own: of_rank(rank as u32), rank, world, slot, before: mesh.summed, summed: 0 };
    mesh.drive(|links, _| {
        let (mut moved, mut done) = (false, true);
        for link in &mut *links {
            let given = Given { theirs: of_rank(link.peer), slot, phases };
            moved |= given.advance(link, bytes);
            done &= given.is_done(link);
        }
        moved |= owner.advance(links, header, bytes, phases);
        Ok(Pass::of(done && owner.is_done(), moved))
    })?;
    mesh.summed += owner.summed;
    mesh.count_steps(|peer| steps(&of_rank(peer), slot));
    Ok(())
}

/// The steps of a segment.
fn steps(segment: &Range<usize>, slot: usize) -> u64 {
    segment.len().div_ceil(slot) as u64
}

/// The bytes of a step.
fn step_of(segment: &Range<usize>, slot: usize, step: u64) -> Range<usize> {
    let start = segment.start + step as usize * slot;
    start..segment.end.min(start + slot)
}

/// How many of `limit` steps of this call a counter shows; one of an earlier call shows none.
fn since(counter: u64, before: u64, limit: u64) -> u64 {
    (counter.wrapping_sub(before) as i64).clamp(-(SLOTS as i64), limit as i64).max(0) as u64
}

/// This rank's side of a segment that a peer owns.
struct Given {
    theirs: Range<usize>,
    slot: usize,
    phases: Phases,
}

impl Given {
    /// Does the next thing that can be done; `sent` and `received` of the link count the steps given and taken.
    fn advance(&self, link: &mut Link, bytes: &mut [u8]) -> bool {
        let Some(lane) = &link.lane else { return false };
        let steps = steps(&self.theirs, self.slot);
        let (given, taken) = (link.sent as u64, link.received as u64);
        let before = link.steps;
        let counter = lane.summed_by_peer();
        let summed = since(counter, before, steps);
        // The slot of the next step is ours if the peer is done with the step, perhaps of an earlier call, that it held last.
        let free = counter.wrapping_sub(before).wrapping_add(SLOTS as u64) as i64 > given as i64;
        let full = given - taken == SLOTS as u64 || given == steps;
        let takes = self.phases.gather && full && taken < given && summed > taken;
        let gives = given < steps && free && (takes || !self.phases.gather || given - taken < SLOTS as u64);
        let place = |step| step_of(&self.theirs, self.slot, step);
        match (takes, gives && self.phases.reduce) {
            (true, true) if place(given).len() == self.slot => {
                let (early, late) = bytes.split_at_mut(place(given).start);
                lane.swap(before + taken, &mut early[place(taken)], &late[..self.slot]);
            }
            (takes, puts) => {
                if takes {
                    lane.take(before + taken, &mut bytes[place(taken)]);
                }
                if puts {
                    lane.put(before + given, &bytes[place(given)]);
                }
            }
        }
        if gives {
            lane.count_given(before + given + 1);
        }
        link.sent += usize::from(gives);
        link.received += usize::from(takes);
        if !takes && !gives && !self.is_done(link) {
            link.stuck_on |= LANE;
        }
        takes || gives
    }

    fn is_done(&self, link: &Link) -> bool {
        let steps = steps(&self.theirs, self.slot) as usize;
        link.sent == steps && (!self.phases.gather || link.received == steps)
    }
}

/// This rank's own segment.
struct Owner {
    segment: Arc<Segment>,
    own: Range<usize>,
    rank: usize,
    world: usize,
    slot: usize,
    /// The steps of earlier calls, and those of this one that are done.
    before: u64,
    summed: u64,
}

impl Owner {
    fn is_done(&self) -> bool {
        self.summed == steps(&self.own, self.slot)
    }

    /// Does the next step if all parts of it are there.
    fn advance(&mut self, links: &mut [Link], header: &Header, bytes: &mut [u8], phases: Phases) -> bool {
        if self.is_done() {
            return false;
        }
        let step = self.before + self.summed;
        let mut there = true;
        for link in &mut *links {
            let given = link.lane.as_ref().map_or(0, Lane::given_by_peer);
            if since(given, self.before, u64::MAX >> 1) <= self.summed {
                link.stuck_on |= LANE;
                there = false;
            }
        }
        if !there {
            return false;
        }
        let own = &mut bytes[step_of(&self.own, self.slot, self.summed)];
        let place = |rank: usize| self.segment.slot(rank, step);
        let sums = if phases.gather { Sums::Returned } else { Sums::Kept };
        if phases.reduce {
            // SAFETY: slots are at least as long as a step and begin with a cache line; the ranks do not touch them from the
            // count of the step as given to that as summed.
            unsafe { sum_at(header.dtype, own, (self.rank, self.world), place, sums) };
        } else {
            for rank in (0..self.world).filter(|rank| *rank != self.rank) {
                let slot: NonNull<u8> = place(rank);
                // SAFETY: as above.
                unsafe { slot.as_ptr().copy_from_nonoverlapping(own.as_ptr(), own.len()) };
            }
        }
        self.summed += 1;
        self.segment.count_summed(step + 1);
        for lane in links.iter().filter_map(|link| link.lane.as_ref()) {
            lane.notify();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_earlier_calls_and_of_liars_count_no_steps_that_are_not_there() {
        assert_eq!(since(10, 10, 5), 0);
        assert_eq!(since(12, 10, 5), 2);
        assert_eq!(since(8, 10, 5), 0, "of an earlier call");
        assert_eq!(since(u64::MAX, 10, 5), 0);
        assert_eq!(since(1 << 40, 10, 5), 5);
    }

    #[test]
    fn steps_cover_a_segment() {
        let segment = 100..1000;
        let all: Vec<_> = (0..steps(&segment, 256)).map(|step| step_of(&segment, 256, step)).collect();
        assert_eq!(all, [100..356, 356..612, 612..868, 868..1000]);
        assert_eq!(steps(&(5..5), 256), 0);
    }
}
