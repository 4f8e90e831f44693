//! Virtual agents and their trainers: connect, obey, report, leave.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::RngExt;
use unimse_core::id::{Generation, JobId, Rank, Step, WorkerId};
use unimse_core::job::{ExitCause, Readiness};
use unimse_core::machine::{Answer, Event, Form, Order, Report, ReportKind, TrainerStatus};
use unimse_core::spec::JobSpec;
use unimse_core::worker::{Slot, WorkerInfo};

use super::Cluster;

#[derive(Clone, Debug)]
pub(super) struct Trainer {
    pub(super) generation: Generation,
    pub(super) rank: Rank,
    /// Ticks until it is ready.
    pub(super) starts_in: u32,
    pub(super) told_ready: bool,
    pub(super) form: Option<Form>,
    /// It has been told its peers once; the same generation is never formed twice.
    pub(super) told_form: bool,
    pub(super) holds: Option<Step>,
    pub(super) step: Step,
    pub(super) stop: bool,
    pub(super) total: u64,
    pub(super) world: u32,
}

/// What an agent keeps until it is acknowledged.
#[derive(Clone, Debug)]
pub(super) enum Word {
    Report(Report),
    Leaving,
    Left,
}

/// How far an agent that was asked to end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its trainers save and stop.
    Stopping,
    /// It waits so many ticks for the coordinator to hear that it is gone.
    Left(u32),
}

#[derive(Debug)]
pub(super) struct Agent {
    pub(super) info: WorkerInfo,
    pub(super) id: Option<WorkerId>,
    pub(super) connected: bool,
    /// Ticks until it tries to connect again.
    pub(super) away: u32,
    pub(super) seq: u64,
    pub(super) unacked: VecDeque<(u64, Word)>,
    pub(super) ending: Option<Ending>,
    pub(super) trainers: BTreeMap<(JobId, u32), Trainer>,
    pub(super) seen: BTreeMap<JobId, Generation>,
}

impl Cluster {
    pub(super) fn fresh_agent(&mut self, node: u32) -> Agent {
        self.incarnations += 1;
        let info = WorkerInfo {
            node: format!("node-{node}"),
            incarnation: format!("i{}", self.incarnations),
            host: "127.0.0.1".to_owned(),
            slots: vec![Slot::Cpu { threads: 1 }; 2],
            version: "0".to_owned(),
        };
        let (unacked, trainers, seen) = (VecDeque::new(), BTreeMap::new(), BTreeMap::new());
        Agent { info, id: None, connected: false, away: 1, seq: 0, unacked, ending: None, trainers, seen }
    }

    pub(super) fn agent_tick(&mut self, number: usize, stormy: bool) {
        if self.chance(self.faults.agent_crash, stormy) {
            let node = u32::try_from(number).expect("few");
            self.agents[number] = self.fresh_agent(node);
            self.agents[number].away = self.rng.random_range(1..20);
        }
        if self.chance(self.faults.agent_stop, stormy) && self.agents[number].ending.is_none() {
            self.leave(number);
        }
        if self.chance(self.faults.disconnect, stormy) {
            self.agents[number].connected = false;
            self.agents[number].away = self.rng.random_range(1..16);
        }
        if self.chance(self.faults.trainer_crash, stormy) {
            let keys: Vec<_> = self.agents[number].trainers.keys().copied().collect();
            if !keys.is_empty() {
                let key = keys[self.rng.random_range(0..keys.len())];
                self.exit(number, key, ExitCause::Signalled { signal: 9 });
            }
        }
        if !self.agents[number].connected {
            self.agents[number].away = self.agents[number].away.saturating_sub(1);
            if self.agents[number].away == 0 {
                self.connect(number);
            }
        }
        let starting: Vec<_> = self.agents[number].trainers.keys().copied().collect();
        for key in starting {
            let trainer = self.agents[number].trainers.get_mut(&key).expect("listed");
            trainer.starts_in = trainer.starts_in.saturating_sub(1);
            if trainer.starts_in == 0 && !trainer.told_ready {
                trainer.told_ready = true;
                let (generation, rank, holds) = (trainer.generation, trainer.rank, trainer.holds);
                let ready = Readiness { address: format!("{number}:{}", key.1), nccl_id: None, holds };
                self.say(number, key.0, generation, rank, ReportKind::Ready(ready));
            }
        }
        self.depart_when_idle(number);
        self.flush(number);
        if self.agents[number].connected
            && let Some(id) = self.agents[number].id
        {
            self.machine.heard(self.now, id);
        }
    }

    /// The agent is asked to end: it says so, and its trainers save and stop.
    fn leave(&mut self, number: usize) {
        self.agents[number].ending = Some(Ending::Stopping);
        self.keep(number, Word::Leaving);
        let keys: Vec<_> = self.agents[number].trainers.keys().copied().collect();
        for key in keys {
            let trainer = self.agents[number].trainers.get_mut(&key).expect("listed");
            if trainer.told_form {
                trainer.stop = true;
            } else {
                let message = "stopped before its generation was formed".to_owned();
                self.exit(number, key, ExitCause::Failed { code: -1, message });
            }
        }
    }

    /// Without a trainer an agent that ends says that it has left; when that was heard, or nobody is there, another takes its place.
    fn depart_when_idle(&mut self, number: usize) {
        let agent = &mut self.agents[number];
        match agent.ending {
            Some(Ending::Stopping) if agent.trainers.is_empty() => {
                agent.ending = Some(Ending::Left(6));
                self.keep(number, Word::Left);
            }
            Some(Ending::Left(patience)) => {
                if patience == 0 || agent.unacked.is_empty() || !agent.connected {
                    let node = u32::try_from(number).expect("few");
                    self.agents[number] = self.fresh_agent(node);
                    self.agents[number].away = self.rng.random_range(1..20);
                } else {
                    agent.ending = Some(Ending::Left(patience - 1));
                }
            }
            _ => {}
        }
    }

