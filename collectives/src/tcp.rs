//! Ranks as processes that are joined by a full mesh of TCP connections.
//!
//! Every call begins with a header from every rank to every other, so that a difference between their calls is found by
//! all of them. Small sums travel with the header and are added up by everybody (one way across the network); large ones
//! are cut into one segment a rank: each rank receives its segment from all others piece by piece, adds them in rank order
//! and passes the sum on while later pieces still arrive (reduce-scatter and all-gather, 2(n-1)/n of the bytes each way,
//! as a ring moves, in two hops instead of 2(n-1)). Broadcasts run along a chain of ranks, gathers go straight.
//!
//! Where all ranks are on one host, sums of some KiB and other payloads above 64 KiB go through memory that they share; the
//! sockets keep the rest.
//!
//! One thread does it all: non-blocking sockets, a short spin for latency, then `poll`. No call allocates, but for the
//! vectors that `broadcast_bytes` and `all_gather_bytes` return and what the largest compressed sum so far needed.

mod all_reduce;
mod broadcast;
mod forming;
mod gather;
mod handshake;
mod link;
mod mesh;
mod poll;
mod segments;
mod shared;
mod slotted;
mod uplink;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use half::bf16;
pub use handshake::Secret;
use mesh::{Aborter, Mesh};
use segments::Phases;
use shared::Segment;

use crate::abort::Abort;
use crate::buffer::bytes_of;
use crate::header::{Header, Operation};
use crate::sum::check_summable;
use crate::wire;
use crate::{AbortHandle, Buffer, Collective, DEFAULT_TIMEOUT, DType, Error, Group, Result, Wire};

/// Waits for the peers of one group; made before the addresses are told to anybody.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    network_only: bool,
    /// The rate of an emulated uplink.
    bytes_per_second: Option<u64>,
    aborter: Arc<Aborter>,
}

impl Listener {
    /// Binds to an address; port 0 lets the system choose one.
    pub fn bind(address: SocketAddr) -> Result<Self> {
        let io = |source| Error::io("bind a listener for peers", source);
        let socket = TcpListener::bind(address).map_err(io)?;
        socket.set_nonblocking(true).map_err(io)?;
        let address = socket.local_addr().map_err(io)?;
        Ok(Self { socket, address, network_only: false, bytes_per_second: None, aborter: Arc::default() })
    }

    /// The address that peers connect to (with the port that the system chose).
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Keeps the group off shared memory, also where all its ranks are on this host.
    #[must_use]
    pub fn network_only(mut self) -> Self {
        self.network_only = true;
        self
    }

    /// Emulates a slow network, for experiments: keeps the group off shared memory and lets what this rank sends to all its
    /// peers together leave it at this rate, as over the one uplink of a host (12.5 million are 100 Mbit/s).
    ///
    /// An idle line saves nothing up. What the ranks receive is limited by what their peers send.
    #[must_use]
    pub fn limited(mut self, bytes_per_second: u64) -> Self {
        self.bytes_per_second = Some(bytes_per_second);
        self.network_only()
    }

    /// A handle that aborts the forming of the group and, later, its calls.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle::new(Arc::clone(&self.aborter) as Arc<dyn Abort>)
    }
}

/// All that the ranks of a group agree on before they meet.
#[derive(Debug, Clone)]
pub struct Rendezvous {
    /// Known to the ranks of the job alone; proves that a peer belongs to it.
    pub secret: Secret,
    /// The generation of the rank set.
    pub generation: u64,
    /// This rank.
    pub rank: u32,
    /// The listeners of all ranks, by rank; as many as the world has ranks.
    pub peers: Vec<SocketAddr>,
}

/// Forms a group: returns when this rank is connected to every other.
///
/// Strangers, zombies of other generations and holders of other secrets are turned away and do not disturb the forming.
pub fn connect(rendezvous: &Rendezvous, listener: Listener, timeout: Duration) -> Result<Tcp> {
    let group =
        Group { generation: rendezvous.generation, rank: rendezvous.rank, world_size: rendezvous.peers.len() as u32 };
    if group.rank >= group.world_size {
        let what = format!("rank {} in a world of {}", group.rank, group.world_size);
        return Err(Error::Unsupported { operation: "connect", what });
    }
    let aborter = Arc::clone(&listener.aborter);
    let links = forming::form(rendezvous, &listener, timeout)?;
    let (network_only, bytes_per_second) = (listener.network_only, listener.bytes_per_second);
    drop(listener);
    let mut group = Tcp { group, mesh: Mesh::new(group, links, aborter)?, sequence: 0, timeout, rounded: Vec::new() };
    let shared = group.share(network_only)?;
    if let Some(rate) = bytes_per_second {
        group.mesh.slow_down(rate);
    }
    group.timeout = DEFAULT_TIMEOUT;
    let Group { generation, rank, world_size } = group.group;
    tracing::debug!(generation, rank, world_size, shared, "group formed");
    Ok(group)
}

/// A rank that is a process among others, connected to each by TCP.
#[derive(Debug)]
pub struct Tcp {
    group: Group,
    mesh: Mesh,
    sequence: u64,
    timeout: Duration,
    /// The numbers of a compressed sum as they travel; kept so that later calls need not allocate.
    rounded: Vec<bf16>,
}

