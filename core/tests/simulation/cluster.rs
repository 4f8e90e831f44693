//! Virtual agents and trainers around the real machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use unimse_core::checkpoint::CheckpointRef;
use unimse_core::id::{Generation, JobId, Rank, Step, WorkerId};
use unimse_core::job::{ExitCause, Phase, Readiness};
use unimse_core::machine::{
    Answer, Effect, Event, Form, Machine, Order, Report, ReportKind, State, Submission, TrainerStatus,
};
use unimse_core::spec::{JobSpec, parse_job, parse_sweep};
use unimse_core::time::Timestamp;
use unimse_core::worker::{Slot, WorkerInfo};

const LEASE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(500);
const EVERY: u64 = 5;

/// How often each fault happens, in thousandths per tick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) trainer_crash: u32,
    pub(crate) agent_crash: u32,
    pub(crate) disconnect: u32,
    pub(crate) lost_order: u32,
    pub(crate) coordinator_restart: u32,
    pub(crate) pause: u32,
}

impl Faults {
    pub(crate) fn none() -> Self {
        Self { trainer_crash: 0, agent_crash: 0, disconnect: 0, lost_order: 0, coordinator_restart: 0, pause: 0 }
    }

    pub(crate) fn all() -> Self {
        Self { trainer_crash: 12, agent_crash: 4, disconnect: 15, lost_order: 30, coordinator_restart: 20, pause: 5 }
    }
}

#[derive(Clone, Debug)]
struct Trainer {
    generation: Generation,
    rank: Rank,
    /// Ticks until it is ready.
    starts_in: u32,
    told_ready: bool,
    form: Option<Form>,
    /// It has been told its peers once; the same generation is never formed twice.
    told_form: bool,
    holds: Option<Step>,
    step: Step,
    stop: bool,
    total: u64,
    world: u32,
}

#[derive(Debug)]
struct Agent {
    info: WorkerInfo,
    id: Option<WorkerId>,
    connected: bool,
    /// Ticks until it tries to connect again.
    away: u32,
    seq: u64,
    unacked: VecDeque<(u64, Report)>,
    trainers: BTreeMap<(JobId, u32), Trainer>,
    seen: BTreeMap<JobId, Generation>,
}

pub(crate) struct Cluster {
    pub(crate) machine: Machine,
    pub(crate) restarts_of_coordinator: u32,
    seed: u64,
    faults: Faults,
    rng: ChaCha8Rng,
    now: Timestamp,
    journal: Vec<(Timestamp, Event)>,
    agents: Vec<Agent>,
    incarnations: u32,
    /// Reports of an old generation that came.
    pub(crate) fenced: u32,
}

fn spec(number: u32, slots: u32, min: u32, priority: u32, steps: u64) -> Arc<JobSpec> {
    let text = format!(
        "name: job-{number}\nmodel: {{preset: tiny}}\ndata: {{train: [{{path: a.arrow}}]}}\n\
         train: {{max_steps: {steps}, global_batch: 8}}\nresources: {{slots: {slots}, min_slots: {min}, priority: {priority}}}\n\
         checkpoint: {{every: {EVERY}}}\nrestart: {{max: 40, backoff: 2s}}\n"
    );
    Arc::new(parse_job(&text, "simulation").expect("a valid job"))
}

