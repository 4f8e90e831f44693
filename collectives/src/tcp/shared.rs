//! Memory that the ranks of one host share, through which large payloads travel instead of the sockets.
//!
//! Each rank owns a [`Segment`]: a bell and one ring of bytes for every other rank to write into. The sockets still carry all
//! headers and small payloads, and their closing still tells of a peer's death. A segment is an anonymous file that the
//! peers open through `/proc`, so that nothing is left behind whatever happens; where that is not possible (other hosts,
//! other users) the group stays on its sockets.
#![expect(unsafe_code, reason = "memory that is shared between processes has no safe interface")]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::handshake::{Nonce, nonce};

/// The capacity of a ring: large enough that ranks which share a core work long between switches, small enough for the
/// second-level cache.
const RING: usize = 512 << 10;
/// Keeps what different processes write apart.
const PAGE: usize = 4096;
const SLEEPING: usize = 64;
const READ: usize = 64;

/// A rank's shared memory: a page with its bell, then a page of counters and a ring for each rank.
#[derive(Debug)]
pub(super) struct Segment {
    base: NonNull<u8>,
    len: usize,
}
// SAFETY: the memory belongs to the process and is accessed through atomics, and the rings' bytes as the counters allow.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

/// How peers find a segment.
#[derive(Debug)]
pub(super) struct Offer {
    /// Open until the peers have it.
    file: File,
    name: Nonce,
}

impl Offer {
    /// What a peer needs to open the segment.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = std::process::id().to_le_bytes().to_vec();
        bytes.extend(self.file.as_raw_fd().to_le_bytes());
        bytes.extend(self.name);
        bytes
    }
}

fn file_name(name: &Nonce) -> String {
    format!("unimse-{:032x}", u128::from_le_bytes(*name))
}

impl Segment {
    /// Makes a segment for a world of ranks.
    pub(super) fn create(world: usize) -> io::Result<(Self, Offer)> {
        let name = nonce().map_err(io::Error::other)?;
        let file = File::from(memfd_create(file_name(&name).as_str(), MFdFlags::MFD_CLOEXEC)?);
        file.set_len(Self::size(world) as u64)?;
        Ok((Self::map(&file, world)?, Offer { file, name }))
    }

    /// Opens a peer's segment; fails if the peer is not on this host or may not be looked into.
    pub(super) fn open(offer: &[u8], world: usize) -> io::Result<Self> {
        let parse = || -> Option<(u32, i32, Nonce)> {
            let (pid, rest) = offer.split_first_chunk::<4>()?;
            let (fd, rest) = rest.split_first_chunk::<4>()?;
            Some((u32::from_le_bytes(*pid), i32::from_le_bytes(*fd), rest.try_into().ok()?))
        };
        let (pid, fd, name) = parse().ok_or(io::ErrorKind::InvalidData)?;
        let path = format!("/proc/{pid}/fd/{fd}");
        // On another host or in another container the number may be anybody's; the random name cannot.
        if !fs::read_link(&path)?.to_string_lossy().contains(&file_name(&name)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if file.metadata()?.len() != Self::size(world) as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Self::map(&file, world)
    }

    fn size(world: usize) -> usize {
        PAGE + world * (PAGE + RING)
    }

    fn map(file: &File, world: usize) -> io::Result<Self> {
        let len = Self::size(world);
        let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping of the whole file at an address of the kernel's choice; unmapped in drop.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, access, shared, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.len);
        // SAFETY: in bounds and aligned by the assertion; all processes access this place as an atomic only.
        unsafe { self.base.add(offset).cast().as_ref() }
    }

    fn counter(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len);
        // SAFETY: as in `word`.
        unsafe { self.base.add(offset).cast().as_ref() }
    }

    fn ring(&self, writer: usize) -> Ring<'_> {
        let at = PAGE + writer * (PAGE + RING);
        Ring { written: self.counter(at), read: self.counter(at + READ), segment: self, data: at + PAGE }
    }

    fn bell(&self) -> &AtomicU32 {
        self.word(0)
    }

    /// Announces that the owner is about to sleep; it looks at its rings once more before it does.
    pub(super) fn arm(&self) -> u32 {
        let seen = self.bell().load(Ordering::SeqCst);
        self.word(SLEEPING).store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        seen
    }

    /// The owner is awake.
    pub(super) fn disarm(&self) {
        self.word(SLEEPING).store(0, Ordering::SeqCst);
    }

    /// Sleeps until the bell has rung since it was `seen`, or the time is over.
    pub(super) fn sleep(&self, seen: u32, at_most: Duration) {
        let time = libc::timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: i64::from(at_most.subsec_nanos()) };
        let (bell, wait) = (self.bell().as_ptr(), libc::FUTEX_WAIT);
        // SAFETY: the word lives as long as the mapping; the kernel only compares it. Whatever ends the wait, the caller looks
        // at its rings again.
        unsafe { libc::syscall(libc::SYS_futex, bell, wait, seen, &raw const time) };
    }

    /// Wakes the owner if it sleeps or is about to.
    fn ring_bell(&self) {
        fence(Ordering::SeqCst);
        if self.word(SLEEPING).swap(0, Ordering::SeqCst) == 1 {
            self.bell().fetch_add(1, Ordering::SeqCst);
            // SAFETY: the word lives as long as the mapping.
            unsafe { libc::syscall(libc::SYS_futex, self.bell().as_ptr(), libc::FUTEX_WAKE, 1) };
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: maps exactly what `map` mapped; no reference into it outlives `self`.
        let _ = unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Bytes on their way from one rank to another: all that were written minus all that were read.
struct Ring<'a> {
    written: &'a AtomicU64,
    read: &'a AtomicU64,
    segment: &'a Segment,
    data: usize,
}

impl Ring<'_> {
    /// The memory from a position to the end of the ring or to `count` bytes, whichever is less.
    fn stretch(&self, position: u64, count: usize) -> (NonNull<u8>, usize) {
        let at = position as usize % RING;
        // SAFETY: the ring lies within the segment, and `at` within the ring.
        (unsafe { self.segment.base.add(self.data + at) }, count.min(RING - at))
    }

    fn write(&self, bytes: &[u8]) -> usize {
        let written = self.written.load(Ordering::Relaxed);
        let used = written.wrapping_sub(self.read.load(Ordering::Acquire)) as usize;
        let count = bytes.len().min(RING.saturating_sub(used));
        let mut done = 0;
        while done < count {
            let (place, part) = self.stretch(written + done as u64, count - done);
            // SAFETY: `stretch` stays in the ring; the reader does not touch bytes that are not counted as written.
            unsafe { place.as_ptr().copy_from_nonoverlapping(bytes[done..].as_ptr(), part) };
            done += part;
        }
        self.written.store(written + count as u64, Ordering::Release);
        count
    }

    fn take(&self, target: &mut [u8]) -> usize {
        let read = self.read.load(Ordering::Relaxed);
        let used = self.written.load(Ordering::Acquire).wrapping_sub(read) as usize;
        let count = target.len().min(used.min(RING));
        let mut done = 0;
        while done < count {
            let (place, part) = self.stretch(read + done as u64, count - done);
            // SAFETY: `stretch` stays in the ring; the writer does not touch bytes that are not counted as read.
            unsafe { place.as_ptr().copy_to_nonoverlapping(target[done..].as_mut_ptr(), part) };
            done += part;
        }
        self.read.store(read + count as u64, Ordering::Release);
        count
    }
}

