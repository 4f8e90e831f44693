mod departure;
mod removal;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::checkpoint::{CheckpointRef, CheckpointState};
use crate::id::{Generation, Rank, Step as TrainStep};
use crate::job::{ExitCause, Phase, Readiness};
use crate::spec::{JobSpec, apply_sets, parse_job};
use crate::worker::{Slot, WorkerInfo};

/// A machine, a clock, and the orders of the last step.
struct World {
    machine: Machine,
    now: Timestamp,
    seq: u64,
    effects: Vec<Effect>,
}

fn spec(slots: u32, min: u32, more: &str) -> Arc<JobSpec> {
    let text = format!(
        "name: t\nmodel: {{preset: tiny}}\ndata: {{train: [{{path: a.arrow}}]}}\ntrain: {{max_steps: 100, global_batch: 8}}\n\
         resources: {{slots: {slots}, min_slots: {min}}}\n{more}"
    );
    Arc::new(parse_job(&text, "test").expect("a valid job"))
}

impl World {
    fn new() -> Self {
        Self { machine: Machine::default(), now: Timestamp(1000), seq: 0, effects: Vec::new() }
    }

    fn step(&mut self, event: Event) -> Result<Answer, Refusal> {
        let step = self.machine.step(self.now, event);
        self.effects = step.effects;
        step.answer
    }

    fn worker(&mut self, node: &str, slots: usize) -> WorkerId {
        let info = WorkerInfo {
            node: node.to_owned(),
            incarnation: format!("{node}-{}", self.now.0),
            host: "h".to_owned(),
            slots: vec![Slot::Cpu { threads: 1 }; slots],
            version: "0".to_owned(),
        };
        match self.step(Event::Register { info, trainers: Vec::new() }) {
            Ok(Answer::Worker(worker)) => worker,
            other => panic!("{other:?}"),
        }
    }

    fn submit(&mut self, spec: Arc<JobSpec>) -> JobId {
        match self.step(Event::Submit(Submission { key: None, spec, checkpoint_uri: "memory:".to_owned() })) {
            Ok(Answer::Job { job, new: true }) => job,
            other => panic!("{other:?}"),
        }
    }

    fn job(&self, job: JobId) -> &Job {
        &self.machine.state().jobs[&job]
    }

    fn seats(&self, job: JobId) -> Vec<(WorkerId, u32)> {
        let gang = self.job(job).phase.gang().expect("it holds slots");
        gang.seats.iter().map(|seat| (seat.worker, seat.slot)).collect()
    }

    fn report(&mut self, job: JobId, rank: u32, kind: ReportKind) -> Answer {
        let generation = self.job(job).generation;
        let worker = self.seats(job)[rank as usize].0;
        self.report_as(worker, job, generation, rank, kind)
    }

    fn report_as(
        &mut self,
        worker: WorkerId,
        job: JobId,
        generation: Generation,
        rank: u32,
        kind: ReportKind,
    ) -> Answer {
        self.seq += 1;
        let report = Report { job, generation, rank: Rank(rank), kind };
        self.step(Event::Report { worker, seq: self.seq, report }).expect("a live worker is heard")
    }

    /// Lets all ranks be ready with these steps in memory; gives the formation.
    fn form(&mut self, job: JobId, holds: &[Option<u64>]) -> Form {
        for (rank, holds) in (0..).zip(holds) {
            let ready = Readiness { address: format!("a{rank}"), nccl_id: None, holds: holds.map(TrainStep) };
            self.report(job, rank, ReportKind::Ready(ready));
        }
        let form = self.effects.iter().find_map(|effect| match effect {
            Effect::Send { order: Order::Form(form), .. } => Some(form.clone()),
            _ => None,
        });
        form.expect("all ranks are ready")
    }

    fn commit(&mut self, job: JobId, step: u64, score: Option<f64>) -> Answer {
        let generation = self.job(job).generation;
        let metrics = score.map(|score| ("valid/score".to_owned(), score)).into_iter().collect::<BTreeMap<_, _>>();
        let kind = ReportKind::Committed { at: at(step, generation), bytes: 9, world_size: 2, metrics };
        self.report(job, 0, kind)
    }

