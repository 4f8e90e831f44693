//! The sum over all ranks.

use super::mesh::{Mesh, PIECE, Pass};
use super::segments::{self, Phases};
use crate::Result;
use crate::header::Header;
use crate::sum::sum_in_rank_order;

/// Up to here a payload rides behind the header to everybody: one hop, though (n-1) times the bytes.
const SMALL: usize = 64 << 10;
/// What a rank sends in that way at most, to all its peers together.
const SMALL_IN_ALL: usize = 256 << 10;
/// The same where the way through shared memory is open.
const SMALL_IN_ALL_BESIDE_MEMORY: usize = 16 << 10;

pub(super) fn run(mesh: &mut Mesh, header: &Header, bytes: &mut [u8]) -> Result<()> {
    let in_all = if mesh.on_sockets() { SMALL_IN_ALL } else { SMALL_IN_ALL_BESIDE_MEMORY };
    if bytes.len() <= SMALL && bytes.len() * (mesh.world() - 1) <= in_all {
        small(mesh, header, bytes)
    } else {
        segments::run(mesh, header, bytes, Phases::BOTH)
    }
}

/// Everybody sends everything to everybody and adds it up.
fn small(mesh: &mut Mesh, header: &Header, bytes: &mut [u8]) -> Result<()> {
    if mesh.world() == 1 {
        return Ok(());
    }
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
