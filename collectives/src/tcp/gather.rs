//! Everybody's bytes for everybody.

use super::mesh::{Mesh, Pass};
use crate::Result;
use crate::header::Header;

/// Up to here the bytes ride behind the header.
const SMALL: usize = 64 << 10;

/// Sends `bytes` straight to every peer and receives theirs; the lengths are in the headers.
pub(super) fn run(mesh: &mut Mesh, header: &Header, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let (inline, rest) = if bytes.len() <= SMALL { (bytes, &[][..]) } else { (&[][..], bytes) };
    let on_sockets = mesh.on_sockets();
    let due = |_, theirs: &Header| if theirs.len <= SMALL as u64 || on_sockets { theirs.len as usize } else { 0 };
    mesh.announce(header, inline, due)?;
    let mut gathered = Vec::with_capacity(mesh.world());
    for rank in 0..mesh.world() {
        let len = if rank == mesh.rank() { 0 } else { mesh.announced_len(rank as u32)? };
        gathered.push(vec![0; len]);
    }
    // First what came with the headers, then what is sent now: the two may travel on different ways.
    mesh.rewind();
    mesh.drive(|links, _| {
        let (mut moved, mut done) = (false, true);
        for link in links {
            let target = &mut gathered[link.peer as usize];
            if target.len() <= SMALL {
                let count = link.receive(&mut target[link.received..])?;
                link.received += count;
                moved |= count > 0;
                done &= link.received == target.len();
            }
        }
        Ok(Pass::of(done, moved))
    })?;
    mesh.drive(|links, _| {
        let (mut moved, mut done) = (false, true);
        for link in links {
            let sent = link.send_payload(&rest[link.sent..], false)?;
            link.sent += sent;
            let target = &mut gathered[link.peer as usize];
            let received = link.receive_payload(&mut target[link.received..])?;
            link.received += received;
            moved |= sent > 0 || received > 0;
            done &= link.sent == rest.len() && link.received == target.len();
        }
        Ok(Pass::of(done, moved))
    })?;
    gathered[mesh.rank()] = bytes.to_vec();
    Ok(gathered)
}
