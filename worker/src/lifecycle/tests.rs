use std::sync::Arc;

use unimse_core::job::Readiness;
use unimse_core::spec::{JobSpec, parse_job};

use super::*;

const JOB: JobId = JobId(5);
const OTHER: JobId = JobId(6);

fn spec(steps: u64) -> Arc<JobSpec> {
    let text = format!(
        "name: t\nmodel: {{preset: tiny}}\ndata: {{train: [{{path: a.arrow}}]}}\ntrain: {{max_steps: {steps}}}"
    );
    Arc::new(parse_job(&text, "t.yaml").expect("a valid job"))
}

fn worker() -> Lifecycle {
    let mut worker = Lifecycle::new("127.0.0.1".to_owned(), vec![Slot::Cpu { threads: 1 }; 2]);
    worker.joined("cluster");
    worker
}

fn assign_job(job: JobId, generation: u64, seats: &[(u32, u32)]) -> Assign {
    let ranks = seats.iter().map(|&(rank, slot)| Seated { rank: Rank(rank), slot }).collect();
    let generation = Generation(generation);
    Assign { job, generation, ranks, world_size: 4, spec: spec(10), checkpoint_uri: "/ckpt".to_owned() }
}

fn assign(generation: u64, seats: &[(u32, u32)]) -> Input {
    Input::Order(Order::Assign(assign_job(JOB, generation, seats)))
}

fn kill(generation: u64) -> Input {
    Input::Order(Order::Kill { job: JOB, generation: Generation(generation) })
}

fn form(generation: u64) -> Input {
    let generation = Generation(generation);
    Input::Order(Order::Form(Form {
        job: JOB,
        generation,
        peers: Vec::new(),
        nccl_id: None,
        source: None,
        resume: None,
    }))
}

fn exited(launch: u64, code: i32) -> Input {
    Input::Exited { launch: Launch(launch), exit: Exit { code: Some(code), ..Exit::default() } }
}

/// What happened, in few words.
fn words(effects: &[Effect]) -> Vec<String> {
    let word = |effect: &Effect| match effect {
        Effect::Start { launch, slot, begin } => {
            format!("start {} on {slot} as g{}r{}", launch.0, begin.seat.generation, begin.seat.rank)
        }
        Effect::Tell { launch, message: ToTrainer::Reform(seat) } => {
            format!("reform {} as g{}r{}", launch.0, seat.generation, seat.rank)
        }
        Effect::Tell { launch, message: ToTrainer::Form(form) } => format!("form {} g{}", launch.0, form.generation),
        Effect::Tell { launch, message: ToTrainer::Stop { generation } } => format!("stop {} g{generation}", launch.0),
        Effect::Tell { launch, message: ToTrainer::Begin(_) } => format!("begin {}", launch.0),
        Effect::Kill { launch } => format!("kill {}", launch.0),
        Effect::Report(Report { generation, rank, kind: ReportKind::Exited { cause, .. }, .. }) => {
            format!("g{generation}r{rank} exited: {cause}")
        }
        Effect::Report(Report { generation, rank, .. }) => format!("g{generation}r{rank} reports"),
        Effect::Steps(steps) => format!("steps to {}", steps.progress.step),
    };
    effects.iter().map(word).collect()
}

#[track_caller]
fn check(worker: &mut Lifecycle, input: Input, expected: &[&str]) {
    assert_eq!(words(&worker.step(input)), expected);
}

#[test]
fn an_assignment_starts_what_is_missing_and_reforms_what_is_there() {
    let mut worker = worker();
    check(&mut worker, assign(1, &[(2, 0)]), &["start 0 on 0 as g1r2"]);
    check(&mut worker, assign(2, &[(0, 0), (1, 1)]), &["reform 0 as g2r0", "start 1 on 1 as g2r1"]);
    let trainers = worker.trainers();
    assert_eq!(trainers.len(), 2);
    assert!(trainers.iter().all(|trainer| trainer.generation == Generation(2) && !trainer.formed));
}

