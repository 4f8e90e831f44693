//! Who is connected, and who is let in.

use std::collections::BTreeMap;

use unimse_core::id::WorkerId;
use unimse_core::machine::{Machine, Order};
use unimse_core::worker::{Worker, WorkerState};
use unimse_proto::session::{Hello, ToAgent};

use super::message::{Link, Rejection, SessionKey};
use crate::journal::Identity;
use crate::meters::{Count, Meters};

#[derive(Debug, Default)]
pub(super) struct Sessions {
    links: BTreeMap<WorkerId, (u64, Link)>,
    serial: u64,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    pub(super) fn is_current(&self, key: SessionKey) -> bool {
        self.links.get(&key.worker).is_some_and(|(serial, _)| *serial == key.serial)
    }

    /// Checks what only the shell knows; the machine has its own say.
    pub(super) fn admit(&self, machine: &Machine, identity: &Identity, hello: &Hello) -> Result<(), Rejection> {
        let reject = |reason| Err(Rejection { reason, register_anew: false });
        if let Some(cluster) = hello.cluster.as_ref().filter(|cluster| **cluster != identity.cluster) {
            return reject(format!(
                "the worker belongs to cluster {cluster}, this is {}; restart it if it is to change over",
                identity.cluster
            ));
        }
        if hello.epoch > identity.epoch {
            return reject(format!(
                "the worker has seen epoch {} of this cluster, but this coordinator is at {}: it runs on an old copy of the state",
                hello.epoch, identity.epoch
            ));
        }
        let namesake = machine.namesake(&hello.info);
        if namesake.and_then(|worker| self.links.get(&worker)).is_some_and(|(_, link)| !link.orders.is_closed()) {
            let node = &hello.info.node;
            return reject(format!(
                "a worker named `{node}` is connected already; give each agent of a machine its own --name"
            ));
        }
        Ok(())
    }

    /// Puts a session in the place of an older one of that worker, and welcomes it.
    pub(super) fn install(&mut self, worker: WorkerId, link: Link, welcome: ToAgent) -> SessionKey {
        self.serial += 1;
        // A queue that nobody has written to yet has room.
        let _has_room = link.orders.try_send(welcome);
        self.links.insert(worker, (self.serial, link));
        SessionKey { worker, serial: self.serial }
    }

    pub(super) fn close(&mut self, key: SessionKey) {
        if self.is_current(key) {
            self.links.remove(&key.worker);
        }
    }

    /// Queues an order. An agent that does not keep up loses its session: it comes back and hears again what is still wanted.
    pub(super) fn send(&mut self, worker: WorkerId, order: Order, meters: &Meters) {
        let Some((_, link)) = self.links.get(&worker) else { return };
        if link.orders.try_send(ToAgent::Order(order)).is_err() {
            tracing::warn!(%worker, "the agent does not take its orders; dropped its session");
            self.links.remove(&worker);
            meters.count(Count::SessionDropped);
        }
    }

    /// Tells agents that were declared lost, while connected, to start over. One that has left hears the end of its session.
    pub(super) fn dismiss_lost(&mut self, machine: &Machine, meters: &Meters) {
        let workers = &machine.state().workers;
        self.links.retain(|worker, (_, link)| {
            let reason = match workers.get(worker) {
                Some(record) if record.alive() => return true,
                Some(Worker { state: WorkerState::Left { .. }, info, .. }) => {
                    tracing::info!(%worker, node = info.node, "worker has left");
                    return false;
                }
                Some(record) => record.gone().unwrap_or_default().to_owned(),
                None => "it is unknown".to_owned(),
            };
            tracing::warn!(%worker, reason, "told a lost worker to register anew");
            let _hears_it_when_it_comes_back = link.orders.try_send(ToAgent::Refused { reason, register_anew: true });
            meters.count(Count::SessionDropped);
            false
        });
    }
}
