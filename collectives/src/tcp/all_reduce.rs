//! The sum over all ranks.

use std::ops::Range;

use super::link::Link;
use super::mesh::{Mesh, PIECE, Pass};
use crate::Result;
use crate::header::Header;
use crate::sum::sum_in_rank_order;

/// Up to here a payload rides behind the header to everybody: one hop, though (n-1) times the bytes.
const SMALL: usize = 64 << 10;

pub(super) fn run(mesh: &mut Mesh, header: &Header, bytes: &mut [u8]) -> Result<()> {
    if mesh.world() == 1 {
        return Ok(());
    }
    if bytes.len() <= SMALL && bytes.len() * (mesh.world() - 1) <= 4 * SMALL {
        small(mesh, header, bytes)
    } else {
        large(mesh, header, bytes)
    }
}

/// Everybody sends everything to everybody and adds it up.
fn small(mesh: &mut Mesh, header: &Header, bytes: &mut [u8]) -> Result<()> {
    mesh.announce(header, bytes, |_, _| bytes.len())?;
    let (rank, world, len) = (mesh.rank(), mesh.world(), bytes.len());
    mesh.drive(|links, pieces| {
        let (mut moved, mut done) = (false, true);
        for link in links {
            let piece = &mut pieces[link.peer as usize * PIECE..][..len];
            let count = link.receive(&mut piece[link.received..])?;
            link.received += count;
            moved |= count > 0;
            done &= link.received == len;
        }
        if done {
            sum_in_rank_order(header.dtype, bytes, rank, world, pieces, PIECE);
        }
        Ok(Pass::of(done, moved))
    })
}

/// Each rank owns a segment: it receives everybody's part of it, piece by piece, and sends the sum to everybody.
///
/// To peer p this rank sends its part of p's segment, then its own summed segment as far as it is; from p it receives p's
/// part of the own segment into `pieces`, then p's summed segment in place. In place is safe: p can have summed only what
/// it received from us before.
fn large(mesh: &mut Mesh, header: &Header, bytes: &mut [u8]) -> Result<()> {
    let (rank, world, dtype) = (mesh.rank(), mesh.world(), header.dtype);
    let elements = bytes.len() / dtype.size();
    let segment = |rank: usize| segment_of(rank, world, elements, dtype.size());
    let own = segment(rank);
    let on_sockets = mesh.on_sockets();
    let due = |peer: u32, _: &Header| if on_sockets { own.len() + segment(peer as usize).len() } else { 0 };
    mesh.announce(header, &[], due)?;
    let mut summed = 0;
    mesh.rewind();
    mesh.drive(|links, pieces| {
        let (mut moved, mut done, mut ready) = (false, true, true);
        let piece = PIECE.min(own.len() - summed);
        for link in &mut *links {
            let theirs = segment(link.peer as usize);
            moved |= send_next(link, bytes, &theirs, &own, summed)?;
            let count = if link.received < own.len() {
                let have = link.received - summed;
                link.receive_payload(&mut pieces[link.peer as usize * PIECE..][have..piece])?
            } else {
                link.receive_payload(&mut bytes[theirs.clone()][link.received - own.len()..])?
            };
            link.received += count;
            moved |= count > 0;
            ready &= link.received >= summed + piece;
            let whole = own.len() + theirs.len();
            done &= link.sent == whole && link.received == whole;
        }
        if ready && piece > 0 {
            let place = own.start + summed..own.start + summed + piece;
            sum_in_rank_order(dtype, &mut bytes[place], rank, world, pieces, PIECE);
            summed += piece;
            moved = true;
            done = false;
        }
        Ok(Pass::of(done, moved))
    })
}

/// Sends the next bytes that are due to a peer: its segment, then what is summed of ours.
fn send_next(link: &mut Link, bytes: &[u8], theirs: &Range<usize>, own: &Range<usize>, summed: usize) -> Result<bool> {
    let due = if link.sent < theirs.len() {
        &bytes[theirs.start + link.sent..theirs.end]
    } else {
        &bytes[own.start + link.sent - theirs.len()..own.start + summed]
    };
    let whole = theirs.len() + own.len();
    let count = link.send_payload(due, link.sent + due.len() < whole)?;
    link.sent += count;
    Ok(count > 0)
}

/// The bytes of a rank's segment: equal shares of whole elements, the first ones larger by one where it does not divide.
fn segment_of(rank: usize, world: usize, elements: usize, size: usize) -> Range<usize> {
    let (share, larger) = (elements / world, elements % world);
    let start = |rank: usize| (rank * share + rank.min(larger)) * size;
    start(rank)..start(rank + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_everything_once_in_order() {
        for (world, elements) in [(1, 5), (2, 5), (3, 2), (7, 100), (4, 0)] {
            let segments: Vec<_> = (0..world).map(|rank| segment_of(rank, world, elements, 4)).collect();
            assert_eq!(segments[0].start, 0);
            assert_eq!(segments[world - 1].end, elements * 4);
            assert!(segments.windows(2).all(|pair| pair[0].end == pair[1].start), "{segments:?}");
        }
    }
}