#[test]
fn an_assignment_that_was_seen_or_killed_is_ignored() {
    let mut worker = worker();
    check(&mut worker, assign(3, &[(0, 0)]), &["start 0 on 0 as g3r0"]);
    check(&mut worker, assign(3, &[(0, 0)]), &[]);
    check(&mut worker, assign(2, &[(0, 1)]), &[]);
    check(&mut worker, kill(5), &["kill 0"]);
    check(&mut worker, assign(5, &[(0, 0)]), &[]);
    check(&mut worker, assign(6, &[(0, 1)]), &["start 1 on 1 as g6r0"]);
}

#[test]
fn a_job_that_moves_to_other_slots_leaves_the_old_ones() {
    let mut worker = worker();
    worker.step(assign(1, &[(0, 0)]));
    check(&mut worker, assign(2, &[(0, 1)]), &["kill 0", "start 1 on 1 as g2r0"]);
    check(&mut worker, exited(0, 1), &[]);
    assert_eq!(worker.trainers().len(), 1);
}

#[test]
fn a_slot_never_has_two_processes() {
    let mut worker = worker();
    worker.step(assign(1, &[(0, 0)]));
    check(&mut worker, kill(1), &["kill 0"]);
    check(&mut worker, assign(2, &[(0, 0)]), &[]);
    assert_eq!(worker.trainers().len(), 1, "the one that waits counts, the one that dies does not");
    check(&mut worker, form(2), &[]);
    check(&mut worker, exited(0, 1), &["start 1 on 0 as g2r0"]);
}

#[test]
fn another_job_on_a_slot_makes_way() {
    let mut worker = worker();
    worker.step(assign(1, &[(0, 0)]));
    let other = Input::Order(Order::Assign(assign_job(OTHER, 1, &[(0, 0)])));
    check(&mut worker, other, &["kill 0"]);
    check(&mut worker, exited(0, 0), &["start 1 on 0 as g1r0"]);
    assert_eq!(worker.trainers()[0].job, OTHER);
}

#[test]
fn a_changed_specification_needs_a_fresh_process() {
    let mut worker = worker();
    worker.step(assign(1, &[(0, 0)]));
    let changed = Assign { spec: spec(20), ..assign_job(JOB, 2, &[(0, 0)]) };
    check(&mut worker, Input::Order(Order::Assign(changed)), &["kill 0"]);
    check(&mut worker, exited(0, 1), &["start 1 on 0 as g2r0"]);
}

#[test]
fn a_slot_that_does_not_exist_is_reported() {
    let expected = ["g1r3 exited: could not start: this worker has 2 slots, none numbered 7"];
    check(&mut worker(), assign(1, &[(3, 7)]), &expected);
}

#[test]
fn only_trainers_of_the_generation_are_formed_and_only_once() {
    let mut worker = worker();
    worker.step(assign(1, &[(0, 0), (1, 1)]));
    check(&mut worker, form(2), &[]);
    check(&mut worker, form(1), &["form 0 g1", "form 1 g1"]);
    check(&mut worker, form(1), &[]);
    assert!(worker.trainers().iter().all(|trainer| trainer.formed));
    check(&mut worker, assign(2, &[(0, 0)]), &["kill 1", "reform 0 as g2r0"]);
    check(&mut worker, form(2), &["form 0 g2"]);
}

#[test]
fn a_kill_spares_newer_generations_and_other_jobs() {
    let mut worker = worker();
    worker.step(assign(4, &[(0, 0)]));
    worker.step(Input::Order(Order::Assign(assign_job(OTHER, 1, &[(0, 1)]))));
    check(&mut worker, kill(3), &[]);
    check(&mut worker, kill(4), &["kill 0"]);
    check(&mut worker, kill(4), &[]);
    check(&mut worker, exited(0, 1), &[]);
    assert_eq!(worker.trainers().len(), 1);
}

#[test]
fn a_kill_also_cancels_what_waits_for_the_slot() {
    let mut worker = worker();
    worker.step(assign(1, &[(0, 0)]));
    worker.step(kill(1));
    worker.step(assign(2, &[(0, 0)]));
    check(&mut worker, kill(2), &[]);
    check(&mut worker, exited(0, 1), &[]);
    assert!(worker.is_idle());
}

