//! Decides what an agent does with its slots and trainers: orders and exits in, effects out.
//!
//! Pure: no process, clock or socket is touched here. The rules:
//! - a slot never has two processes: a new one waits until the old one is gone;
//! - an assignment of a generation that was seen already (or killed) is ignored;
//! - a trainer of the same job on the same slot survives a new generation, with its state in memory;
//! - a death that nobody ordered is reported with its cause, one that was ordered is not.

mod exit;

use std::collections::BTreeMap;

use unimse_core::id::{Generation, JobId, Rank, Step};
use unimse_core::job::ExitCause;
use unimse_core::machine::{Assign, Form, Order, Report, ReportKind, Seated, TrainerStatus};
use unimse_core::view::Progress;
use unimse_core::worker::Slot;

pub use exit::{Exit, classify};

use crate::protocol::{Begin, FromTrainer, Seat, StepRecord, ToTrainer};

/// Counts the processes that an agent has started; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Launch(pub u64);

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The coordinator wants something.
    Order(Order),
    /// A trainer said something.
    Said { launch: Launch, message: FromTrainer },
    /// A trainer's process is gone, or could not be started (then the exit says why).
    Exited { launch: Launch, exit: Exit },
    /// The agent is to end: trainers save and stop, and nothing new begins.
    StopAll,
    /// All trainers end at once. With a reason their ends are reported; without one nobody wants to hear of them, because
    /// the coordinator has given up this worker.
    KillAll { reason: Option<String> },
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Start a process on a slot and say this to it first.
    Start { launch: Launch, slot: u32, begin: Box<Begin> },
    /// Say this to a trainer.
    Tell { launch: Launch, message: ToTrainer },
    /// End a process at once.
    Kill { launch: Launch },
    /// Tell the coordinator, for certain.
    Report(Report),
    /// Tell the coordinator, if possible.
    Steps(TrainerSteps),
}

/// Completed steps and progress of one trainer.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainerSteps {
    pub job: JobId,
    pub generation: Generation,
    pub rank: Rank,
    pub progress: Progress,
    pub records: Vec<StepRecord>,
}

/// The slots of a worker and what runs on them.
#[derive(Debug)]
pub struct Lifecycle {
    host: String,
    cluster: String,
    slots: Vec<Place>,
    /// The newest generation of each job that was assigned or killed here.
    newest: BTreeMap<JobId, Generation>,
    launches: u64,
    stopping: bool,
}

#[derive(Debug)]
struct Place {
    slot: Slot,
    trainer: Option<Trainer>,
    /// What starts when the present trainer is gone.
    next: Option<Box<Begin>>,
}

#[derive(Debug)]
struct Trainer {
    launch: Launch,
    /// What it was started with; its seat is kept up to date.
    begin: Box<Begin>,
    formed: bool,
    ending: Option<Ending>,
    last_words: Option<ExitCause>,
    finished: bool,
    step: Option<Step>,
}

/// Why a trainer was killed.
#[derive(Debug)]
enum Ending {
    Ordered,
    Because(String),
}

impl Lifecycle {
    /// Begins with empty slots; peers of the trainers reach them at `host`.
    pub fn new(host: String, slots: Vec<Slot>) -> Self {
        let slots = slots.into_iter().map(|slot| Place { slot, trainer: None, next: None }).collect();
        Self { host, cluster: String::new(), slots, newest: BTreeMap::new(), launches: 0, stopping: false }
    }

    /// Notes to which cluster this worker belongs.
    pub fn joined(&mut self, cluster: &str) {
        cluster.clone_into(&mut self.cluster);
    }

    /// The trainers as the coordinator should see them: those that live and those about to start.
    pub fn trainers(&self) -> Vec<TrainerStatus> {
        let status = |slot: usize, begin: &Begin, formed: bool| TrainerStatus {
            job: begin.job,
            generation: begin.seat.generation,
            rank: begin.seat.rank,
            slot: slot as u32,
            formed,
        };
        let places = self.slots.iter().enumerate();
        places
            .flat_map(|(slot, place)| {
                let lives = place.trainer.as_ref().filter(|trainer| trainer.ending.is_none());
                let lives = lives.map(|trainer| status(slot, &trainer.begin, trainer.formed));
                lives.into_iter().chain(place.next.as_ref().map(|begin| status(slot, begin, false)))
            })
            .collect()
    }

    /// Whether no process is left.
    pub fn is_idle(&self) -> bool {
        self.slots.iter().all(|place| place.trainer.is_none() && place.next.is_none())
    }

