//! Sums and gathers by segments: each rank owns one, receives everybody's part of it and sends the sum to everybody.

use std::ops::Range;

use super::link::Link;
use super::mesh::{Mesh, PIECE, Pass, from_next};
use super::slotted;
use crate::header::Header;
use crate::sum::sum_in_rank_order;
use crate::{Result, segment};

/// Which of the two phases of an all-reduce are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Phases {
    /// Everybody's parts go to the owner, who adds them up.
    pub(super) reduce: bool,
    /// The owner's numbers go to everybody.
    pub(super) gather: bool,
}

impl Phases {
    pub(super) const BOTH: Self = Self { reduce: true, gather: true };
    pub(super) const REDUCE_SCATTER: Self = Self { reduce: true, gather: false };
    pub(super) const ALL_GATHER: Self = Self { reduce: false, gather: true };
}

pub(super) fn run(mesh: &mut Mesh, header: &Header, bytes: &mut [u8], phases: Phases) -> Result<()> {
    if mesh.world() == 1 {
        return Ok(());
    }
    let (world, len, size) = (mesh.world() as u32, header.len as usize, header.dtype.size());
    let of_rank = |rank: u32| {
        let elements = segment(len, world, rank);
        elements.start * size..elements.end * size
    };
    if mesh.on_sockets() {
        over_sockets(mesh, header, bytes, phases, of_rank)
    } else {
        slotted::run(mesh, header, bytes, phases, of_rank)
    }
}

/// To peer p this rank sends its part of p's segment, then its own summed segment as far as it is; from p it receives p's
/// part of the own segment into `pieces`, then p's summed segment in place. In place is safe: p can have summed only what
/// it received from us before.
fn over_sockets(
    mesh: &mut Mesh,
    header: &Header,
    bytes: &mut [u8],
    phases: Phases,
    of_rank: impl Fn(u32) -> Range<usize>,
) -> Result<()> {
    let (rank, world, dtype) = (mesh.rank(), mesh.world(), header.dtype);
    let own = of_rank(rank as u32);
    let parts = |segment: &Range<usize>| if phases.reduce { segment.len() } else { 0 };
    let sums = |segment: &Range<usize>| if phases.gather { segment.len() } else { 0 };
    let due = |peer: u32, _: &Header| parts(&own) + sums(&of_rank(peer));
    mesh.announce(header, &[], due)?;
    let mut summed = if phases.reduce { 0 } else { own.len() };
    mesh.rewind();
    mesh.drive(|links, pieces| {
        let (mut moved, mut done, mut ready) = (false, true, true);
        let piece = PIECE.min(own.len() - summed);
        for link in from_next(links, rank) {
            let theirs = of_rank(link.peer);
            let (part, sum) = (theirs.start..theirs.start + parts(&theirs), own.start..own.start + sums(&own));
            moved |= send_next(link, bytes, &part, &sum, summed)?;
            let count = if link.received < parts(&own) {
                let have = link.received - summed;
                link.receive_payload(&mut pieces[link.peer as usize * PIECE..][have..piece])?
            } else {
                let from = theirs.start + link.received - parts(&own);
                link.receive_payload(&mut bytes[from..theirs.start + sums(&theirs)])?
            };
            link.received += count;
            moved |= count > 0;
            ready &= link.received >= summed + piece;
            done &= link.sent == parts(&theirs) + sums(&own) && link.received == parts(&own) + sums(&theirs);
        }
        if ready && piece > 0 {
            let place = own.start + summed..own.start + summed + piece;
            sum_in_rank_order(dtype, &mut bytes[place], rank, world, pieces, PIECE);
            summed += piece;
            moved = true;
            done = false;
        }
        Ok(Pass::of(done && summed == own.len(), moved))
    })
}

/// Sends the next bytes that are due to a peer: our part of its segment, then what is summed of ours.
fn send_next(link: &mut Link, bytes: &[u8], part: &Range<usize>, own: &Range<usize>, summed: usize) -> Result<bool> {
    let due = if link.sent < part.len() {
        &bytes[part.start + link.sent..part.end]
    } else {
        &bytes[own.start + link.sent - part.len()..own.start + summed.min(own.len())]
    };
    let whole = part.len() + own.len();
    let count = link.send_payload(due, link.sent + due.len() < whole)?;
    link.sent += count;
    Ok(count > 0)
}
