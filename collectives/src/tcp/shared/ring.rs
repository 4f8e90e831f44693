//! Bytes on their way between two ranks through shared memory.
#![expect(unsafe_code, reason = "memory that is shared between processes has no safe interface")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Lane, PAGE, READ, Segment};

/// The capacity of a ring: large enough that ranks which share a core work long between switches, small enough for the
/// second-level cache.
pub(super) const RING: usize = 512 << 10;

impl Segment {
    fn ring(&self, writer: usize) -> Ring<'_> {
        let at = self.place_of(writer);
        Ring { written: self.counter(at), read: self.counter(at + READ), segment: self, data: at + PAGE }
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

impl Lane {
    /// Sends what there is room for.
    pub(in crate::tcp) fn send(&self, bytes: &[u8]) -> usize {
        let count = self.theirs.ring(self.rank).write(bytes);
        if count > 0 {
            self.theirs.ring_bell();
        }
        count
    }

    /// Receives what is there.
    pub(in crate::tcp) fn receive(&self, target: &mut [u8]) -> usize {
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
    use std::time::Duration;

    use super::super::tests::pair;
    use super::*;

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
}