impl Cluster {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        let mut cluster = Self {
            machine: Machine::default(),
            restarts_of_coordinator: 0,
            seed,
            faults,
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: Timestamp(1_000_000),
            journal: Vec::new(),
            agents: Vec::new(),
            incarnations: 0,
            fenced: 0,
        };
        for node in 0..3 {
            let agent = cluster.fresh_agent(node);
            cluster.agents.push(agent);
        }
        cluster
    }

    fn fresh_agent(&mut self, node: u32) -> Agent {
        self.incarnations += 1;
        let info = WorkerInfo {
            node: format!("node-{node}"),
            incarnation: format!("i{}", self.incarnations),
            host: "127.0.0.1".to_owned(),
            slots: vec![Slot::Cpu { threads: 1 }; 2],
            version: "0".to_owned(),
        };
        let (unacked, trainers, seen) = (VecDeque::new(), BTreeMap::new(), BTreeMap::new());
        Agent { info, id: None, connected: false, away: 1, seq: 0, unacked, trainers, seen }
    }

    pub(crate) fn submit_jobs(&mut self, count: u32) {
        for number in 0..count {
            let slots = self.rng.random_range(1..=4);
            let min = self.rng.random_range(1..=slots);
            let priority = self.rng.random_range(0..3) * 40;
            let steps = self.rng.random_range(3..40);
            let submission = Submission {
                key: Some(format!("key-{number}")),
                spec: spec(number, slots, min, priority, steps),
                checkpoint_uri: "memory:".to_owned(),
            };
            let first = self.event(Event::Submit(submission.clone()));
            let again = self.event(Event::Submit(submission));
            match (first, again) {
                (Some(Answer::Job { job, new: true }), Some(Answer::Job { job: same, new: false })) => {
                    assert_eq!(job, same);
                }
                other => panic!("a key stands for one job: {other:?}"),
            }
        }
    }

    pub(crate) fn submit_sweep(&mut self) {
        let text = "name: s\njob: {name: t, model: {preset: tiny}, data: {train: [{path: a.arrow}], valid: [{path: a.arrow}]}, train: {max_steps: 36, global_batch: 8}, \
                    checkpoint: {every: 4}, restart: {max: 40, backoff: 1s}}\nmethod: random\nmetric: {name: valid/score, goal: maximize}\n\
                    parameters:\n  train.learning_rate: {min: 1e-5, max: 1e-3, scale: log}\nearly_stop: {type: asha, min_steps: 4, factor: 3}\n\
                    max_trials: 9\nparallel: 2\nseed: 3\n";
        let spec = parse_sweep(text, "simulation", &mut |_| Err("inline only".to_owned())).expect("a valid sweep");
        self.event(Event::SweepRun { key: None, spec: Box::new(spec), checkpoint_uri: "memory:".to_owned() });
    }

    pub(crate) fn run_until_faults_end(&mut self) {
        for _ in 0..400 {
            self.tick(true);
        }
    }

    pub(crate) fn run_until_quiet(&mut self) {
        for _ in 0..20_000 {
            let jobs_ended =
                self.machine.state().jobs.values().all(|job| {
                    job.phase.ended() || (job.origin.is_some() && matches!(job.phase, Phase::Paused { .. }))
                });
            let sweeps_ended = self.machine.state().sweeps.values().all(unimse_core::machine::SweepRecord::ended);
            if jobs_ended && sweeps_ended {
                return;
            }
            let paused: Vec<JobId> = self
                .machine
                .state()
                .jobs
                .values()
                .filter(|job| job.origin.is_none() && matches!(job.phase, Phase::Paused { .. }))
                .map(|job| job.id)
                .collect();
            for job in paused {
                self.event(Event::Resume { job, from: None, spec: None });
            }
            self.tick(false);
        }
    }

    fn chance(&mut self, thousandths: u32, stormy: bool) -> bool {
        stormy && self.rng.random_range(0..1000) < thousandths
    }

    fn tick(&mut self, stormy: bool) {
        self.now = self.now + TICK;
        if self.chance(self.faults.coordinator_restart, stormy) {
            self.restart_coordinator();
        }
        if self.chance(self.faults.pause, stormy) {
            let running: Vec<JobId> =
                self.machine.state().jobs.values().filter(|job| !job.phase.ended()).map(|job| job.id).collect();
            if !running.is_empty() {
                let job = running[self.rng.random_range(0..running.len())];
                self.event(Event::Pause { job });
                if self.rng.random_range(0..2) == 0 {
                    self.event(Event::Resume { job, from: None, spec: None });
                }
            }
        }
        for number in 0..self.agents.len() {
            self.agent_tick(number, stormy);
        }
        self.train();
        for event in self.machine.due(self.now, LEASE) {
            self.event(event);
        }
        self.check();
    }

    fn restart_coordinator(&mut self) {
        self.restarts_of_coordinator += 1;
        let mut replayed = Machine::default();
        for (at, event) in &self.journal {
            let _ = replayed.step(*at, event.clone());
        }
        assert_eq!(replayed.state(), self.machine.state(), "seed {}: replay differs", self.seed);
        let snapshot = serde_json::to_string(replayed.state()).expect("plain data");
        let mut machine = Machine::from_state(serde_json::from_str(&snapshot).expect("reads back"));
        assert_eq!(machine.state(), self.machine.state(), "seed {}: the snapshot differs", self.seed);
        machine.recover(self.now);
        self.machine = machine;
        for agent in &mut self.agents {
            agent.connected = false;
            agent.away = agent.away.max(1);
        }
    }

    fn agent_tick(&mut self, number: usize, stormy: bool) {
        if self.chance(self.faults.agent_crash, stormy) {
            let node = u32::try_from(number).expect("few");
            self.agents[number] = self.fresh_agent(node);
            self.agents[number].away = self.rng.random_range(1..20);
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
        self.flush(number);
        if self.agents[number].connected
            && let Some(id) = self.agents[number].id
        {
            self.machine.heard(self.now, id);
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

    fn say(&mut self, number: usize, job: JobId, generation: Generation, rank: Rank, kind: ReportKind) {
        let agent = &mut self.agents[number];
        agent.seq += 1;
        agent.unacked.push_back((agent.seq, Report { job, generation, rank, kind }));
    }

    /// Delivers what is unacknowledged; an acknowledgement may be lost, so a report can come twice.
    fn flush(&mut self, number: usize) {
        for _ in 0..2 {
            let pending: Vec<_> = self.agents[number].unacked.iter().cloned().collect();
            for (seq, report) in pending {
                let (true, Some(worker)) = (self.agents[number].connected, self.agents[number].id) else { return };
                self.event(Event::Report { worker, seq, report });
            }
            if self.rng.random_range(0..4) > 0 {
                self.agents[number].unacked.clear();
                return;
            }
        }
    }

    fn exit(&mut self, number: usize, key: (JobId, u32), cause: ExitCause) {
        if let Some(trainer) = self.agents[number].trainers.remove(&key) {
            let kind = ReportKind::Exited { cause, step: trainer.holds };
            self.say(number, key.0, trainer.generation, trainer.rank, kind);
        }
    }

    /// All ranks of a formed generation take a step together, or notice that one is missing.
    fn train(&mut self) {
        let mut groups: BTreeMap<(JobId, Generation), Vec<(usize, u32)>> = BTreeMap::new();
        for (number, agent) in self.agents.iter().enumerate() {
            for (&(job, slot), trainer) in &agent.trainers {
                if trainer.form.is_some() {
                    groups.entry((job, trainer.generation)).or_default().push((number, slot));
                }
            }
        }
        for ((job, generation), members) in groups {
            let first = self.agents[members[0].0].trainers[&(job, members[0].1)].clone();
            if members.len() < first.world as usize {
                for (number, slot) in members {
                    let trainer = self.agents[number].trainers.get_mut(&(job, slot)).expect("a member");
                    // It keeps its state and waits; it says so once.
                    trainer.form = None;
                    let (rank, step) = (trainer.rank, trainer.step);
                    let detail = "connection reset".to_owned();
                    self.say(number, job, generation, rank, ReportKind::PeerLost { step, detail });
                }
                continue;
            }
            let before =
                members.iter().map(|&(n, slot)| self.agents[n].trainers[&(job, slot)].step).max().expect("members");
            let step = Step((before.0 + 1).min(first.total));
            let stop = members.iter().any(|&(n, slot)| self.agents[n].trainers[&(job, slot)].stop);
            let commits = step.0.is_multiple_of(EVERY) || step.0 == first.total || stop;
            for (number, slot) in members {
                let trainer = self.agents[number].trainers.get_mut(&(job, slot)).expect("a member");
                trainer.step = step;
                trainer.holds = Some(step);
                let rank = trainer.rank;
                if rank == Rank(0) && commits {
                    // What it says is a function of job and step, as a deterministic training would have it.
                    let value = f64::from(job.0 * 31 % 17) + step.0 as f64 * 0.01;
                    let metrics = BTreeMap::from([("valid/score".to_owned(), value)]);
                    self.say(number, job, generation, rank, ReportKind::Evaluated { step, metrics: metrics.clone() });
                    let at = CheckpointRef {
                        uri: "memory:".to_owned(),
                        manifest: format!("{job}/step-{step}/manifest-g{generation}.json"),
                        digest: String::new(),
                        step,
                        generation,
                    };
                    let kind = ReportKind::Committed { at, bytes: 1, world_size: first.world, metrics };
                    self.say(number, job, generation, rank, kind);
                }
                if step.0 == first.total {
                    self.say(number, job, generation, rank, ReportKind::Finished { step });
                    self.exit(number, (job, slot), ExitCause::Finished);
                } else if stop {
                    self.exit(number, (job, slot), ExitCause::Stopped);
                }
            }
        }
    }

    fn event(&mut self, event: Event) -> Option<Answer> {
        let before = self.machine.state().clone();
        let step = self.machine.step(self.now, event.clone());
        let Ok(answer) = step.answer else {
            assert_eq!(&before, self.machine.state(), "seed {}: a refusal changed something: {event:?}", self.seed);
            return None;
        };
        if let (Event::Register { info, .. }, Answer::Worker(id)) = (&event, &answer) {
            // The session is known before the orders that its registration causes are sent.
            for agent in self.agents.iter_mut().filter(|agent| agent.info.incarnation == info.incarnation) {
                agent.id = Some(*id);
            }
        }
        if let Event::Report { report: Report { job, generation, kind, .. }, .. } = &event {
            self.check_fence(&before, *job, *generation, kind);
        }
        self.journal.push((self.now, event));
        for effect in step.effects {
            match effect {
                Effect::Send { worker, order } => self.obey(worker, order),
                Effect::DeleteCheckpoint { job, at } => {
                    self.event(Event::CheckpointDeleted { job, manifest: at.manifest });
                }
                Effect::JobChanged(_) | Effect::SweepChanged(_) => {}
            }
        }
        Some(answer)
    }

    fn obey(&mut self, worker: WorkerId, order: Order) {
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
                let seen = self.agents[number].seen.entry(assign.job).or_default();
                if assign.generation <= *seen {
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

    /// A word of another generation than the one that was current may be heard, but it changes nothing of the job.
    fn check_fence(&mut self, before: &State, job: JobId, generation: Generation, kind: &ReportKind) {
        let (Some(old), Some(new)) = (before.jobs.get(&job), self.machine.state().jobs.get(&job)) else { return };
        if generation != old.generation {
            self.fenced += 1;
            // The scheduler may have given it slots in the same step; its checkpoints, failures and results stay as they were.
            assert_eq!(
                old.checkpoints, new.checkpoints,
                "seed {}: {job} took a commit of {generation}: {kind:?}",
                self.seed
            );
            assert_eq!(
                old.restarts, new.restarts,
                "seed {}: {job} counted a failure of {generation}: {kind:?}",
                self.seed
            );
            assert_eq!(
                old.evaluation, new.evaluation,
                "seed {}: {job} took a result of {generation}: {kind:?}",
                self.seed
            );
        }
        if let ReportKind::Committed { at, .. } = kind {
            let accepted = new.checkpoints.len() > old.checkpoints.len();
            assert!(!accepted || at.generation == old.generation, "seed {}: {job} took the commit {at:?}", self.seed);
        }
    }

    /// What must hold after every tick.
    fn check(&self) {
        let mut seats = BTreeSet::new();
        for job in self.machine.state().jobs.values() {
            let gang = job.phase.gang();
            for seat in gang.map(|gang| gang.seats.as_slice()).unwrap_or_default() {
                assert!(seats.insert(*seat), "seed {}: two ranks on {seat:?}", self.seed);
                assert!(
                    self.machine.state().workers[&seat.worker].alive(),
                    "seed {}: a rank on a lost worker",
                    self.seed
                );
            }
            if let Some(gang) = gang {
                let (min, max) = (job.spec.resources.min_slots, job.spec.resources.slots);
                assert!(
                    (min..=max).contains(&gang.world_size()),
                    "seed {}: {} has {} ranks",
                    self.seed,
                    job.id,
                    gang.world_size()
                );
            }
        }
        for agent in &self.agents {
            let mut slots = BTreeSet::new();
            for (_, slot) in agent.trainers.keys() {
                assert!(slots.insert(slot), "seed {}: two trainers on a slot of {}", self.seed, agent.info.node);
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