impl Tcp {
    /// Moves to shared memory if every rank can open every other's; returns whether it did.
    fn share(&mut self, network_only: bool) -> Result<bool> {
        let world = self.group.world_size as usize;
        if world == 1 {
            return Ok(false);
        }
        let made = if network_only { None } else { Segment::create(world).ok() };
        let offers = self.all_gather_bytes(&made.as_ref().map(|(_, offer)| offer.encode()).unwrap_or_default())?;
        let others = offers.iter().zip(0..).filter(|(_, rank)| *rank != self.group.rank);
        let opened: Option<Vec<_>> = others.map(|(offer, _)| Segment::open(offer, world).ok()).collect();
        let able = made.zip(opened);
        let votes = self.all_gather_bytes(&[u8::from(able.is_some())])?;
        // Everybody has opened what it could, so the files behind the offers may close now.
        match able {
            Some(((own, _), theirs)) if votes.iter().all(|vote| *vote == [1]) => {
                self.mesh.share(own, theirs);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Makes one call: checks the state, numbers it, bounds its time and breaks the group if it fails.
    fn call<T>(
        &mut self,
        operation: Operation,
        (dtype, root, len): (DType, u32, usize),
        body: impl FnOnce(&mut Mesh, Header) -> Result<T>,
    ) -> Result<T> {
        self.mesh.check()?;
        if root >= self.group.world_size {
            return Err(Error::Unsupported { operation: operation.name(), what: format!("root {root}") });
        }
        let header = Header { operation, dtype, root, sequence: self.sequence, len: len as u64 };
        self.sequence += 1;
        self.mesh.limit(operation.name(), Instant::now(), self.timeout);
        let outcome = body(&mut self.mesh, header);
        outcome.map_err(|error| self.mesh.fail(error))
    }
}

impl Collective for Tcp {
    fn group(&self) -> Group {
        self.group
    }

    fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    fn abort_handle(&self) -> AbortHandle {
        AbortHandle::new(self.mesh.aborter())
    }

    fn all_reduce(&mut self, mut buffer: Buffer<'_>) -> Result<()> {
        let shape = (buffer.dtype(), 0, buffer.len());
        check_summable("all_reduce", shape.0)?;
        let bytes = buffer.host_bytes("all_reduce")?;
        self.call(Operation::AllReduce, shape, |mesh, header| all_reduce::run(mesh, &header, bytes))
    }

    fn all_reduce_compressed(&mut self, values: &mut [f32], wire: Wire) -> Result<()> {
        let shape = (wire.dtype(), 0, values.len());
        let mut rounded = std::mem::take(&mut self.rounded);
        wire::round_to(values, &mut rounded);
        let bytes = bytes_of(&mut rounded);
        self.call(Operation::AllReduceCompressed, shape, |mesh, header| all_reduce::run(mesh, &header, bytes))?;
        wire::widen_to(&rounded, values);
        self.rounded = rounded;
        Ok(())
    }

    fn reduce_scatter(&mut self, mut buffer: Buffer<'_>) -> Result<()> {
        let shape = (buffer.dtype(), 0, buffer.len());
        check_summable("reduce_scatter", shape.0)?;
        let bytes = buffer.host_bytes("reduce_scatter")?;
        let body = |mesh: &mut Mesh, header| segments::run(mesh, &header, bytes, Phases::REDUCE_SCATTER);
        self.call(Operation::ReduceScatter, shape, body)
    }

    fn all_gather(&mut self, mut buffer: Buffer<'_>) -> Result<()> {
        let shape = (buffer.dtype(), 0, buffer.len());
        let bytes = buffer.host_bytes("all_gather")?;
        let body = |mesh: &mut Mesh, header| segments::run(mesh, &header, bytes, Phases::ALL_GATHER);
        self.call(Operation::AllGather, shape, body)
    }

    fn broadcast(&mut self, root: u32, mut buffer: Buffer<'_>) -> Result<()> {
        let shape = (buffer.dtype(), root, buffer.len());
        let bytes = buffer.host_bytes("broadcast")?;
        self.call(Operation::Broadcast, shape, |mesh, header| broadcast::run(mesh, &header, bytes))
    }

    fn broadcast_bytes(&mut self, root: u32, bytes: &mut Vec<u8>) -> Result<()> {
        let shape = (DType::Bytes, root, bytes.len());
        self.call(Operation::BroadcastBytes, shape, |mesh, header| {
            // Only the root knows the length, so it is told before the call proper is made.
            mesh.announce(&header, &[], |_, _| 0)?;
            if root != mesh.rank() as u32 {
                let len = mesh.announced_len(root)?;
                bytes.clear();
                bytes.resize(len, 0);
            }
            broadcast::run(mesh, &Header { len: bytes.len() as u64, ..header }, bytes)
        })
    }

    fn all_gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let shape = (DType::Bytes, 0, bytes.len());
        self.call(Operation::AllGatherBytes, shape, |mesh, header| gather::run(mesh, &header, bytes))
    }

    fn barrier(&mut self) -> Result<()> {
        self.call(Operation::Barrier, (DType::Bytes, 0, 0), |mesh, header| mesh.announce(&header, &[], |_, _| 0))
    }

    fn probe(&mut self) -> Result<()> {
        self.mesh.check()?;
        self.mesh.probe().map_err(|error| self.mesh.fail(error))
    }
}
