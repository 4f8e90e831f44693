//! The connections of a rank and the loop that drives a call over all of them.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::link::Link;
use super::poll::{CLOSED, LANE, LIMITED, NOT_OF_SOCKETS, PollSet};
use super::shared::{Lane, Segment};
use super::uplink::Uplink;
use crate::abort::Abort;
use crate::buffer::bytes_of;
use crate::header::{HEADER_BYTES, Header, Parting};
use crate::{Error, Group, Result};

/// Tries without any progress before the thread sleeps in `poll`. Each gives way to other threads, so that ranks which share
/// a core do not hinder one another; more than a few gain nothing there and cost a time slice where others compute.
const SPINS: u32 = 5;
/// How long the bell of the shared memory is listened to before the sockets are looked at for peers that closed.
const LISTEN: Duration = Duration::from_millis(5);
/// The largest length that a peer may announce where ours does not bound it.
const MAX_ANNOUNCED: u64 = 4 << 30;
/// The piece in which large sums are received and added: all ranks' pieces together stay in the second-level cache.
pub(super) const PIECE: usize = 128 << 10;

/// Stops a rank from any thread: shutting the sockets down wakes its `poll` and tells the peers at the same time.
#[derive(Debug, Default)]
pub(super) struct Aborter {
    aborted: AtomicBool,
    streams: Mutex<Vec<Weak<TcpStream>>>,
}

impl Abort for Aborter {
    fn abort(&self) {
        self.aborted.store(true, Ordering::SeqCst);
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Some(stream) = stream.upgrade() {
                // Fails only if the peer has closed already, which is as good.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::SeqCst)
    }
}

impl Aborter {
    fn watch(&self, links: &[Link]) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.extend(links.iter().map(|link| Arc::downgrade(link.stream())));
        drop(streams);
        if self.is_aborted() {
            // The abort came before the streams were known.
            self.abort();
        }
    }
}

/// What one pass over the links achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// The phase is finished.
    Done,
    /// Something was sent or received.
    Moved,
    /// Nothing can move until a socket is ready.
    Stuck,
}

impl Pass {
    pub(super) fn of(done: bool, moved: bool) -> Self {
        match (done, moved) {
            (true, _) => Self::Done,
            (false, true) => Self::Moved,
            (false, false) => Self::Stuck,
        }
    }
}

/// All connections of a rank.
#[derive(Debug)]
pub(super) struct Mesh {
    group: Group,
    /// By rank, without this rank.
    links: Vec<Link>,
    /// Room for one piece from every rank, as words for alignment.
    pieces: Vec<u64>,
    /// Our shared memory, if the ranks of the group are on one host.
    segment: Option<Arc<Segment>>,
    /// The steps that were added up in the slots of that memory.
    pub(super) summed: u64,
    aborter: Arc<Aborter>,
    polled: PollSet,
    broken: Option<Error>,
    /// The call in progress, as we announced it, and its limit.
    ours: Header,
    operation: &'static str,
    timeout: Duration,
    deadline: Instant,
}

impl Mesh {
    pub(super) fn new(group: Group, links: Vec<Link>, aborter: Arc<Aborter>) -> Result<Self> {
        aborter.watch(&links);
        if aborter.is_aborted() {
            return Err(Error::Aborted);
        }
        let room = if links.is_empty() { 0 } else { PIECE / 8 * group.world_size as usize };
        Ok(Self {
            group,
            links,
            pieces: vec![0; room],
            segment: None,
            summed: 0,
            aborter,
            polled: PollSet::default(),
            broken: None,
            ours: Header::goodbye(Parting::InPeace),
            operation: "connect",
            timeout: Duration::ZERO,
            deadline: Instant::now(),
        })
    }

    /// From now on large payloads travel through shared memory; `theirs` are the other ranks' segments, by rank.
    pub(super) fn share(&mut self, own: Segment, theirs: Vec<Segment>) {
        let own = Arc::new(own);
        let rank = self.rank();
        for (link, theirs) in self.links.iter_mut().zip(theirs) {
            link.lane = Some(Lane::new(Arc::clone(&own), theirs, rank, link.peer as usize));
        }
        self.segment = Some(own);
    }

    /// From now on all that this rank sends leaves it at this rate.
    pub(super) fn slow_down(&mut self, bytes_per_second: u64) {
        let uplink = Arc::new(Uplink::new(bytes_per_second));
        for link in &mut self.links {
            link.uplink = Some(Arc::clone(&uplink));
        }
    }

    pub(super) fn rank(&self) -> usize {
        self.group.rank as usize
    }

