//! Waiting for sockets.
#![expect(
    unsafe_code,
    reason = "`poll` over a list that is kept between calls, which the safe wrapper's lifetimes forbid"
)]

use std::io;
use std::time::Duration;

use nix::libc;

/// A set of events.
pub(super) type Events = libc::c_short;

/// Not an event of a socket: shared memory has to change.
pub(super) const LANE: Events = 1 << 14;
/// Not an event of a socket either: the line of a slow network has to move.
pub(super) const LIMITED: Events = 1 << 12;
/// What the kernel knows nothing of.
pub(super) const NOT_OF_SOCKETS: Events = LANE | LIMITED;
/// The peer has closed its side, though data may be left to read.
pub(super) const CLOSED: Events = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
pub(super) const READABLE: Events = libc::POLLIN;
pub(super) const WRITABLE: Events = libc::POLLOUT;

/// After this the caller looks around, whatever its limit.
const LONGEST: Duration = Duration::from_mins(1);

/// Sockets and the events that they are waited for.
#[derive(Debug, Default)]
pub(super) struct PollSet(Vec<libc::pollfd>);

impl PollSet {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a socket and returns its place.
    pub(super) fn add(&mut self, fd: i32, events: Events) -> usize {
        self.0.push(libc::pollfd { fd, events, revents: 0 });
        self.0.len() - 1
    }

    /// Whether one of the events happened to the socket at this place.
    pub(super) fn happened(&self, place: usize, events: Events) -> bool {
        self.0[place].revents & events != 0
    }

    /// Waits until an event happens or the time is over; also returns early when a signal arrives.
    pub(super) fn wait(&mut self, at_most: Duration) -> io::Result<()> {
        let at_most = at_most.min(LONGEST);
        let time = libc::timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: i64::from(at_most.subsec_nanos()) };
        let count = self.0.len() as libc::nfds_t;
        // SAFETY: the pointer and length describe the vector's initialised elements, which the call only writes
        // `revents` of; it reads the time, and leaves the signals alone.
        let ready = unsafe { libc::ppoll(self.0.as_mut_ptr(), count, &raw const time, std::ptr::null()) };
        if ready >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::Interrupted {
            for entry in &mut self.0 {
                entry.revents = 0;
            }
            return Ok(());
        }
        Err(error)
    }
}
