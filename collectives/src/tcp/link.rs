//! One connection to a peer: non-blocking sends and buffered receives.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use super::poll::{Events, LANE, LIMITED, READABLE, WRITABLE};
use super::shared::Lane;
use super::uplink::Uplink;
use crate::header::{HEADER_BYTES, Header, Parting};
use crate::{Error, Result};

/// The most that one send hands to the kernel, so that receiving has its turn.
const SEND_AT_ONCE: usize = 128 << 10;
/// What is read ahead: a small call's header and payload come in one read.
const READ_AHEAD: usize = 64 << 10;

/// A connection and what this call still has to do on it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: u32,
    stream: Arc<TcpStream>,
    /// Longer than `READ_AHEAD` only once a peer that leaves has been read to its end.
    ahead: Vec<u8>,
    start: usize,
    end: usize,
    /// What the last pass was stuck on: a receive that found nothing, a send that found no room.
    pub(super) stuck_on: Events,
    /// Bytes of the current phase that were sent and received.
    pub(super) sent: usize,
    pub(super) received: usize,
    /// The peer's announcement of the current call.
    pub(super) announced: Option<Header>,
    /// Bytes of the current call's payload that are still due on the socket, before the peer's next header.
    pub(super) due: usize,
    /// A message is half sent, so nothing else may be sent.
    pub(super) mid_message: bool,
    /// The steps that we gave to the peer through the slots of shared memory in earlier calls.
    pub(super) steps: u64,
    /// Shared memory for large payloads, if the ranks of the group are on one host.
    pub(super) lane: Option<Lane>,
    /// What this rank sends to all its peers goes over this line, if it is to be slow.
    pub(super) uplink: Option<Arc<Uplink>>,
    /// The peer has closed the connection after it had finished the current call.
    pub(super) left: bool,
}

impl Link {
    pub(super) fn new(peer: u32, stream: TcpStream) -> Self {
        Self {
            peer,
            stream: Arc::new(stream),
            ahead: vec![0; READ_AHEAD + HEADER_BYTES],
            start: 0,
            end: 0,
            stuck_on: 0,
            sent: 0,
            received: 0,
            announced: None,
            due: 0,
            mid_message: false,
            steps: 0,
            lane: None,
            uplink: None,
            left: false,
        }
    }

    pub(super) fn stream(&self) -> &Arc<TcpStream> {
        &self.stream
    }

    pub(super) fn fd(&self) -> i32 {
        self.stream.as_raw_fd()
    }

    pub(super) fn lost(&self) -> Error {
        Error::PeerLost { rank: self.peer }
    }