    fn pass(&mut self, duration: Duration) {
        self.now = self.now + duration;
        for event in self.machine.due(self.now, Duration::from_secs(1_000_000)) {
            self.step(event).expect("time is never refused");
        }
    }
}

fn at(step: u64, generation: Generation) -> CheckpointRef {
    let manifest = format!("step-{step}/manifest-g{generation}.json");
    CheckpointRef { uri: "memory:".to_owned(), manifest, digest: "d".to_owned(), step: TrainStep(step), generation }
}

fn killed() -> ReportKind {
    ReportKind::Exited { cause: ExitCause::Signalled { signal: 9 }, step: None }
}

#[test]
fn a_job_starts_when_a_worker_with_enough_slots_comes() {
    let mut world = World::new();
    let job = world.submit(spec(2, 2, ""));
    assert_eq!(world.job(job).phase.word(), "queued");
    assert!(
        world.machine.explain(world.now, job).expect("known").iter().any(|line| line.contains("no worker is alive"))
    );
    let worker = world.worker("a", 2);
    assert_eq!(world.seats(job), [(worker, 0), (worker, 1)]);
    let form = world.form(job, &[None, None]);
    assert_eq!((form.peers, form.source, form.resume), (vec!["a0".to_owned(), "a1".to_owned()], None, None));
    assert_eq!(world.job(job).phase.word(), "running");
}

#[test]
fn the_same_key_is_the_same_job_for_ever() {
    let mut world = World::new();
    let submission = Submission { key: Some("k".to_owned()), spec: spec(1, 1, ""), checkpoint_uri: String::new() };
    let first = world.step(Event::Submit(submission.clone())).expect("accepted");
    let Answer::Job { job, new: true } = first else { panic!("{first:?}") };
    world.step(Event::Cancel { job }).expect("cancelled");
    assert_eq!(world.step(Event::Submit(submission)), Ok(Answer::Job { job, new: false }));
}

#[test]
fn a_killed_rank_leads_to_the_next_generation_on_the_same_slots_from_memory() {
    let mut world = World::new();
    world.worker("a", 2);
    let job = world.submit(spec(2, 2, ""));
    world.form(job, &[None, None]);
    let seats = world.seats(job);
    world.report(job, 1, killed());
    assert_eq!((world.job(job).generation, world.job(job).phase.word()), (Generation(2), "starting"));
    assert_eq!(world.seats(job), seats);
    let form = world.form(job, &[Some(7), None]);
    assert_eq!(form.source, Some((Rank(0), TrainStep(7))));
    assert_eq!(world.job(job).restarts, 1);
}

#[test]
fn a_word_of_an_old_generation_changes_nothing() {
    let mut world = World::new();
    let worker = world.worker("a", 2);
    let job = world.submit(spec(2, 2, ""));
    world.form(job, &[None, None]);
    world.report(job, 1, killed());
    let before = world.job(job).clone();
    let kind = ReportKind::Committed { at: at(5, Generation(1)), bytes: 1, world_size: 2, metrics: BTreeMap::new() };
    let answer = world.report_as(worker, job, Generation(1), 0, kind);
    assert_eq!(answer, Answer::Stale { current: Generation(2) });
    assert_eq!(*world.job(job), before);
}

#[test]
fn a_report_that_comes_twice_counts_once() {
    let mut world = World::new();
    let worker = world.worker("a", 1);
    let job = world.submit(spec(1, 1, ""));
    world.form(job, &[None]);
    let report = Report { job, generation: Generation(1), rank: Rank(0), kind: killed() };
    for _ in 0..3 {
        world.step(Event::Report { worker, seq: 77, report: report.clone() }).expect("heard");
    }
    assert_eq!(world.job(job).restarts, 1);
}