    /// For which job, and in which place, a process runs that is believed to live.
    pub fn seat_of(&self, launch: Launch) -> Option<(JobId, Seat)> {
        let mut trainers = self.slots.iter().filter_map(|place| place.trainer.as_ref());
        trainers.find(|trainer| trainer.launch == launch).map(|trainer| (trainer.begin.job, trainer.begin.seat))
    }

    /// Applies one input. Deterministic.
    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Order(Order::Assign(assign)) => self.assign(&assign, &mut effects),
            Input::Order(Order::Form(form)) => self.form(&form, &mut effects),
            Input::Order(Order::Stop { job, generation }) => {
                let told = |trainer: &Trainer| trainer.begin.job == job && trainer.begin.seat.generation == generation;
                self.stop(told, &mut effects);
            }
            Input::Order(Order::Kill { job, generation }) => self.kill_up_to(job, generation, &mut effects),
            Input::Said { launch, message } => self.said(launch, message, &mut effects),
            Input::Exited { launch, exit } => self.exited(launch, &exit, &mut effects),
            Input::StopAll => {
                self.stopping = true;
                for place in &mut self.slots {
                    place.next = None;
                }
                self.stop(|_| true, &mut effects);
            }
            Input::KillAll { reason } => self.kill_all(reason.as_deref(), &mut effects),
        }
        effects
    }

    fn assign(&mut self, assign: &Assign, effects: &mut Vec<Effect>) {
        let seen = self.newest.get(&assign.job).is_some_and(|&newest| newest >= assign.generation);
        if seen || self.stopping {
            return;
        }
        self.newest.insert(assign.job, assign.generation);
        for (slot, place) in (0..).zip(&mut self.slots) {
            let seated = assign.ranks.iter().any(|seated| seated.slot == slot);
            place.next.take_if(|next| next.job == assign.job && !seated);
            if let Some(trainer) = place.trainer.as_mut().filter(|trainer| trainer.begin.job == assign.job && !seated) {
                trainer.kill(Ending::Ordered, effects);
            }
        }
        for &seated in &assign.ranks {
            self.seat(assign, seated, effects);
        }
    }

    /// Makes the trainer of one slot take its seat: the one that is there, or a new one.
    fn seat(&mut self, assign: &Assign, Seated { rank, slot }: Seated, effects: &mut Vec<Effect>) {
        let seat = Seat { generation: assign.generation, rank, world_size: assign.world_size };
        let Some(place) = self.slots.get_mut(slot as usize) else {
            let message = format!("this worker has {} slots, none numbered {slot}", self.slots.len());
            let kind = ReportKind::Exited { cause: ExitCause::NotStarted { message }, step: None };
            effects.push(Effect::Report(Report { job: assign.job, generation: assign.generation, rank, kind }));
            return;
        };
        if let Some(trainer) = &mut place.trainer {
            let begin = &mut trainer.begin;
            let same = begin.job == assign.job
                && begin.spec == assign.spec
                && begin.checkpoint_uri == assign.checkpoint_uri
                && !trainer.finished;
            if same && trainer.ending.is_none() {
                begin.seat = seat;
                trainer.formed = false;
                effects.push(Effect::Tell { launch: trainer.launch, message: ToTrainer::Reform(seat) });
                return;
            }
            trainer.kill(Ending::Ordered, effects);
        }
        let begin = Box::new(Begin {
            job: assign.job,
            spec: assign.spec.clone(),
            checkpoint_uri: assign.checkpoint_uri.clone(),
            cluster: self.cluster.clone(),
            host: self.host.clone(),
            slot: place.slot.clone(),
            seat,
        });
        place.next = Some(begin);
        self.start_next(slot, effects);
    }

    fn start_next(&mut self, slot: u32, effects: &mut Vec<Effect>) {
        let place = &mut self.slots[slot as usize];
        if place.trainer.is_some() {
            return;
        }
        let Some(begin) = place.next.take() else { return };
        let launch = Launch(self.launches);
        self.launches += 1;
        let trainer = Trainer {
            launch,
            begin: begin.clone(),
            formed: false,
            ending: None,
            last_words: None,
            finished: false,
            step: None,
        };
        place.trainer = Some(trainer);
        effects.push(Effect::Start { launch, slot, begin });
    }

    fn form(&mut self, form: &Form, effects: &mut Vec<Effect>) {
        for trainer in self.slots.iter_mut().filter_map(|place| place.trainer.as_mut()) {
            let begin = &trainer.begin;
            let meant = begin.job == form.job && begin.seat.generation == form.generation;
            if meant && !trainer.formed && trainer.ending.is_none() {
                trainer.formed = true;
                effects.push(Effect::Tell { launch: trainer.launch, message: ToTrainer::Form(form.clone()) });
            }
        }
    }

    fn stop(&mut self, told: impl Fn(&Trainer) -> bool, effects: &mut Vec<Effect>) {
        for trainer in self.slots.iter_mut().filter_map(|place| place.trainer.as_mut()) {
            if !told(trainer) || trainer.ending.is_some() {
                continue;
            }
            if trainer.formed {
                let message = ToTrainer::Stop { generation: trainer.begin.seat.generation };
                effects.push(Effect::Tell { launch: trainer.launch, message });
            } else {
                // Nothing that is not saved: it has never trained, or its peers cannot save with it.
                trainer.kill(Ending::Because("stopped before its generation was formed".to_owned()), effects);
            }
        }
    }

    fn kill_up_to(&mut self, job: JobId, generation: Generation, effects: &mut Vec<Effect>) {
        let newest = self.newest.entry(job).or_default();
        *newest = generation.max(*newest);
        for place in &mut self.slots {
            place.next.take_if(|next| next.job == job && next.seat.generation <= generation);
            if let Some(trainer) = &mut place.trainer
                && trainer.begin.job == job
                && trainer.begin.seat.generation <= generation
            {
                trainer.kill(Ending::Ordered, effects);
            }
        }
    }

    fn kill_all(&mut self, reason: Option<&str>, effects: &mut Vec<Effect>) {
        if reason.is_none() {
            // Whoever counts from here on is another cluster's coordinator, or has ended all that was known.
            self.newest.clear();
        }
        for place in &mut self.slots {
            if let (Some(next), Some(reason)) = (place.next.take(), reason) {
                effects.push(killed(&next, reason, None));
            }
            if let Some(trainer) = &mut place.trainer {
                let ending = reason.map_or(Ending::Ordered, |reason| Ending::Because(reason.to_owned()));
                trainer.kill(ending, effects);
            }
        }
    }

    fn said(&mut self, launch: Launch, message: FromTrainer, effects: &mut Vec<Effect>) {
        let mut trainers = self.slots.iter_mut().filter_map(|place| place.trainer.as_mut());
        let Some(trainer) = trainers.find(|trainer| trainer.launch == launch) else { return };
        let job = trainer.begin.job;
        match message {
            FromTrainer::Event { generation, rank, kind } => {
                if let ReportKind::Finished { step } | ReportKind::PeerLost { step, .. } = kind {
                    trainer.step = Some(step);
                }
                trainer.finished |= matches!(kind, ReportKind::Finished { .. });
                if trainer.ending.is_none() {
                    effects.push(Effect::Report(Report { job, generation, rank, kind }));
                }
            }
            FromTrainer::Steps { generation, rank, progress, records } => {
                trainer.step = Some(progress.step);
                if !records.is_empty() {
                    effects.push(Effect::Steps(TrainerSteps { job, generation, rank, progress, records }));
                }
            }
            FromTrainer::Failed { cause } => trainer.last_words = Some(cause),
        }
    }

    fn exited(&mut self, launch: Launch, exit: &Exit, effects: &mut Vec<Effect>) {
        let gone = |place: &Place| place.trainer.as_ref().is_some_and(|trainer| trainer.launch == launch);
        let Some(slot) = self.slots.iter().position(gone) else { return };
        let Some(trainer) = self.slots[slot].trainer.take() else { return };
        match &trainer.ending {
            Some(Ending::Ordered) => {}
            Some(Ending::Because(reason)) => effects.push(killed(&trainer.begin, reason, trainer.step)),
            None => {
                let Begin { job, seat, .. } = *trainer.begin;
                let cause = classify(exit, trainer.last_words.as_ref(), trainer.finished);
                let kind = ReportKind::Exited { cause, step: trainer.step };
                effects.push(Effect::Report(Report { job, generation: seat.generation, rank: seat.rank, kind }));
            }
        }
        self.start_next(slot as u32, effects);
    }
}

impl Trainer {
    fn kill(&mut self, ending: Ending, effects: &mut Vec<Effect>) {
        if self.ending.is_none() {
            effects.push(Effect::Kill { launch: self.launch });
        }
        // An order makes the death uninteresting, whatever the first reason was.
        if self.ending.is_none() || matches!(ending, Ending::Ordered) {
            self.ending = Some(ending);
        }
    }
}

fn killed(begin: &Begin, reason: &str, step: Option<Step>) -> Effect {
    let cause = ExitCause::Failed { code: -1, message: reason.to_owned() };
    let Begin { job, seat: Seat { generation, rank, .. }, .. } = *begin;
    Effect::Report(Report { job, generation, rank, kind: ReportKind::Exited { cause, step } })
}

#[cfg(test)]
mod tests;