    pub(super) fn world(&self) -> usize {
        self.group.world_size as usize
    }

    pub(super) fn aborter(&self) -> Arc<Aborter> {
        Arc::clone(&self.aborter)
    }

    /// Fails if an earlier call did.
    pub(super) fn check(&self) -> Result<()> {
        if self.aborter.is_aborted() {
            return Err(Error::Aborted);
        }
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Fails if a peer has closed its connection.
    pub(super) fn probe(&self) -> Result<()> {
        self.links.iter().find(|link| link.is_closed()).map_or(Ok(()), |link| Err(link.lost()))
    }

    /// Begins a call with its time limit.
    pub(super) fn limit(&mut self, operation: &'static str, now: Instant, timeout: Duration) {
        (self.operation, self.timeout, self.deadline) = (operation, timeout, now + timeout);
    }

    /// The length that a peer announced for the current call.
    pub(super) fn announced_len(&self, peer: u32) -> Result<usize> {
        let announced = self.links.iter().find(|link| link.peer == peer).and_then(|link| link.announced);
        match announced {
            Some(header) if header.len <= MAX_ANNOUNCED => Ok(header.len as usize),
            other => Err(Error::Protocol {
                rank: peer,
                what: format!("it announced {} bytes", other.map_or(0, |header| header.len)),
            }),
        }
    }

    /// Begins a phase of a call on all links.
    pub(super) fn rewind(&mut self) {
        for link in &mut self.links {
            (link.sent, link.received) = (0, 0);
        }
    }

    /// Our shared memory, if the ranks of the group are on one host.
    pub(super) fn segment(&self) -> Option<Arc<Segment>> {
        self.segment.clone()
    }

    /// Counts the steps of a finished call, by the rank that owned them.
    pub(super) fn count_steps(&mut self, steps: impl Fn(u32) -> u64) {
        for link in &mut self.links {
            link.steps += steps(link.peer);
        }
    }

    /// Whether large payloads travel on the sockets, not through shared memory.
    pub(super) fn on_sockets(&self) -> bool {
        self.segment.is_none()
    }

    /// Sends this rank's header, and `payload` right behind it, to everybody and receives everybody's header.
    ///
    /// `due` tells from a peer's rank and header how many bytes of this call will follow it on the socket: a peer may have
    /// finished the call and closed while others still have to announce theirs.
    pub(super) fn announce(
        &mut self,
        ours: &Header,
        payload: &[u8],
        due: impl Fn(u32, &Header) -> usize,
    ) -> Result<()> {
        self.rewind();
        self.ours = *ours;
        for link in &mut self.links {
            (link.announced, link.due, link.left) = (None, 0, false);
        }
        let encoded = ours.encode();
        let whole = HEADER_BYTES + payload.len();
        self.drive(|links, _| {
            let (mut moved, mut done) = (false, true);
            let mut failure = None;
            for link in &mut *links {
                if link.sent < whole {
                    // A peer that has failed is not sent to any more, yet what it said before it failed is worth reading.
                    let sent = link.send_pair(&encoded, payload, link.sent).unwrap_or(0);
                    link.sent += sent;
                    link.mid_message = link.sent > 0 && link.sent < whole;
                    moved |= sent > 0;
                }
            }
            for link in links {
                if link.announced.is_none() {
                    match link.receive_header().and_then(|header| judge(link.peer, ours, header)) {
                        Ok(header) => link.announced = header,
                        Err(error) => failure = Some(more_telling(failure, error)),
                    }
                    if let Some(header) = &link.announced {
                        link.due = due(link.peer, header);
                        moved = true;
                    }
                }
                done &= link.announced.is_some() && link.sent == whole;
            }
            failure.map_or_else(|| Ok(Pass::of(done, moved)), Err)
        })
    }

    /// Makes passes until one is done; sleeps when none can move; fails on abort and at the deadline.
    pub(super) fn drive(&mut self, mut pass: impl FnMut(&mut [Link], &mut [u8]) -> Result<Pass>) -> Result<()> {
        let mut stuck = 0;
        // Set while the peers know that we are about to sleep, with what our bell showed before the last pass.
        let mut armed = None;
        loop {
            if self.aborter.is_aborted() {
                return Err(Error::Aborted);
            }
            for link in &mut self.links {
                link.stuck_on = 0;
            }
            let outcome = pass(&mut self.links, bytes_of(&mut self.pieces));
            match outcome {
                Ok(Pass::Stuck) if stuck < SPINS => {
                    stuck += 1;
                    std::thread::yield_now();
                }
                Ok(Pass::Stuck) => match (&self.segment, armed.take()) {
                    (Some(segment), None) if self.links.iter().any(|link| link.stuck_on & LANE != 0) => {
                        armed = Some(segment.arm());
                    }
                    (_, seen) => self.sleep(seen)?,
                },
                outcome => {
                    stuck = 0;
                    if let (Some(segment), Some(_)) = (&self.segment, armed.take()) {
                        segment.disarm();
                    }
                    if outcome? == Pass::Done {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sleeps until something that the last pass was stuck on may have changed, or a peer that is waited for no more closes.
    /// With `seen` that is our bell; the sockets are looked at when it has not rung for a while.
    fn sleep(&mut self, seen: Option<u32>) -> Result<()> {
        let waiting_for = self.links.iter().find(|link| link.stuck_on != 0).map_or(0, |link| link.peer);
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Timeout { operation: self.operation, rank: waiting_for, after: self.timeout });
        }
        let mut at_most = left;
        if let (Some(segment), Some(seen)) = (&self.segment, seen) {
            let before = Instant::now();
            segment.sleep(seen, left.min(LISTEN));
            segment.disarm();
            if before.elapsed() < LISTEN {
                return Ok(());
            }
            at_most = Duration::ZERO;
        }
        for link in self.links.iter().filter(|link| link.stuck_on & LIMITED != 0) {
            at_most = at_most.min(link.uplink.as_ref().map_or(left, |uplink| uplink.wait(Instant::now())));
        }
        self.polled.clear();
        for link in &self.links {
            let sockets = link.stuck_on & !NOT_OF_SOCKETS;
            let events = if sockets == 0 && !link.left { CLOSED } else { sockets };
            // A negative descriptor is skipped by the kernel and keeps the places in step with the links.
            self.polled.add(if events == 0 { -1 } else { link.fd() }, events);
        }
        self.polled.wait(at_most).map_err(|source| Error::io("wait for peers", source))?;
        for (place, link) in self.links.iter_mut().enumerate() {
            if link.stuck_on & !NOT_OF_SOCKETS == 0 && !link.left && self.polled.happened(place, CLOSED) {
                link.judge_leaving(&self.ours)?;
            }
        }
        Ok(())
    }

    /// Ends the group: tells the peers whom to blame where that is possible, closes all connections, and returns the error
    /// that this and all later calls report.
    pub(super) fn fail(&mut self, error: Error) -> Error {
        let error = if self.aborter.is_aborted() { Error::Aborted } else { error };
        let parting = match &error {
            Error::PeerLost { rank } | Error::Timeout { rank, .. } | Error::Protocol { rank, .. } => {
                Parting::Lost(*rank)
            }
            Error::Mismatch { rank, .. } => Parting::Mismatch(*rank),
            _ => Parting::Lost(self.group.rank),
        };
        let goodbye = Header::goodbye(parting).encode();
        for link in self.links.iter().filter(|link| !link.mid_message && parting != Parting::Lost(link.peer)) {
            link.send_last(&goodbye);
        }
        self.links.clear();
        tracing::debug!(rank = self.group.rank, generation = self.group.generation, %error, "group broken");
        self.broken.insert(error).clone()
    }
}

impl Drop for Mesh {
    /// Tells the peers that nothing has gone wrong.
    fn drop(&mut self) {
        if !self.aborter.is_aborted() {
            for link in &self.links {
                // A peer that has left already needs no farewell.
                link.send_last(&Header::goodbye(Parting::InPeace).encode());
            }
        }
    }
}

/// The links from the next rank round to the previous one, so that not all ranks send to the first one first.
pub(super) fn from_next(links: &mut [Link], rank: usize) -> impl Iterator<Item = &mut Link> {
    let (before, after) = links.split_at_mut(rank);
    after.iter_mut().chain(before)
}

/// Checks a peer's header against ours.
fn judge(peer: u32, ours: &Header, theirs: Option<Header>) -> Result<Option<Header>> {
    if let Some(parting) = theirs.and_then(|theirs| theirs.parting()) {
        return Err(parting.error(peer, ours));
    }
    match theirs {
        Some(theirs) if !ours.agrees_with(&theirs) => {
            Err(Error::Mismatch { rank: peer, ours: ours.to_string(), theirs: theirs.to_string() })
        }
        theirs => Ok(theirs),
    }
}

/// Of several failures found at once, the one that explains the others: peers that disagree close their connections.
fn more_telling(known: Option<Error>, new: Error) -> Error {
    match (known, new) {
        (None, new) | (Some(Error::PeerLost { .. }), new @ (Error::Mismatch { .. } | Error::Protocol { .. })) => new,
        (Some(known), _) => known,
    }
}
