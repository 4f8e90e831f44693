//! The forming of a group: a rank dials all lower ranks and accepts all higher ones, at the same time, on one thread.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};

use super::handshake::{
    self, CHALLENGE_BYTES, Claim, HELLO_BYTES, Nonce, WELCOME_BYTES, read_challenge, read_hello, read_welcome,
};
use super::link::Link;
use super::poll::{CLOSED, PollSet, READABLE};
use super::{Listener, Rendezvous};
use crate::abort::Abort;
use crate::{Error, Refusal, Result};

/// How long the loop sleeps at most: an abort is noticed, and a dial tried again, within it.
const TICK: Duration = Duration::from_millis(20);
/// How long an accepted connection may take to prove itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a listener may refuse connections before its rank counts as lost: it was bound before its address was told.
const REFUSED_FOR: Duration = Duration::from_secs(2);
/// Accepted connections that have not proved themselves; further ones wait in the listener's queue.
const MAX_UNPROVEN: usize = 256;

/// Connects this rank to every other; the links come in rank order.
pub(super) fn form(rendezvous: &Rendezvous, listener: &Listener, timeout: Duration) -> Result<Vec<Link>> {
    let mut forming = Forming {
        rendezvous,
        dials: (0..rendezvous.rank).map(Dial::new).collect(),
        guests: Vec::new(),
        formed: Vec::new(),
        polled: PollSet::default(),
    };
    let started = Instant::now();
    while forming.missing().is_some() {
        if listener.aborter.is_aborted() {
            return Err(Error::Aborted);
        }
        let now = Instant::now();
        if let Some(rank) = forming.missing().filter(|_| now >= started + timeout) {
            return Err(Error::Timeout { operation: "connect", rank, after: timeout });
        }
        forming.dial(now)?;
        forming.greet(listener, now)?;
        if forming.missing().is_some() {
            forming.sleep(listener)?;
        }
    }
    let mut links = forming.formed;
    links.sort_by_key(|link| link.peer);
    Ok(links)
}

struct Forming<'a> {
    rendezvous: &'a Rendezvous,
    dials: Vec<Dial>,
    guests: Vec<Guest>,
    formed: Vec<Link>,
    polled: PollSet,
}

/// A connection to a lower rank on its way.
struct Dial {
    to: u32,
    stage: Stage,
    /// When the listener began to refuse connections.
    refused_since: Option<Instant>,
}

enum Stage {
    /// To be dialled (again) at this time.
    Waiting(Instant),
    /// The connection may not be there yet; the peer speaks first.
    AwaitChallenge(Incoming<CHALLENGE_BYTES>),
    AwaitWelcome {
        incoming: Incoming<WELCOME_BYTES>,
        challenge: Nonce,
        own: Nonce,
    },
    Formed,
}

/// An accepted connection that has not proved itself.
struct Guest {
    incoming: Incoming<HELLO_BYTES>,
    challenge: Nonce,
    until: Instant,
}

/// A connection and the part of the next message that has arrived.
struct Incoming<const N: usize> {
    stream: TcpStream,
    bytes: [u8; N],
    have: usize,
}

impl<const N: usize> Incoming<N> {
    fn new(stream: TcpStream) -> Self {
        Self { stream, bytes: [0; N], have: 0 }
    }

