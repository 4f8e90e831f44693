//! The life of a trainer: generation after generation, until its work is done.

use std::path::PathBuf;

use tokio::runtime::Handle;
use unimse_checkpoint::{Attempt, Store};
use unimse_collectives::{Collective, Error as GroupError, Refusal};
use unimse_core::id::Step;
use unimse_core::job::ExitCause;
use unimse_core::machine::ReportKind;

use super::boundary::Course;
use super::held::{Held, Recent};
use super::saving::{Saver, with_causes};
use super::{Halt, Mailbox, Mouth, Replica, failed, invalid};
use crate::protocol::{Begin, Seat};

/// What a trainer gets from the program it runs in.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Variables that object stores take their keys from.
    pub environment: Vec<(String, String)>,
    /// A folder for things that are quick to make again.
    pub cache: Option<PathBuf>,
}

/// What outlives a generation.
pub(super) struct Life<'a> {
    pub(super) begin: Begin,
    pub(super) replica: Box<dyn Replica>,
    /// The state of the last completed step; none before the first generation has formed, or while it is being replaced.
    pub(super) held: Option<Held>,
    pub(super) recent: Recent,
    pub(super) mailbox: &'a Mailbox,
    pub(super) mouth: &'a Mouth,
    pub(super) surroundings: &'a Surroundings,
    pub(super) runtime: Handle,
    pub(super) seat: Seat,
}

/// Trains until the job is done, stopped or cannot go on; returns why it ended.
///
/// `make` builds the replica once it is known for which job; it may take its time (data, tokenizer, device).
pub fn run(
    make: impl FnOnce(&Begin, &Surroundings) -> Result<Box<dyn Replica>, ExitCause>,
    mailbox: &Mailbox,
    mouth: &Mouth,
    surroundings: &Surroundings,
) -> ExitCause {
    let begin = *mailbox.begin();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("store").enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(format!("cannot start threads for the checkpoint store: {error}")),
    };
    let replica = match make(&begin, surroundings) {
        Ok(replica) => replica,
        Err(cause) => return cause,
    };
    let seat = mailbox.replaced(begin.seat.generation).unwrap_or(begin.seat);
    let mut life = Life {
        begin,
        replica,
        held: None,
        recent: Recent::default(),
        mailbox,
        mouth,
        surroundings,
        runtime: runtime.handle().clone(),
        seat,
    };
    let cause = life.run();
    // Uploads of a checkpoint that nobody will commit are dropped here.
    runtime.shutdown_background();
    cause
}

impl Life<'_> {
    fn run(&mut self) -> ExitCause {
        loop {
            let error = match self.generation() {
                Ok(Some(cause)) | Err(Halt::End(cause)) => return cause,
                Ok(None) => continue,
                Err(Halt::Group(error)) => error,
            };
            if is_fatal(&error) {
                return failed(with_causes(&error));
            }
            let generation = self.seat.generation;
            self.seat = self.mailbox.replaced(generation).unwrap_or_else(|| {
                let step = self.held.as_ref().map_or(Step(0), Held::step);
                let detail = with_causes(&error);
                tracing::warn!(%generation, %step, detail, "group lost; waiting for the next generation");
                self.mouth.event(self.seat, ReportKind::PeerLost { step, detail });
                self.mailbox.seat_after(generation)
            });
        }
    }

    /// Trains in one generation; returns why the trainer ends, or nothing when another generation has begun.
    fn generation(&mut self) -> Result<Option<ExitCause>, Halt> {
        let seat = self.seat;
        let (mut group, form) = match self.form(seat)? {
            Ok(formed) => formed,
            Err(newer) => {
                self.seat = newer;
                return Ok(None);
            }
        };
        self.mailbox.guard(seat.generation, group.abort_handle());
        self.agree(&form, group.as_mut())?;
        let saver = self.saver(group.as_mut())?;
        let mut course = Course::new(self, group, saver);
        let ended = course.run();
        let owed = course.owes();
        if owed && let Some(held) = &mut self.held {
            held.owed = true;
        }
        ended.map(Some)
    }

    fn saver(&self, group: &mut dyn Collective) -> Result<Saver, Halt> {
        let mut attempt = Attempt::random().to_string().into_bytes();
        group.broadcast_bytes(0, &mut attempt)?;
        let attempt: Attempt = String::from_utf8(attempt).map_err(failed)?.parse().map_err(failed)?;
        let place = self.begin.spec.checkpoint.uri.as_ref().unwrap_or(&self.begin.checkpoint_uri);
        let store = Store::open(place, self.surroundings.environment.clone());
        let store = store.map_err(|error| match error {
            unimse_checkpoint::Error::BadPlace { .. } => invalid(with_causes(&error)),
            error => failed(with_causes(&error)),
        })?;
        Ok(Saver::new(self.runtime.clone(), store, &self.begin, self.seat, attempt, self.mouth.clone()))
    }

    /// Tells the newest steps once more: whoever told them first may not have been heard.
    pub(super) fn tell_again(&mut self, step: Step) {
        let records = self.recent.up_to(step);
        if let Some(progress) = self.progress_of(&records) {
            self.mouth.steps(self.seat, progress, records);
        }
    }
}

/// Whether a failure would come again in the next generation, because the ranks do not fit together.
fn is_fatal(error: &GroupError) -> bool {
    match error {
        GroupError::Mismatch { .. } | GroupError::Unsupported { .. } => true,
        GroupError::Refused { reason, .. } => matches!(reason, Refusal::Secret | Refusal::Version),
        _ => false,
    }
}