#[test]
fn a_lost_worker_shrinks_the_job_to_what_is_left_and_costs_no_budget() {
    let mut world = World::new();
    let (a, b) = (world.worker("a", 1), world.worker("b", 1));
    let job = world.submit(spec(2, 1, ""));
    world.form(job, &[None, None]);
    world.step(Event::WorkerLost { worker: a, reason: "silence".to_owned() }).expect("noted");
    assert_eq!(world.seats(job), [(b, 0)]);
    let form = world.form(job, &[Some(12)]);
    assert_eq!(form.source, Some((Rank(0), TrainStep(12))));
    assert_eq!(world.job(job).restarts, 0);
    let c = world.worker("c", 1);
    assert_eq!(world.seats(job).len(), 1, "not before it has run for a while");
    world.pass(GROW_AFTER);
    assert_eq!(world.seats(job), [(b, 0), (c, 0)]);
}

#[test]
fn a_job_whose_moments_are_shared_out_shrinks_when_it_must_but_does_not_grow() {
    let mut world = World::new();
    let (a, b) = (world.worker("a", 1), world.worker("b", 1));
    let job = world.submit(Arc::new(apply_sets(&spec(2, 1, ""), &["train.zero=1".to_owned()]).expect("valid")));
    world.form(job, &[None, None]);
    world.commit(job, 10, None);
    world.step(Event::WorkerLost { worker: a, reason: "silence".to_owned() }).expect("noted");
    assert_eq!(world.seats(job), [(b, 0)]);
    let form = world.form(job, &[None]);
    assert_eq!((form.source, form.resume.map(|at| at.step)), (None, Some(TrainStep(10))));
    world.worker("c", 1);
    world.pass(GROW_AFTER);
    assert_eq!(world.seats(job), [(b, 0)], "the steps since the checkpoint would be lost");
}

#[test]
fn without_its_minimum_a_job_waits_and_resumes_from_its_checkpoint() {
    let mut world = World::new();
    let (a, _) = (world.worker("a", 1), world.worker("b", 1));
    let job = world.submit(spec(2, 2, ""));
    world.form(job, &[None, None]);
    world.commit(job, 10, None);
    world.step(Event::WorkerLost { worker: a, reason: "silence".to_owned() }).expect("noted");
    assert_eq!(world.job(job).phase.word(), "queued");
    world.worker("c", 1);
    let form = world.form(job, &[None, None]);
    assert_eq!(form.resume.map(|at| at.step), Some(TrainStep(10)));
}

#[test]
fn a_poison_job_backs_off_and_then_fails_with_the_cause() {
    let mut world = World::new();
    world.worker("a", 1);
    let job = world.submit(spec(1, 1, "restart: {max: 3, backoff: 1s}"));
    let mut waits = 0;
    for _ in 0..20 {
        if let Phase::Queued { not_before: Some(_), .. } = world.job(job).phase {
            waits += 1;
            world.pass(Duration::from_mins(1));
        } else if !world.job(job).phase.ended() {
            let cause = ExitCause::Failed { code: 1, message: "boom".to_owned() };
            world.report(job, 0, ReportKind::Exited { cause, step: None });
        }
    }
    let Phase::Failed { reason, .. } = &world.job(job).phase else { panic!("{:?}", world.job(job).phase) };
    assert_eq!(reason, "rank 0 on a/slot0: exit code 1: boom; gave up after 3 restarts");
    assert_eq!(waits, 2, "the first restart is immediate");
    world.step(Event::Retry { job }).expect("a failed job can be retried");
    assert_eq!(world.job(job).phase.word(), "starting");
}

#[test]
fn what_cannot_be_carried_out_is_not_tried_again() {
    let mut world = World::new();
    world.worker("a", 1);
    let job = world.submit(spec(1, 1, ""));
    let cause = ExitCause::Invalid { message: "a.arrow: no such file".to_owned() };
    world.report(job, 0, ReportKind::Exited { cause, step: None });
    assert_eq!(world.job(job).phase.word(), "failed");
    assert_eq!(world.job(job).restarts, 0);
}

#[test]
fn a_damaged_checkpoint_sends_the_job_back_to_the_one_before_and_never_to_scratch() {
    let mut world = World::new();
    world.worker("a", 1);
    let job = world.submit(spec(1, 1, ""));
    world.form(job, &[None]);
    world.commit(job, 10, None);
    world.commit(job, 20, None);
    for (step, left) in [(20, Some(10)), (10, None)] {
        let manifest = at(step, Generation(1)).manifest;
        let cause = ExitCause::CheckpointDamaged { manifest, message: "chunk 3".to_owned() };
        world.report(job, 0, ReportKind::Exited { cause, step: None });
        match left {
            Some(left) => assert_eq!(world.form(job, &[None]).resume.map(|at| at.step), Some(TrainStep(left))),
            None => assert!(
                matches!(&world.job(job).phase, Phase::Failed { reason, .. } if reason.contains("no other is left"))
            ),
        }
    }
}