    /// Whether the whole message is there; reads not a byte beyond it.
    fn poll(&mut self) -> io::Result<bool> {
        while self.have < N {
            match self.stream.read(&mut self.bytes[self.have..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.have += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The connection is still being made.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Dial {
    fn new(to: u32) -> Self {
        Self { to, stage: Stage::Waiting(Instant::now()), refused_since: None }
    }
}

impl Forming<'_> {
    fn claim(&self, from: u32, to: u32) -> Claim {
        let world_size = self.rendezvous.peers.len() as u32;
        Claim { generation: self.rendezvous.generation, world_size, from, to }
    }

    /// The lowest rank that this one is not connected to.
    fn missing(&self) -> Option<u32> {
        let me = self.rendezvous.rank;
        let mut ranks = 0..self.rendezvous.peers.len() as u32;
        ranks.find(|&rank| rank != me && !self.formed.iter().any(|link| link.peer == rank))
    }

    /// Moves every dial as far as it goes now.
    fn dial(&mut self, now: Instant) -> Result<()> {
        for index in 0..self.dials.len() {
            let claim = self.claim(self.rendezvous.rank, self.dials[index].to);
            let dial = &mut self.dials[index];
            let stage = std::mem::replace(&mut dial.stage, Stage::Formed);
            let moved = match stage {
                Stage::Waiting(at) if now < at => Ok(Stage::Waiting(at)),
                Stage::Waiting(_) => start(self.rendezvous.peers[dial.to as usize])
                    .map(|stream| Stage::AwaitChallenge(Incoming::new(stream))),
                other => advance(other, &claim, self.rendezvous, &mut self.formed)?,
            };
            dial.stage = match moved {
                Ok(stage) => stage,
                Err(error) => {
                    if error.kind() == io::ErrorKind::ConnectionRefused {
                        let since = *dial.refused_since.get_or_insert(now);
                        if now - since >= REFUSED_FOR {
                            return Err(Error::PeerLost { rank: dial.to });
                        }
                    } else {
                        dial.refused_since = None;
                    }
                    Stage::Waiting(now + TICK)
                }
            };
        }
        Ok(())
    }

    /// Accepts connections and lets those in that prove themselves.
    fn greet(&mut self, listener: &Listener, now: Instant) -> Result<()> {
        while self.guests.len() < MAX_UNPROVEN {
            // Errors other than "none waiting" concern one connection or pass (no descriptors free): the next tick tries again.
            let Ok((mut stream, _)) = listener.socket.accept() else { break };
            let challenge = handshake::nonce()?;
            let ready = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true));
            if ready.and_then(|()| stream.write_all(&handshake::challenge(&challenge))).is_ok() {
                self.guests.push(Guest { incoming: Incoming::new(stream), challenge, until: now + PATIENCE });
            }
        }
        for mut guest in std::mem::take(&mut self.guests) {
            match guest.incoming.poll() {
                Ok(true) => self.judge(guest),
                Ok(false) if now < guest.until => self.guests.push(guest),
                _ => {}
            }
        }
        Ok(())
    }

    /// Answers a hello.
    fn judge(&mut self, mut guest: Guest) {
        let secret = &self.rendezvous.secret;
        let expected = self.claim(u32::MAX, self.rendezvous.rank);
        let verdict =
            read_hello(secret, &expected, &guest.challenge, &guest.incoming.bytes).and_then(|(from, theirs)| {
                let taken = self.formed.iter().any(|link| link.peer == from);
                if taken { Err(Some(Refusal::Rank)) } else { Ok((from, theirs)) }
            });
        let stream = &mut guest.incoming.stream;
        match verdict {
            Ok((from, theirs)) => {
                let answer = handshake::welcome(secret, Ok(&theirs), &guest.challenge);
                if stream.write_all(&answer).is_ok() {
                    self.formed.push(Link::new(from, guest.incoming.stream));
                }
            }
            Err(Some(refusal)) => {
                tracing::warn!(%refusal, rank = self.rendezvous.rank, "connection refused");
                // The stranger is gone or hears the reason; either is fine.
                let _ = stream.write_all(&handshake::welcome(secret, Err(refusal), &guest.challenge));
            }
            Err(None) => {}
        }
    }

    /// Sleeps until something may move; fails if a rank that was connected is gone.
    fn sleep(&mut self, listener: &Listener) -> Result<()> {
        self.polled.clear();
        self.polled.add(listener.socket.as_raw_fd(), READABLE);
        for guest in &self.guests {
            self.polled.add(guest.incoming.stream.as_raw_fd(), READABLE);
        }
        for dial in &self.dials {
            match &dial.stage {
                Stage::AwaitChallenge(incoming) => self.polled.add(incoming.stream.as_raw_fd(), READABLE),
                Stage::AwaitWelcome { incoming, .. } => self.polled.add(incoming.stream.as_raw_fd(), READABLE),
                Stage::Waiting(_) | Stage::Formed => continue,
            };
        }
        let places: Vec<_> = self.formed.iter().map(|link| self.polled.add(link.fd(), CLOSED)).collect();
        self.polled.wait(TICK).map_err(|source| Error::io("wait for peers to connect", source))?;
        for (link, place) in self.formed.iter().zip(places) {
            if self.polled.happened(place, CLOSED) {
                return Err(link.lost());
            }
        }
        Ok(())
    }
}

/// Moves a dialled connection on; the inner error means "dial again".
fn advance(stage: Stage, claim: &Claim, rendezvous: &Rendezvous, formed: &mut Vec<Link>) -> Result<io::Result<Stage>> {
    let moved = match stage {
        Stage::AwaitChallenge(mut incoming) => match incoming.poll() {
            Ok(false) => Ok(Stage::AwaitChallenge(incoming)),
            Ok(true) => {
                let Some(challenge) = read_challenge(&incoming.bytes) else {
                    let what = "it did not speak this protocol when dialled".to_owned();
                    return Err(Error::Protocol { rank: claim.to, what });
                };
                let own = handshake::nonce()?;
                let hello = handshake::hello(&rendezvous.secret, claim, &challenge, &own);
                let mut stream = incoming.stream;
                stream.write_all(&hello).map(|()| Stage::AwaitWelcome {
                    incoming: Incoming::new(stream),
                    challenge,
                    own,
                })
            }
            Err(error) => Err(error),
        },
        Stage::AwaitWelcome { mut incoming, challenge, own } => match incoming.poll() {
            Ok(false) => Ok(Stage::AwaitWelcome { incoming, challenge, own }),
            Ok(true) => {
                if let Err(reason) = read_welcome(&rendezvous.secret, &challenge, &own, &incoming.bytes) {
                    return Err(Error::Refused { rank: claim.to, reason });
                }
                formed.push(Link::new(claim.to, incoming.stream));
                Ok(Stage::Formed)
            }
            Err(error) => Err(error),
        },
        other => Ok(other),
    };
    Ok(moved)
}

/// Begins to connect without waiting for the answer.
fn start(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd: OwnedFd = socket(family, SockType::Stream, flags, None)?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => {
            let stream = TcpStream::from(fd);
            stream.set_nodelay(true)?;
            Ok(stream)
        }
        Err(error) => Err(error.into()),
    }
}
