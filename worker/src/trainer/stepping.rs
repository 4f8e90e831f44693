//! One optimiser step of one rank, and what is told of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use unimse_core::id::Rank;
use unimse_core::view::Progress;

use super::boundary::Course;
use super::lanes::{self, Flags, Totals, hex};
use super::life::Life;
use super::saving::now;
use super::{Halt, Sums, Update, invalid, spans};
use crate::protocol::StepRecord;

/// The recent speed of training.
#[derive(Debug, Default)]
pub(super) struct Pace {
    samples_per_second: Option<f64>,
}

/// Where the time of a step went.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    communication: Duration,
    optimiser: Duration,
    snapshot: Duration,
    whole: Duration,
}

impl Course<'_, '_> {
    /// Makes one step. Until the update nothing of the state changes, so that a lost peer costs this step at most.
    pub(super) fn step(&mut self) -> Result<(), Halt> {
        let began = Instant::now();
        let _span = spans::span(format!("step {}", self.at.step.next()));
        let mut parts = Parts { snapshot: std::mem::take(&mut self.snapshot), ..Parts::default() };
        let seat = self.life.seat;
        let replica = self.life.replica.as_mut();
        let batch = replica.order().batch(self.at);
        let step = batch.next.step;
        let group = self.group.as_mut();
        let sums = replica.gradients(step, &batch, (seat.rank, seat.world_size), group)?;

        let computed = Instant::now();
        let (uploaded, upload_failed) = self.saver.upload();
        let flags = Flags { uploaded, upload_failed, stop: self.life.mailbox.stop_wanted(seat.generation) };
        let totals = lanes::exchange(group, &batch, &sums, flags)?;
        if !totals.loss.is_finite() {
            let message = format!(
                "training diverged: the loss of step {step} is {}; hint: lower train.learning_rate, or use precision fp32",
                totals.loss
            );
            return Err(Halt::End(invalid(message)));
        }
        let saves = totals.stop || self.is_due(self.life.begin.spec.checkpoint.every, step);
        let (replica, group) = (self.life.replica.as_mut(), self.group.as_mut());
        replica.reduce(step, saves, group)?;
        parts.communication = computed.elapsed() + sums.exposed;
        parts.snapshot += self.saver.copied();

        let updating = Instant::now();
        let update = {
            let _span = spans::span("update");
            replica.update(step, self.total)?
        };
        parts.optimiser = updating.elapsed();
        let agreeing = Instant::now();
        let whole = replica.synchronise(step, self.total, group)?;
        parts.communication += agreeing.elapsed();
        let traffic = replica.traffic();
        parts.whole = began.elapsed() + parts.snapshot;
        self.at = batch.next;
        if whole {
            self.held_mut().cursor = batch.next;
        }
        self.tell(&sums, &totals, update, &parts, (batch.samples.len(), traffic));

        self.stop = totals.stop;
        if totals.upload_failed {
            self.saver.give_up();
        } else if totals.uploaded {
            self.saver.agree(self.group.as_mut())?;
        }
        Ok(())
    }

    fn tell(&mut self, sums: &Sums, totals: &Totals, update: Update, parts: &Parts, (samples, traffic): (usize, u64)) {
        let speed = samples as f64 / parts.whole.as_secs_f64().max(1e-9);
        let smooth = self.pace.samples_per_second.map_or(speed, |before| 0.9 * before + 0.1 * speed);
        self.pace.samples_per_second = Some(smooth);

        let cursor = self.at;
        let every = self.life.begin.spec.log.every.max(1);
        let mut values = BTreeMap::new();
        if cursor.step.0.is_multiple_of(every) || cursor.step.0 >= self.total {
            let device_memory = self.life.replica.device_memory().map_or(f64::NAN, |bytes| bytes as f64 / 1e6);
            let times = [
                ("data", sums.data),
                ("forward", sums.forward),
                ("backward", sums.backward),
                ("communication", parts.communication),
                ("optimiser", parts.optimiser),
                ("snapshot", parts.snapshot),
            ];
            values.extend(times.map(|(name, time)| (format!("time/{name}"), time.as_secs_f64())));
            let named = [
                ("loss", totals.loss),
                ("ce", totals.ce),
                ("contrastive_acoustic", totals.contrastive_acoustic),
                ("contrastive_visual", totals.contrastive_visual),
                ("lr", update.learning_rate),
                ("grad_norm", update.gradient_norm),
                ("samples_per_second", speed),
                ("tokens_per_second", totals.tokens / parts.whole.as_secs_f64().max(1e-9)),
                ("mfu", totals.teraflops / (parts.whole.as_secs_f64() * totals.peak)),
                ("sent_megabytes", traffic as f64 / 1e6),
                ("peak_memory_megabytes", peak_memory() as f64 / 1e6),
                ("gpu_memory_megabytes", device_memory),
            ];
            values.extend(named.map(|(name, value)| (format!("train/{name}"), value)));
            values.retain(|_, value| value.is_finite());
        }
        let record = StepRecord { step: cursor.step, at: now(), digest: hex(totals.digest), values };
        let progress = Progress {
            step: cursor.step,
            total_steps: Some(self.total),
            epoch: cursor.epoch,
            loss: totals.loss,
            learning_rate: update.learning_rate,
            samples_per_second: smooth,
            step_parts: step_parts(&record),
            at: record.at,
        };
        // All ranks know the same; one tells it, the others remember it.
        let told = if self.life.seat.rank == Rank(0) { vec![record.clone()] } else { Vec::new() };
        self.life.recent.push(record);
        self.life.mouth.steps(self.life.seat, progress, told);
    }
}

impl Life<'_> {
    /// The progress that the newest of these records shows.
    pub(super) fn progress_of(&self, records: &[StepRecord]) -> Option<Progress> {
        let last = records.last()?;
        let value =
            |name: &str| records.iter().rev().find_map(|record| record.values.get(name)).copied().unwrap_or(0.0);
        Some(Progress {
            step: last.step,
            total_steps: Some(self.replica.order().total_steps(self.begin.spec.train.length)),
            epoch: self.held.as_ref().map_or(0, |held| held.cursor.epoch),
            loss: value("train/loss"),
            learning_rate: value("train/lr"),
            samples_per_second: value("train/samples_per_second"),
            step_parts: step_parts(last),
            at: last.at,
        })
    }
}

/// The most memory that this process has had, in bytes; 0 where the system does not say.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}

fn step_parts(record: &StepRecord) -> BTreeMap<String, f64> {
    let part = |(name, value): (&String, &f64)| Some((name.strip_prefix("time/")?.to_owned(), *value));
    record.values.iter().filter_map(part).collect()
}