#[test]
fn a_death_that_nobody_ordered_is_reported_with_its_step_and_cause() {
    let mut worker = worker();
    worker.step(assign(1, &[(0, 0)]));
    worker.step(form(1));
    let lost = ReportKind::PeerLost { step: Step(7), detail: "gone".to_owned() };
    let said = FromTrainer::Event { generation: Generation(1), rank: Rank(0), kind: lost };
    check(&mut worker, Input::Said { launch: Launch(0), message: said }, &["g1r0 reports"]);
    worker.step(assign(2, &[(1, 0)]));
    let effects = worker.step(Input::Exited { launch: Launch(0), exit: Exit { signal: Some(9), ..Exit::default() } });
    let [Effect::Report(report)] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!((report.generation, report.rank), (Generation(2), Rank(1)));
    let cause = ExitCause::Signalled { signal: 9 };
    assert_eq!(report.kind, ReportKind::Exited { cause, step: Some(Step(7)) });
    assert!(worker.is_idle());
}

#[test]
fn last_words_say_more_than_an_exit_code() {
    let mut worker = worker();
    worker.step(assign(1, &[(0, 0)]));
    let cause = ExitCause::Invalid { message: "data/mosi.arrow: no such file".to_owned() };
    worker.step(Input::Said { launch: Launch(0), message: FromTrainer::Failed { cause } });
    check(&mut worker, exited(0, 20), &["g1r0 exited: data/mosi.arrow: no such file"]);
}

#[test]
fn words_of_a_trainer_that_is_being_killed_do_not_count() {
    let mut worker = worker();
    worker.step(assign(1, &[(0, 0)]));
    worker.step(kill(1));
    let kind = ReportKind::Ready(Readiness { address: "a:1".to_owned(), nccl_id: None, holds: None });
    let message = FromTrainer::Event { generation: Generation(1), rank: Rank(0), kind };
    check(&mut worker, Input::Said { launch: Launch(0), message: message.clone() }, &[]);
    check(&mut worker, exited(0, 1), &[]);
    check(&mut worker, Input::Said { launch: Launch(0), message }, &[]);
}

#[test]
fn an_agent_that_ends_lets_formed_trainers_save_and_takes_nothing_new() {
    let mut worker = worker();
    worker.step(assign(1, &[(0, 0)]));
    worker.step(form(1));
    worker.step(Input::Order(Order::Assign(assign_job(OTHER, 1, &[(0, 1)]))));
    check(&mut worker, Input::StopAll, &["stop 0 g1", "kill 1"]);
    check(&mut worker, assign(2, &[(0, 1)]), &[]);
    check(&mut worker, exited(1, 1), &["g1r0 exited: exit code -1: stopped before its generation was formed"]);
    assert!(!worker.is_idle());
    check(&mut worker, exited(0, 10), &["g1r0 exited: stopped as asked"]);
    assert!(worker.is_idle());
}

#[test]
fn a_stop_reaches_only_the_generation_it_is_meant_for() {
    let mut worker = worker();
    worker.step(assign(2, &[(0, 0)]));
    worker.step(form(2));
    let stop = |generation| Input::Order(Order::Stop { job: JOB, generation: Generation(generation) });
    check(&mut worker, stop(1), &[]);
    check(&mut worker, stop(2), &["stop 0 g2"]);
}

#[test]
fn the_end_of_the_grace_is_reported_and_a_new_identity_is_silent() {
    let mut worker = worker();
    worker.step(assign(1, &[(0, 0)]));
    let reason = Some("no word from the coordinator for 10 min".to_owned());
    check(&mut worker, Input::KillAll { reason }, &["kill 0"]);
    let report = "g1r0 exited: exit code -1: no word from the coordinator for 10 min";
    check(&mut worker, exited(0, 1), &[report]);

    worker.step(assign(2, &[(0, 0)]));
    check(&mut worker, Input::KillAll { reason: None }, &["kill 1"]);
    check(&mut worker, exited(1, 1), &[]);
    // A fresh cluster counts from one again.
    check(&mut worker, assign(1, &[(0, 0)]), &["start 2 on 0 as g1r0"]);
}
