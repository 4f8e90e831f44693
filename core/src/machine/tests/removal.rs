//! Checkpoints that people remove.

use super::*;

/// A job that has completed with checkpoints of these steps and scores.
fn completed(world: &mut World, saved: &[(u64, Option<f64>)]) -> JobId {
    world.worker("a", 1);
    let job = world.submit(spec(1, 1, "checkpoint: {keep: {latest: 9, best: 9}}"));
    world.form(job, &[None]);
    for &(step, score) in saved {
        world.commit(job, step, score);
    }
    world.report(job, 0, ReportKind::Finished { step: TrainStep(100) });
    assert_eq!(world.job(job).phase.word(), "completed");
    job
}

fn steps(world: &World, job: JobId) -> Vec<u64> {
    world.job(job).checkpoints.iter().filter(|own| own.usable()).map(|own| own.at.step.0).collect()
}

#[track_caller]
fn refused(world: &mut World, job: JobId, step: u64, force: bool, expected: &str) {
    let before = world.machine.state().clone();
    let refusal = world.step(Event::RemoveCheckpoint { job, step: TrainStep(step), force }).expect_err("it is needed");
    assert!(matches!(refusal, Refusal::CheckpointInUse { .. }), "{refusal:?}");
    let text = refusal.to_string();
    assert!(text.contains(expected) && text.contains("\nhint: "), "{text}");
    assert_eq!(&before, world.machine.state());
}

#[test]
fn the_only_checkpoint_goes_only_by_force() {
    let mut world = World::new();
    let job = completed(&mut world, &[(100, None)]);
    refused(&mut world, job, 100, false, "is its only one");
    world.step(Event::RemoveCheckpoint { job, step: TrainStep(100), force: true }).expect("it is meant");
    assert!(matches!(world.effects.first(), Some(Effect::DeleteCheckpoint { .. })), "{:?}", world.effects);
    assert_eq!(steps(&world, job), [0_u64; 0]);
}

#[test]
fn the_newest_and_the_best_go_only_by_force_and_others_without() {
    let mut world = World::new();
    let job = completed(&mut world, &[(20, Some(0.2)), (40, Some(0.9)), (60, Some(0.5)), (80, None)]);
    refused(&mut world, job, 80, false, "is its newest");
    refused(&mut world, job, 40, false, "is its best");
    world.step(Event::RemoveCheckpoint { job, step: TrainStep(20), force: false }).expect("nothing needs it");
    world.step(Event::RemoveCheckpoint { job, step: TrainStep(80), force: true }).expect("it is meant");
    assert_eq!(steps(&world, job), [40, 60]);
    refused(&mut world, job, 60, false, "is its newest");
    world.step(Event::RemoveCheckpoint { job, step: TrainStep(60), force: true }).expect("it is meant");
    refused(&mut world, job, 40, false, "is its only one");
}

#[test]
fn what_a_job_needs_goes_by_no_force() {
    let mut world = World::new();
    let done = completed(&mut world, &[(100, Some(0.5))]);
    let next = world.submit(spec(1, 1, &format!("resume: {done}:latest")));
    refused(&mut world, done, 100, true, "where another job begins");
    world.form(next, &[None]);
    world.commit(next, 5, None);
    refused(&mut world, next, 5, true, "what the job goes on from");
    world.step(Event::Cancel { job: next }).expect("it may");
    world.step(Event::RemoveCheckpoint { job: done, step: TrainStep(100), force: true }).expect("nobody needs it now");
}

#[test]
fn a_removal_of_a_journal_from_before_it_needed_force_is_done_again() {
    let text = r#"{"remove_checkpoint": {"job": "JOB", "step": 100}}"#.replace("JOB", &JobId(0).to_string());
    let event: Event = serde_json::from_str(&text).expect("it reads");
    assert_eq!(event, Event::RemoveCheckpoint { job: JobId(0), step: TrainStep(100), force: true });
}