    /// Sends what the kernel takes of `bytes` now.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut count = bytes.len().min(SEND_AT_ONCE);
        if let Some(uplink) = &self.uplink {
            count = uplink.pass(count, Instant::now());
            if count == 0 {
                self.stuck_on |= LIMITED;
                return Ok(0);
            }
        }
        let written = (&*self.stream).write(&bytes[..count]);
        self.account_sent(written)
    }

    /// Sends last words as far as the kernel takes them; a peer that cannot be told finds the connection closed.
    pub(super) fn send_last(&self, bytes: &[u8]) {
        let _ = (&*self.stream).write(bytes);
    }

    /// Sends what the kernel takes of two pieces from `offset` of their concatenation.
    pub(super) fn send_pair(&mut self, first: &[u8], second: &[u8], offset: usize) -> Result<usize> {
        let rest = first.get(offset..).unwrap_or_default();
        if rest.is_empty() {
            return self.send(second.get(offset - first.len()..).unwrap_or_default());
        }
        if self.uplink.is_some() {
            return self.send(rest);
        }
        let written = (&*self.stream).write_vectored(&[IoSlice::new(rest), IoSlice::new(second)]);
        self.account_sent(written)
    }

    fn account_sent(&mut self, written: io::Result<usize>) -> Result<usize> {
        match written {
            Ok(count) => Ok(count),
            Err(error) if would_block(&error) => {
                self.stuck_on |= WRITABLE;
                Ok(0)
            }
            Err(_) => Err(self.lost()),
        }
    }

    /// Sends of `bytes`, which are not the last of a payload if `more`, what there is room for.
    pub(super) fn send_payload(&mut self, bytes: &[u8], more: bool) -> Result<usize> {
        let Some(lane) = &self.lane else {
            let count = self.send(bytes)?;
            self.mid_message = more || count < bytes.len();
            return Ok(count);
        };
        let count = lane.send(bytes);
        if count < bytes.len() {
            self.stuck_on |= LANE;
        }
        Ok(count)
    }

    /// Receives what is there of a payload into `target`.
    pub(super) fn receive_payload(&mut self, target: &mut [u8]) -> Result<usize> {
        let Some(lane) = &self.lane else { return self.receive(target) };
        let count = lane.receive(target);
        if count < target.len() {
            self.stuck_on |= LANE;
        }
        Ok(count)
    }

    /// Receives what is there into `target`.
    pub(super) fn receive(&mut self, target: &mut [u8]) -> Result<usize> {
        if target.is_empty() {
            return Ok(0);
        }
        let count = if self.start == self.end && target.len() >= READ_AHEAD {
            let read = (&*self.stream).read(target);
            self.account_received(read)?
        } else {
            if self.start == self.end {
                let read = (&*self.stream).read(&mut self.ahead);
                (self.start, self.end) = (0, self.account_received(read)?);
            }
            let count = target.len().min(self.end - self.start);
            target[..count].copy_from_slice(&self.ahead[self.start..self.start + count]);
            self.start += count;
            count
        };
        self.due = self.due.saturating_sub(count);
        Ok(count)
    }

    fn account_received(&mut self, read: io::Result<usize>) -> Result<usize> {
        match read {
            Ok(0) => Err(self.lost()),
            Ok(count) => Ok(count),
            Err(error) if would_block(&error) => {
                self.stuck_on |= READABLE;
                Ok(0)
            }
            Err(_) => Err(self.lost()),
        }
    }

    /// The next header, once all of it is there.
    pub(super) fn receive_header(&mut self) -> Result<Option<Header>> {
        if self.end - self.start < HEADER_BYTES {
            self.ahead.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let read = (&*self.stream).read(&mut self.ahead[self.end..]);
            self.end += self.account_received(read)?;
        }
        let header = self.header_after(0)?;
        if header.is_some() {
            self.start += HEADER_BYTES;
        }
        Ok(header)
    }

    /// The header that begins `skipped` bytes further on, if it has been read.
    fn header_after(&self, skipped: usize) -> Result<Option<Header>> {
        let read = self.ahead[self.start..self.end].get(skipped..);
        let Some(bytes) = read.and_then(|read| read.first_chunk::<HEADER_BYTES>()) else {
            return Ok(None);
        };
        let what = || "it sent something that is no header".to_owned();
        Header::decode(bytes).ok_or_else(|| Error::Protocol { rank: self.peer, what: what() }).map(Some)
    }

    /// Looks at why a peer has closed the connection: fails unless it has finished the current call.
    ///
    /// What it still owes to the call may wait to be read; what it said last comes after that.
    pub(super) fn judge_leaving(&mut self, ours: &Header) -> Result<()> {
        if !self.read_to_end()? {
            return Ok(());
        }
        // A peer that has found the group broken leaves instead of sending its part.
        if self.due > 0
            && self.end - self.start == HEADER_BYTES
            && let Ok(Some(last)) = self.header_after(0)
            && let Some(parting @ (Parting::Lost(_) | Parting::Mismatch(_))) = last.parting()
        {
            return Err(parting.error(self.peer, ours));
        }
        match self.header_after(self.due)?.map(|header| header.parting()) {
            Some(Some(parting @ (Parting::Lost(_) | Parting::Mismatch(_)))) => Err(parting.error(self.peer, ours)),
            // It left in peace, or had begun the next call: this one was finished for it.
            Some(_) => {
                self.left = true;
                Ok(())
            }
            None => Err(self.lost()),
        }
    }

    /// Reads everything a peer has sent before it closed, which is no more than the kernel holds; returns whether it has
    /// come to the end.
    fn read_to_end(&mut self) -> Result<bool> {
        loop {
            self.ahead.resize(self.ahead.len().max(self.end + READ_AHEAD), 0);
            match (&*self.stream).read(&mut self.ahead[self.end..]) {
                Ok(0) => return Ok(true),
                Ok(count) => self.end += count,
                Err(error) if would_block(&error) => return Ok(false),
                // The connection was reset, after what it carried had been read.
                Err(_) => return Ok(true),
            }
        }
    }

    /// Whether the peer has closed the connection and left nothing to read.
    pub(super) fn is_closed(&self) -> bool {
        match self.stream.peek(&mut [0]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => !would_block(&error),
        }
    }
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