#[test]
fn retention_keeps_the_newest_and_the_best() {
    let mut world = World::new();
    world.worker("a", 1);
    let job = world.submit(spec(1, 1, "checkpoint: {every: 10, keep: {latest: 2, best: 1}}"));
    world.form(job, &[None]);
    let mut deleted = Vec::new();
    for (step, score) in [(10, 0.1), (20, 0.9), (30, 0.3), (40, 0.4), (50, 0.5)] {
        world.commit(job, step, Some(score));
        for effect in world.effects.clone() {
            if let Effect::DeleteCheckpoint { job, at } = effect {
                deleted.push(at.step.0);
                world.step(Event::CheckpointDeleted { job, manifest: at.manifest }).expect("noted");
            }
        }
    }
    let kept: Vec<u64> = world.job(job).checkpoints.iter().map(|own| own.at.step.0).collect();
    assert_eq!((kept, deleted), (vec![20, 40, 50], vec![10, 30]));
    assert!(world.job(job).checkpoints.iter().all(|own| own.state == CheckpointState::Committed));
}

#[test]
fn a_pause_saves_stops_and_gives_the_slots_back() {
    let mut world = World::new();
    let worker = world.worker("a", 2);
    let job = world.submit(spec(2, 2, ""));
    world.form(job, &[None, None]);
    world.step(Event::Pause { job }).expect("it runs");
    assert_eq!(
        world.effects.iter().filter(|effect| matches!(effect, Effect::Send { order: Order::Stop { .. }, .. })).count(),
        1
    );
    world.commit(job, 33, None);
    for rank in 0..2 {
        world.report_as(worker, job, Generation(1), rank, ReportKind::Exited { cause: ExitCause::Stopped, step: None });
    }
    assert_eq!(world.job(job).phase.word(), "paused");
    let other = world.submit(spec(2, 2, ""));
    assert_eq!(world.job(other).phase.word(), "starting");
    world.step(Event::Resume { job, from: None, spec: None }).expect("it is paused");
    assert_eq!(world.job(job).phase.word(), "queued");
    world.step(Event::Cancel { job: other }).expect("it runs");
    assert_eq!(world.form(job, &[None, None]).resume.map(|at| at.step), Some(TrainStep(33)));
}

#[test]
fn an_agent_that_comes_back_is_told_only_what_it_lacks() {
    let mut world = World::new();
    world.worker("a", 2);
    let job = world.submit(spec(2, 2, ""));
    world.form(job, &[None, None]);
    let info = world.machine.state().workers.values().next().expect("one").info.clone();
    let status = |rank: u32, generation: u64, formed| TrainerStatus {
        job,
        generation: Generation(generation),
        rank: Rank(rank),
        slot: rank,
        formed,
    };
    world
        .step(Event::Register { info: info.clone(), trainers: vec![status(0, 1, true), status(1, 1, true)] })
        .expect("known");
    assert_eq!(world.effects, [], "it has everything");
    world.step(Event::Register { info: info.clone(), trainers: Vec::new() }).expect("known");
    assert!(matches!(world.effects[..], [Effect::Send { order: Order::Assign(_), .. }]), "{:?}", world.effects);
    world
        .step(Event::Register { info: info.clone(), trainers: vec![status(0, 1, false), status(1, 1, true)] })
        .expect("known");
    assert!(matches!(world.effects[..], [Effect::Send { order: Order::Form(_), .. }]), "{:?}", world.effects);
    world.step(Event::Cancel { job }).expect("it runs");
    world.step(Event::Register { info, trainers: vec![status(0, 1, true)] }).expect("known");
    assert!(matches!(world.effects[..], [Effect::Send { order: Order::Kill { .. }, .. }]), "{:?}", world.effects);
}

