//! Workers, and the coordinator itself.

use unimse_core::machine::Event;
use unimse_core::view::NodeView;
use unimse_proto::Error;
use unimse_proto::client::Info;

use crate::handle::Handle;
use crate::resolve;

pub(super) async fn list(handle: &Handle) -> Result<Vec<NodeView>, Error> {
    Ok(handle.query(|present| present.machine.node_views()).await?)
}

pub(super) async fn drain(handle: &Handle, node: &str, drained: bool) -> Result<(), Error> {
    let text = node.to_owned();
    let worker = handle.query(move |present| resolve::worker(present.machine.state(), &text)).await??;
    let event = if drained { Event::Drain { worker } } else { Event::Undrain { worker } };
    handle.apply(event).await?;
    Ok(())
}

pub(crate) async fn info(handle: &Handle) -> Result<Info, Error> {
    let about = handle.about().clone();
    let look = move |present: &crate::service::Present<'_>| {
        let (slots_total, slots_used) = present.slots();
        let alive = present.machine.state().workers.values().filter(|worker| worker.alive()).count();
        Info {
            cluster: about.identity.cluster,
            epoch: about.identity.epoch,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state_dir: about.state_dir,
            checkpoint_uri: about.checkpoint_uri,
            started: about.started,
            jobs: present.job_counts(),
            lease: about.lease,
            workers: u32::try_from(alive).unwrap_or(u32::MAX),
            slots_total,
            slots_used,
        }
    };
    Ok(handle.query(look).await?)
}
