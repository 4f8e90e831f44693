//! Memory that the ranks of one host share, through which large payloads travel instead of the sockets.
//!
//! Each rank owns a [`Segment`]: a bell, and for every other rank a ring of bytes to write into and slots to exchange the
//! parts of sums in. The sockets still carry all headers and small payloads, and their closing still tells of a peer's
//! death. A segment is an anonymous file that the peers open through `/proc`, so that nothing is left behind whatever
//! happens; where that is not possible (other hosts, other users) the group stays on its sockets.
//!
//! No rank ever touches another's buffers: a call that ends early, in whatever way, leaves nobody writing to memory that
//! its caller has freed.
#![expect(unsafe_code, reason = "memory that is shared between processes has no safe interface")]

mod ring;
mod slots;

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

use ring::RING;
pub(super) use slots::{SLOTS, largest_slot};

/// Keeps what different processes write apart.
const PAGE: usize = 4096;
/// Places in a segment's first page, each in a cache line of its own; the bell is at the beginning.
const SLEEPING: usize = 64;
const SUMMED: usize = 128;
/// Places in the page of counters of each rank; what it wrote to its ring is at the beginning.
const READ: usize = 64;
const GIVEN: usize = 128;

/// A rank's shared memory: a page with its bell, then a page of counters, a ring and slots for each rank.
#[derive(Debug)]
pub(super) struct Segment {
    base: NonNull<u8>,
    len: usize,
    /// From one rank's counters to the next one's.
    stride: usize,
    /// The size of a slot.
    slot: usize,
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

    fn stride(world: usize) -> usize {
        PAGE + RING + (SLOTS * largest_slot(world)).next_multiple_of(PAGE)
    }

    fn size(world: usize) -> usize {
        PAGE + world * Self::stride(world)
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
        Ok(Self { base, len, stride: Self::stride(world), slot: largest_slot(world) })
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

    /// Where the counters of a rank begin.
    fn place_of(&self, rank: usize) -> usize {
        PAGE + rank * self.stride
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
        let sleeping = self.word(SLEEPING);
        // Looks first: while the owner is awake its cache keeps the line.
        if sleeping.load(Ordering::SeqCst) == 1 && sleeping.swap(0, Ordering::SeqCst) == 1 {
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

/// The memory that this rank shares with one peer.
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
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Two lanes within this process, which opens its own segments as a peer would.
    pub(super) fn pair() -> (Lane, Lane) {
        let (first, first_offer) = Segment::create(2).unwrap();
        let (second, second_offer) = Segment::create(2).unwrap();
        let theirs = [&first_offer, &second_offer].map(|offer| Segment::open(&offer.encode(), 2).unwrap());
        let [first_seen, second_seen] = theirs;
        (Lane::new(Arc::new(first), second_seen, 0, 1), Lane::new(Arc::new(second), first_seen, 1, 0))
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
