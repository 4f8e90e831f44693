//! One rank's bytes for everybody.

use super::mesh::{Mesh, Pass};
use crate::Result;
use crate::header::Header;

/// Passes `bytes`, as long on every rank, along the ranks root, root+1, ...: each sends on what it has received so far, so that a large broadcast
/// takes about the time of one transfer, whatever the number of ranks.
pub(super) fn run(mesh: &mut Mesh, header: &Header, bytes: &mut [u8]) -> Result<()> {
    let (rank, world, len) = (mesh.rank(), mesh.world(), bytes.len());
    let distance = (rank + world - header.root as usize) % world;
    let previous = (distance > 0).then(|| ((rank + world - 1) % world) as u32);
    let next = (distance + 1 < world).then(|| ((rank + 1) % world) as u32);
    let on_sockets = mesh.on_sockets();
    mesh.announce(header, &[], |peer, _| if on_sockets && Some(peer) == previous { len } else { 0 })?;
    let mut have = if distance == 0 { len } else { 0 };
    let mut passed = if next.is_some() { 0 } else { len };
    mesh.drive(|links, _| {
        let mut moved = false;
        for link in links {
            if Some(link.peer) == previous {
                let count = link.receive_payload(&mut bytes[have..])?;
                have += count;
                moved |= count > 0;
            }
            if Some(link.peer) == next {
                let count = link.send_payload(&bytes[passed..have], have < len)?;
                passed += count;
                moved |= count > 0;
            }
        }
        Ok(Pass::of(have == len && passed == len, moved))
    })
}
