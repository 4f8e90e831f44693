//! What happens between steps: evaluations, checkpoints, the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use unimse_collectives::Collective;
use unimse_core::id::{Rank, Step};
use unimse_core::job::ExitCause;
use unimse_core::machine::ReportKind;
use unimse_core::shard::Cursor;

use super::held::Held;
use super::life::Life;
use super::profiling::Profile;
use super::saving::Saver;
use super::stepping::Pace;
use super::{Halt, failed, spans};

/// The training of one generation.
pub(super) struct Course<'a, 'b> {
    pub(super) life: &'a mut Life<'b>,
    pub(super) group: Box<dyn Collective>,
    pub(super) saver: Saver,
    pub(super) pace: Pace,
    /// Steps of the whole job.
    pub(super) total: u64,
    /// The ranks have agreed to save and stop.
    pub(super) stop: bool,
    /// What the last checkpoint cost the training thread, until it is told.
    pub(super) snapshot: Duration,
    /// Where training is. Beyond what is held, where ranks take steps of their own.
    pub(super) at: Cursor,
    pub(super) profile: Profile,
}

impl<'a, 'b> Course<'a, 'b> {
    pub(super) fn new(life: &'a mut Life<'b>, group: Box<dyn Collective>, saver: Saver) -> Self {
        let total = life.replica.order().total_steps(life.begin.spec.train.length);
        let at = life.held.as_ref().expect("a formed generation holds a state").cursor;
        let profile = Profile::default();
        Self { life, group, saver, pace: Pace::default(), total, stop: false, snapshot: Duration::ZERO, at, profile }
    }

    /// Trains to the end of the job, or to where the ranks were asked to stop.
    pub(super) fn run(&mut self) -> Result<ExitCause, Halt> {
        loop {
            // Between agreements the ranks hold different numbers: nothing to measure or to save.
            if self.at == self.held().cursor
                && let Some(cause) = self.boundary()?
            {
                return Ok(cause);
            }
            self.profile(self.at.step.next())?;
            self.step()?;
        }
    }

    /// Whether a checkpoint was begun that the ranks have not agreed on.
    pub(super) fn owes(&self) -> bool {
        self.saver.is_busy()
    }

    /// Does what is due between two steps; returns why training ends, if it does.
    fn boundary(&mut self) -> Result<Option<ExitCause>, Halt> {
        let spec = std::sync::Arc::clone(&self.life.begin.spec);
        let step = self.held().step();
        let last = step.0 >= self.total;
        if self.is_due(spec.train.evaluate_every, step)
            && self.held().evaluated.as_ref().is_none_or(|(at, _)| *at != step)
        {
            self.evaluate()?;
        }
        let due = self.is_due(spec.checkpoint.every, step) || self.stop || self.held().owed;
        if due && step.0 > 0 && self.held().saved != Some(step) {
            self.save()?;
        }
        if !last && !self.stop {
            return Ok(None);
        }
        if let Err(error) = self.saver.finish(self.group.as_mut())? {
            return Err(Halt::End(failed(format!("the last checkpoint, of step {step}, was not written: {error}"))));
        }
        if last {
            tracing::info!(%step, "finished");
            self.life.mouth.event(self.life.seat, ReportKind::Finished { step });
            return Ok(Some(ExitCause::Finished));
        }
        tracing::info!(%step, "saved and stopped as asked");
        Ok(Some(ExitCause::Stopped))
    }

    /// Whether something that happens every `n` steps happens after this one; the last step has everything.
    pub(super) fn is_due(&self, n: u64, step: Step) -> bool {
        step.0 > 0 && (step.0 >= self.total || n > 0 && step.0.is_multiple_of(n))
    }

    fn evaluate(&mut self) -> Result<(), Halt> {
        let _span = spans::span("evaluate");
        let began = Instant::now();
        let mut metrics: BTreeMap<String, f64> = self.life.replica.evaluate(self.group.as_mut())?;
        metrics.retain(|_, value| value.is_finite());
        let step = self.held().step();
        self.held_mut().evaluated = Some((step, metrics.clone()));
        if metrics.is_empty() {
            return Ok(());
        }
        tracing::info!(%step, milliseconds = began.elapsed().as_millis() as u64, score = metrics.get("valid/score"), "evaluated");
        if self.life.seat.rank == Rank(0) {
            self.life.mouth.event(self.life.seat, ReportKind::Evaluated { step, metrics });
        }
        Ok(())
    }

    /// Begins a checkpoint of the present step; one that is still being written must first come to its end.
    fn save(&mut self) -> Result<(), Halt> {
        let _span = spans::span("save");
        let began = Instant::now();
        if self.saver.is_busy() {
            self.saver.settle(self.group.as_mut())?;
            tracing::warn!(
                milliseconds = began.elapsed().as_millis() as u64,
                "training waited for the checkpoint before; hint: the store is slower than checkpoint.every"
            );
        }
        let held = self.held().clone();
        self.saver.start(self.life.replica.as_mut(), &held);
        let step = held.step();
        let held = self.held_mut();
        held.saved = Some(step);
        held.owed = false;
        self.snapshot += began.elapsed();
        Ok(())
    }

    pub(super) fn held(&self) -> &Held {
        self.life.held.as_ref().expect("a formed generation holds a state")
    }

    pub(super) fn held_mut(&mut self) -> &mut Held {
        self.life.held.as_mut().expect("a formed generation holds a state")
    }
}
