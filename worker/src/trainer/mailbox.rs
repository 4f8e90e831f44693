//! Words of the agent, received on a thread of their own so that they reach a trainer in the middle of a collective.

use std::io::BufRead;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use unimse_collectives::AbortHandle;
use unimse_core::id::Generation;
use unimse_core::machine::Form;

use crate::protocol::{Begin, Seat, ToTrainer};

/// What the agent has said and the training thread has not yet taken up.
#[derive(Clone, Debug, Default)]
pub struct Mailbox {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inbox {
    begin: Option<Box<Begin>>,
    /// The newest seat.
    seat: Option<Seat>,
    form: Option<Form>,
    /// The generation that was asked to save and stop.
    stop: Option<Generation>,
    /// The collective in use and the generation it belongs to.
    group: Option<(Generation, AbortHandle)>,
}

/// What comes after `Ready`.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// All are ready.
    Form(Form),
    /// A newer generation has replaced this one.
    Seat(Seat),
}

impl Mailbox {
    /// Delivers a message. A newer seat aborts the group of the older one at once.
    pub fn put(&self, message: ToTrainer) {
        let mut inbox = self.lock();
        match message {
            ToTrainer::Begin(begin) => {
                inbox.seat = Some(begin.seat);
                inbox.begin = Some(begin);
            }
            ToTrainer::Reform(seat) => {
                if inbox.seat.is_none_or(|old| seat.generation > old.generation) {
                    inbox.seat = Some(seat);
                }
                if let Some((_, handle)) = inbox.group.take_if(|(generation, _)| *generation < seat.generation) {
                    handle.abort();
                }
            }
            ToTrainer::Form(form) => inbox.form = Some(form),
            ToTrainer::Stop { generation } => inbox.stop = Some(generation),
        }
        drop(inbox);
        self.shared.changed.notify_all();
    }

    /// Waits for the first message.
    pub fn begin(&self) -> Box<Begin> {
        self.wait(|inbox| inbox.begin.take())
    }

    /// Waits for a seat of a newer generation than this.
    pub fn seat_after(&self, generation: Generation) -> Seat {
        self.wait(|inbox| inbox.seat.filter(|seat| seat.generation > generation))
    }

    /// Waits until a generation is to be formed, or a newer one replaces it.
    pub fn next(&self, generation: Generation) -> Next {
        self.wait(|inbox| {
            if let Some(seat) = inbox.seat.filter(|seat| seat.generation > generation) {
                return Some(Next::Seat(seat));
            }
            inbox.form.take_if(|form| form.generation == generation).map(Next::Form)
        })
    }

    /// The newest seat, if it is newer than this generation.
    pub fn replaced(&self, generation: Generation) -> Option<Seat> {
        self.lock().seat.filter(|seat| seat.generation > generation)
    }

    /// Whether a generation was asked to save and stop.
    pub fn stop_wanted(&self, generation: Generation) -> bool {
        self.lock().stop == Some(generation)
    }

    /// Lets a newer seat abort this group; one that is there already does so now.
    pub fn guard(&self, generation: Generation, handle: AbortHandle) {
        let mut inbox = self.lock();
        if inbox.seat.is_some_and(|seat| seat.generation > generation) {
            handle.abort();
        } else {
            inbox.group = Some((generation, handle));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<T>(&self, mut take: impl FnMut(&mut Inbox) -> Option<T>) -> T {
        let mut inbox = self.lock();
        loop {
            if let Some(taken) = take(&mut inbox) {
                return taken;
            }
            inbox = self.shared.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Delivers the agent's lines until their end, which means that the agent is gone.
pub fn listen(lines: impl BufRead, mailbox: &Mailbox) {
    for line in lines.lines() {
        let Ok(line) = line else { return };
        match serde_json::from_str(&line) {
            Ok(message) => mailbox.put(message),
            Err(error) => tracing::error!(%error, line, "cannot read a message of the agent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use unimse_collectives::{Collective, Error, local};
    use unimse_core::id::{JobId, Rank};

    use super::*;

    fn seat(generation: u64) -> Seat {
        Seat { generation: Generation(generation), rank: Rank(0), world_size: 2 }
    }

    fn form(generation: u64) -> Form {
        let generation = Generation(generation);
        Form { job: JobId(1), generation, peers: Vec::new(), nccl_id: None, source: None, resume: None }
    }

    #[test]
    fn a_newer_seat_aborts_a_call_in_progress() {
        let mailbox = Mailbox::default();
        let mut ranks = local::group(2, 1);
        let mut own = ranks.remove(0);
        mailbox.guard(Generation(1), own.abort_handle());
        let waiting = std::thread::spawn(move || own.barrier());
        mailbox.put(ToTrainer::Reform(seat(2)));
        let error = waiting.join().unwrap().expect_err("the peer never comes");
        assert!(matches!(error, Error::Aborted), "{error}");
        assert_eq!(mailbox.seat_after(Generation(1)), seat(2));
    }

    #[test]
    fn a_seat_that_came_before_the_group_aborts_it_too() {
        let mailbox = Mailbox::default();
        mailbox.put(ToTrainer::Reform(seat(5)));
        let own = local::group(2, 4).remove(0);
        mailbox.guard(Generation(4), own.abort_handle());
        assert!(own.abort_handle().is_aborted());
        let own = local::group(2, 5).remove(0);
        mailbox.guard(Generation(5), own.abort_handle());
        assert!(!own.abort_handle().is_aborted());
    }

    #[test]
    fn only_the_form_of_the_own_generation_counts() {
        let mailbox = Mailbox::default();
        mailbox.put(ToTrainer::Reform(seat(2)));
        mailbox.put(ToTrainer::Form(form(1)));
        assert_eq!(mailbox.next(Generation(1)), Next::Seat(seat(2)));
        mailbox.put(ToTrainer::Form(form(2)));
        assert_eq!(mailbox.next(Generation(2)), Next::Form(form(2)));
        mailbox.put(ToTrainer::Stop { generation: Generation(2) });
        assert!(mailbox.stop_wanted(Generation(2)) && !mailbox.stop_wanted(Generation(3)));
    }

    #[test]
    fn lines_that_are_no_messages_are_passed_over() {
        let mailbox = Mailbox::default();
        listen("nonsense\n{\"stop\":{\"generation\":4}}\n".as_bytes(), &mailbox);
        assert!(mailbox.stop_wanted(Generation(4)));
    }
}
