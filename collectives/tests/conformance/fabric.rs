//! Where the suite gets its groups from.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use unimse_collectives::tcp::{self, Listener, Rendezvous, Secret};
use unimse_collectives::{Collective, local, nccl};

/// Makes groups of one back end.
pub(crate) trait Fabric: Sync {
    /// The ranks of a new group, by rank.
    fn form(&self, world: u32) -> Vec<Box<dyn Collective>>;
}

/// Ranks of the `local` back end.
pub(crate) struct Threads;

impl Fabric for Threads {
    fn form(&self, world: u32) -> Vec<Box<dyn Collective>> {
        local::group(world, 1).into_iter().map(|rank| Box::new(rank) as Box<dyn Collective>).collect()
    }
}

/// Ranks of the `tcp` back end, all in this process.
pub(crate) struct Loopback;

impl Fabric for Loopback {
    fn form(&self, world: u32) -> Vec<Box<dyn Collective>> {
        loopback(world).into_iter().map(|rank| Box::new(rank) as Box<dyn Collective>).collect()
    }
}

/// Ranks of the `tcp` back end that may not use shared memory, as if they were on different hosts.
pub(crate) struct Network;

impl Fabric for Network {
    fn form(&self, world: u32) -> Vec<Box<dyn Collective>> {
        let ranks = connected(listeners(world).into_iter().map(|(rank, listener)| (rank, listener.network_only())));
        ranks.into_iter().map(|rank| Box::new(rank) as Box<dyn Collective>).collect()
    }
}

/// Ranks of the `nccl` back end, as many as asked for but at most one a GPU.
pub(crate) struct Gpu;

impl Fabric for Gpu {
    fn form(&self, world: u32) -> Vec<Box<dyn Collective>> {
        let world = world.min(nccl::device_count().unwrap());
        thread::scope(|scope| {
            let threads: Vec<_> = loopback(world)
                .into_iter()
                .map(|control| {
                    scope.spawn(move || {
                        let device = control.rank();
                        nccl::connect(Box::new(control), device, Duration::from_mins(1)).unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| Box::new(thread.join().unwrap()) as Box<dyn Collective>).collect()
        })
    }
}

/// Listeners for a group on the loopback interface, and what their ranks need to meet.
pub(crate) fn listeners(world: u32) -> Vec<(Rendezvous, Listener)> {
    let listeners: Vec<_> = (0..world).map(|_| Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap()).collect();
    let peers: Vec<SocketAddr> = listeners.iter().map(Listener::address).collect();
    listeners
        .into_iter()
        .zip(0..)
        .map(|(listener, rank)| {
            let secret = Secret::new(b"the job's token");
            (Rendezvous { secret, generation: 1, rank, peers: peers.clone() }, listener)
        })
        .collect()
}

/// A group of the `tcp` back end.
pub(crate) fn loopback(world: u32) -> Vec<tcp::Tcp> {
    connected(listeners(world).into_iter())
}

/// Forms a group, each rank in a thread.
pub(crate) fn connected(ranks: impl Iterator<Item = (Rendezvous, Listener)>) -> Vec<tcp::Tcp> {
    thread::scope(|scope| {
        let threads: Vec<_> = ranks
            .map(|(rendezvous, listener)| {
                scope.spawn(move || tcp::connect(&rendezvous, listener, Duration::from_secs(20)).unwrap())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