    fn connect(&mut self, number: usize) {
        let agent = &self.agents[number];
        let status = |(&(job, slot), trainer): (&(JobId, u32), &Trainer)| TrainerStatus {
            job,
            generation: trainer.generation,
            rank: trainer.rank,
            slot,
            formed: trainer.told_form,
        };
        let trainers = agent.trainers.iter().map(status).collect();
        self.agents[number].connected = true;
        let answer = self.event(Event::Register { info: self.agents[number].info.clone(), trainers });
        if !matches!(answer, Some(Answer::Worker(_))) {
            // Declared lost: everything it ran is void.
            let node = u32::try_from(number).expect("few");
            self.agents[number] = self.fresh_agent(node);
        }
    }

    pub(super) fn say(&mut self, number: usize, job: JobId, generation: Generation, rank: Rank, kind: ReportKind) {
        self.keep(number, Word::Report(Report { job, generation, rank, kind }));
    }

    fn keep(&mut self, number: usize, word: Word) {
        let agent = &mut self.agents[number];
        agent.seq += 1;
        agent.unacked.push_back((agent.seq, word));
    }

    /// Delivers what is unacknowledged; an acknowledgement may be lost, so a report can come twice.
    fn flush(&mut self, number: usize) {
        for _ in 0..2 {
            let pending: Vec<_> = self.agents[number].unacked.iter().cloned().collect();
            for (seq, word) in pending {
                let (true, Some(worker)) = (self.agents[number].connected, self.agents[number].id) else { return };
                self.event(match word {
                    Word::Report(report) => Event::Report { worker, seq, report },
                    Word::Leaving => Event::WorkerLeaves { worker },
                    Word::Left => Event::WorkerLeft { worker },
                });
            }
            if self.rng.random_range(0..4) > 0 {
                self.agents[number].unacked.clear();
                return;
            }
        }
    }

    pub(super) fn exit(&mut self, number: usize, key: (JobId, u32), cause: ExitCause) {
        if let Some(trainer) = self.agents[number].trainers.remove(&key) {
            let kind = ReportKind::Exited { cause, step: trainer.holds };
            self.say(number, key.0, trainer.generation, trainer.rank, kind);
        }
    }

    pub(super) fn obey(&mut self, worker: WorkerId, order: Order) {
        let lost = self.rng.random_range(0..1000) < self.faults.lost_order;
        let Some(number) = self.agents.iter().position(|agent| agent.id == Some(worker) && agent.connected) else {
            return;
        };
        if lost {
            // A message is lost only with its stream.
            self.agents[number].connected = false;
            self.agents[number].away = 2;
            return;
        }
        match order {
            Order::Assign(assign) => {
                let ends = self.agents[number].ending.is_some();
                let seen = self.agents[number].seen.entry(assign.job).or_default();
                if assign.generation <= *seen || ends {
                    return;
                }
                *seen = assign.generation;
                let slots: BTreeSet<u32> = assign.ranks.iter().map(|seated| seated.slot).collect();
                self.agents[number].trainers.retain(|&(job, slot), _| job != assign.job || slots.contains(&slot));
                for seated in assign.ranks {
                    self.agents[number].trainers.retain(|&(job, slot), _| job == assign.job || slot != seated.slot);
                    let starts_in = self.rng.random_range(1..4);
                    let agent = &mut self.agents[number];
                    let (total, world) = (steps(&assign.spec), assign.world_size);
                    let old = agent.trainers.get(&(assign.job, seated.slot));
                    let (holds, step) = old.map_or((None, Step(0)), |old| (old.holds, old.step));
                    let trainer = Trainer {
                        generation: assign.generation,
                        rank: seated.rank,
                        starts_in: if old.is_some() { 1 } else { starts_in },
                        told_ready: false,
                        form: None,
                        told_form: false,
                        holds,
                        step,
                        stop: false,
                        total,
                        world,
                    };
                    agent.trainers.insert((assign.job, seated.slot), trainer);
                }
            }
            Order::Form(form) => {
                for ((job, _), trainer) in &mut self.agents[number].trainers {
                    if *job == form.job
                        && trainer.generation == form.generation
                        && trainer.told_ready
                        && !trainer.told_form
                    {
                        trainer.told_form = true;
                        let begins =
                            form.source.map(|(_, step)| step).or_else(|| form.resume.as_ref().map(|at| at.step));
                        trainer.step = begins.unwrap_or_default();
                        trainer.holds = Some(trainer.step);
                        trainer.form = Some(form.clone());
                    }
                }
            }
            Order::Stop { job, generation } => {
                for ((of, _), trainer) in &mut self.agents[number].trainers {
                    trainer.stop |= *of == job && trainer.generation == generation;
                }
            }
            Order::Kill { job, generation } => {
                self.agents[number].trainers.retain(|&(of, _), trainer| of != job || trainer.generation > generation);
            }
        }
    }
}

fn steps(spec: &JobSpec) -> u64 {
    match spec.train.length {
        unimse_core::spec::TrainLength::Steps(steps) => steps,
        unimse_core::spec::TrainLength::Epochs(_) => unreachable!("the simulation counts in steps"),
    }
}
