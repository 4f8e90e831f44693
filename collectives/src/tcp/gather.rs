//! Everybody's bytes for everybody.

use super::mesh::{Mesh, Pass};
use crate::Result;
use crate::header::{HEADER_BYTES, Header};

/// Up to here the bytes ride behind the header.
const SMALL: usize = 64 << 10;

/// Sends `bytes` straight to every peer and receives theirs; the lengths are in the headers.
pub(super) fn run(mesh: &mut Mesh, header: &Header, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let inline = if bytes.len() <= SMALL { bytes } else { &[] };
    mesh.announce(header, inline)?;
    let mut gathered = Vec::with_capacity(mesh.world());
    for rank in 0..mesh.world() {
        let len = if rank == mesh.rank() { 0 } else { mesh.announced_len(rank as u32)? };
        gathered.push(vec![0; len]);
    }
    let already = inline.len();
    mesh.drive(|links, _| {
        let (mut moved, mut done) = (false, true);
        for link in links {
            let sent = link.sent - HEADER_BYTES;
            debug_assert!(sent >= already, "the inline bytes were sent with the header");
            let count = link.send(&bytes[sent..])?;
            link.sent += count;
            link.mid_message = sent + count < bytes.len();
            let target = &mut gathered[link.peer as usize];
            let received = link.receive(&mut target[link.received..])?;
            link.received += received;
            moved |= count > 0 || received > 0;
            done &= sent + count == bytes.len() && link.received == target.len();
        }
        Ok(Pass::of(done, moved))
    })?;
    gathered[mesh.rank()] = bytes.to_vec();
    Ok(gathered)
}