#[test]
fn a_silent_worker_is_lost_after_its_lease_and_cannot_come_back_as_itself() {
    let mut world = World::new();
    let worker = world.worker("a", 1);
    let lease = Duration::from_secs(5);
    assert_eq!(world.machine.next_deadline(lease), Some(world.now + lease));
    assert_eq!(world.machine.due(world.now + Duration::from_secs(4), lease), []);
    world.now = world.now + lease;
    let events = world.machine.due(world.now, lease);
    assert_eq!(events, [Event::WorkerLost { worker, reason: "not heard of for 5 s".to_owned() }]);
    world.step(events[0].clone()).expect("noted");
    let info = world.machine.state().workers[&worker].info.clone();
    let refused = world.step(Event::Register { info, trainers: Vec::new() });
    assert!(matches!(refused, Err(Refusal::WorkerGone { .. })), "{refused:?}");
}

#[test]
fn a_drained_worker_gives_its_ranks_away_at_a_step_boundary() {
    let mut world = World::new();
    let a = world.worker("a", 1);
    let job = world.submit(spec(1, 1, ""));
    world.form(job, &[None]);
    world.step(Event::Drain { worker: a }).expect("known");
    assert_eq!(world.job(job).phase.word(), "stopping");
    world.report_as(a, job, Generation(1), 0, ReportKind::Exited { cause: ExitCause::Stopped, step: None });
    assert_eq!(world.job(job).phase.word(), "queued");
    let b = world.worker("b", 1);
    assert_eq!(world.seats(job), [(b, 0)]);
}

#[test]
fn ranks_that_save_because_their_worker_ends_cost_no_budget() {
    let mut world = World::new();
    let a = world.worker("a", 2);
    let job = world.submit(spec(2, 2, ""));
    world.form(job, &[None, None]);
    world.commit(job, 17, None);
    for rank in 0..2 {
        world.report_as(a, job, Generation(1), rank, ReportKind::Exited { cause: ExitCause::Stopped, step: None });
    }
    assert_eq!((world.job(job).restarts, world.job(job).generation), (0, Generation(2)));
    assert_eq!(world.form(job, &[None, None]).resume.map(|at| at.step), Some(TrainStep(17)));
}

#[test]
fn ranks_that_lost_each_other_are_formed_anew_when_nobody_died() {
    let mut world = World::new();
    world.worker("a", 2);
    let job = world.submit(spec(2, 2, ""));
    world.form(job, &[None, None]);
    world.report(job, 0, ReportKind::PeerLost { step: TrainStep(4), detail: "reset".to_owned() });
    assert_eq!(world.job(job).generation, Generation(1));
    world.pass(DISRUPTION_TIMEOUT);
    assert_eq!(world.job(job).generation, Generation(2));
    assert_eq!(world.job(job).restarts, 0);
}

#[test]
fn deadlines_that_passed_do_not_come_again() {
    let mut world = World::new();
    world.worker("a", 1);
    let job = world.submit(spec(4, 4, ""));
    world.pass(crate::schedule::PATIENCE);
    assert_eq!(world.machine.due(world.now, Duration::from_secs(1_000_000)), []);
    let lines = world.machine.explain(world.now, job).expect("known");
    assert!(lines[0].contains("needs 4 slots, but the 1 live worker has 1 in all"), "{lines:?}");
}

#[test]
fn requests_that_make_no_sense_are_refused_and_change_nothing() {
    let mut world = World::new();
    let job = world.submit(spec(1, 1, ""));
    let before = world.machine.state().clone();
    let resume = |from| Event::Resume { job, from, spec: None };
    for event in [
        Event::Cancel { job: JobId(99) },
        Event::Retry { job },
        resume(None),
        resume(Some(ResumeFrom::Latest { job })),
        Event::RemoveCheckpoint { job, step: TrainStep(3), force: false },
        Event::Drain { worker: WorkerId(5) },
        Event::SweepStop { sweep: SweepId(1) },
    ] {
        let answer = world.step(event.clone());
        assert!(answer.is_err(), "{event:?} gave {answer:?}");
        assert_eq!(world.machine.state(), &before);
    }
}
