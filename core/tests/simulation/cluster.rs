//! Virtual agents and trainers around the real machine.

mod agent;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use unimse_core::checkpoint::CheckpointRef;
use unimse_core::id::{Generation, JobId, Rank, Step};
use unimse_core::job::{ExitCause, Phase};
use unimse_core::machine::{Answer, Effect, Event, Machine, Report, ReportKind, State, Submission};
use unimse_core::spec::{JobSpec, parse_job, parse_sweep};
use unimse_core::time::Timestamp;
use unimse_core::worker::WorkerState;

use agent::Agent;

const LEASE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(500);
const EVERY: u64 = 5;
/// A lease that never runs out.
const FAR: Duration = Duration::from_hours(10_000);

/// How often each fault happens, in thousandths per tick.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) trainer_crash: u32,
    pub(crate) agent_crash: u32,
    pub(crate) disconnect: u32,
    pub(crate) lost_order: u32,
    pub(crate) coordinator_restart: u32,
    pub(crate) pause: u32,
    /// An agent is asked to end.
    pub(crate) agent_stop: u32,
}

impl Faults {
    pub(crate) fn none() -> Self {
        Self::default()
    }

    pub(crate) fn all() -> Self {
        Self {
            trainer_crash: 12,
            agent_crash: 4,
            disconnect: 15,
            lost_order: 30,
            coordinator_restart: 20,
            pause: 5,
            agent_stop: 4,
        }
    }
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
        // What is due follows from the state, whichever way it was reached.
        let due = |machine: &Machine| machine.next_deadline(FAR).filter(|&at| at < self.now + FAR / 2);
        let fresh = Machine::from_state(self.machine.state().clone());
        assert_eq!(due(&self.machine), due(&fresh), "seed {}: a deadline is forgotten", self.seed);
        let mut seats = BTreeSet::new();
        for job in self.machine.state().jobs.values() {
            let gang = job.phase.gang();
            let stopping = matches!(job.phase, Phase::Stopping { .. });
            for (rank, seat) in (0..).zip(gang.map(|gang| gang.seats.as_slice()).unwrap_or_default()) {
                assert!(seats.insert(*seat), "seed {}: two ranks on {seat:?}", self.seed);
                let worker = &self.machine.state().workers[&seat.worker];
                let done = stopping && gang.is_some_and(|gang| gang.finished.contains(&Rank(rank)));
                assert!(worker.alive() || done, "seed {}: a rank on a worker that is gone", self.seed);
                assert!(
                    worker.state != WorkerState::Leaving || stopping,
                    "seed {}: {} goes on on a worker that leaves",
                    self.seed,
                    job.id
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