/// The two rings between this rank and one peer.
#[derive(Debug)]
pub(super) struct Lane {
    own: Arc<Segment>,
    theirs: Segment,
    rank: usize,
    peer: usize,
}

impl Lane {
    pub(super) fn new(own: Arc<Segment>, theirs: Segment, rank: usize, peer: usize) -> Self {
        Self { own, theirs, rank, peer }
    }

    /// Sends what there is room for.
    pub(super) fn send(&self, bytes: &[u8]) -> usize {
        let count = self.theirs.ring(self.rank).write(bytes);
        if count > 0 {
            self.theirs.ring_bell();
        }
        count
    }

    /// Receives what is there.
    pub(super) fn receive(&self, target: &mut [u8]) -> usize {
        let count = self.own.ring(self.peer).take(target);
        if count > 0 {
            // The peer may wait for room.
            self.theirs.ring_bell();
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Two lanes within this process, which opens its own segments as a peer would.
    fn pair() -> (Lane, Lane) {
        let (first, first_offer) = Segment::create(2).unwrap();
        let (second, second_offer) = Segment::create(2).unwrap();
        let theirs = [&first_offer, &second_offer].map(|offer| Segment::open(&offer.encode(), 2).unwrap());
        let [first_seen, second_seen] = theirs;
        (Lane::new(Arc::new(first), second_seen, 0, 1), Lane::new(Arc::new(second), first_seen, 1, 0))
    }

    #[test]
    fn bytes_arrive_in_order_through_many_turns_of_the_ring() {
        let (sender, receiver) = pair();
        let total = 5 * RING + 12_345;
        thread::scope(|scope| {
            scope.spawn(|| {
                let bytes: Vec<u8> = (0..total).map(|i| (i % 251) as u8).collect();
                let mut sent = 0;
                while sent < total {
                    let count = sender.send(&bytes[sent..total.min(sent + 70_001)]);
                    sent += count;
                    if count == 0 {
                        let seen = sender.own.arm();
                        if sender.theirs.ring(0).write(&[]) == 0
                            && sender.theirs.ring(0).read.load(Ordering::SeqCst) == 0
                        {
                            sender.own.sleep(seen, Duration::from_millis(1));
                        }
                        sender.own.disarm();
                    }
                }
            });
            let mut received = Vec::with_capacity(total);
            let mut part = vec![0; 90_000];
            while received.len() < total {
                let count = receiver.receive(&mut part);
                received.extend_from_slice(&part[..count]);
            }
            assert!(received.iter().enumerate().all(|(i, &byte)| byte == (i % 251) as u8));
        });
    }

    #[test]
    fn a_full_ring_takes_nothing_and_an_empty_one_gives_nothing() {
        let (sender, receiver) = pair();
        assert_eq!(receiver.receive(&mut [0; 4]), 0);
        assert_eq!(sender.send(&vec![7; RING + 5]), RING);
        assert_eq!(sender.send(&[1]), 0);
        assert_eq!(receiver.receive(&mut vec![0; RING + 5]), RING);
        assert_eq!(receiver.receive(&mut [0; 4]), 0);
    }

    #[test]
    fn the_bell_wakes_a_sleeper() {
        let (sender, receiver) = pair();
        let seen = receiver.own.arm();
        thread::scope(|scope| {
            scope.spawn(|| sender.send(&[1]));
            // Would last a minute if the bell were not heard.
            receiver.own.sleep(seen, Duration::from_mins(1));
        });
        receiver.own.disarm();
        assert_eq!(receiver.receive(&mut [0; 4]), 1);
    }

    #[test]
    fn offers_that_are_not_of_this_host_are_not_opened() {
        let (_segment, offer) = Segment::create(2).unwrap();
        let mut other = offer.encode();
        other[10] ^= 1;
        assert_eq!(Segment::open(&other, 2).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(Segment::open(&offer.encode(), 3).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(Segment::open(&[], 2).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
