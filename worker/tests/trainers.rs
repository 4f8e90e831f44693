//! Generations of counting trainers: forming, losing peers, stopping, resuming.

use unimse_core::id::{Rank, Step};
use unimse_core::job::ExitCause;
use unimse_core::machine::ReportKind;
use unimse_worker::protocol::FromTrainer;
use unimse_worker::trainer::fake;

use crate::harness::gang::{Ended, Gang, weights};
use crate::harness::{counting, wait};

fn calm(steps: u64) -> Ended {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ended = Gang::start(&counting("", steps, ""), folder.path(), 2, fake::make, 1, None).end();
    ended.all(&ExitCause::Finished);
    // The folder must outlive what is read from it.
    let weights = ended.weights();
    assert!(weights.len() == 3);
    std::mem::forget(folder);
    ended
}

#[test]
fn every_world_size_consumes_the_same_samples_and_ends_with_the_same_bits() {
    let expected = calm(45);
    assert_eq!(expected.steps(), (1..=45).collect::<Vec<_>>());
    assert_eq!(expected.committed.iter().map(|at| at.step.0).collect::<Vec<_>>(), [10, 20, 30, 40, 45]);
    for world in [1, 3, 5] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ended = Gang::start(&counting("", 45, ""), folder.path(), world, fake::make, 1, None).end();
        ended.all(&ExitCause::Finished);
        assert_eq!(ended.digests(), expected.digests(), "world {world}");
        assert_eq!(ended.weights(), expected.weights(), "world {world}");
    }
}

#[test]
fn evaluations_come_from_rank_0_and_are_in_the_checkpoint_of_their_step() {
    let ended = calm(25);
    let evaluated = |said: &[FromTrainer]| -> Vec<Step> {
        let step = |message: &FromTrainer| match message {
            FromTrainer::Event { kind: ReportKind::Evaluated { step, metrics }, .. } => {
                assert!(metrics.contains_key("valid/score"), "{metrics:?}");
                Some(*step)
            }
            _ => None,
        };
        said.iter().filter_map(step).collect()
    };
    assert_eq!(evaluated(&ended.said[0]), [Step(10), Step(20), Step(25)]);
    assert_eq!(evaluated(&ended.said[1]), []);
    let committed = ended.said.iter().flatten().filter_map(|message| match message {
        FromTrainer::Event { kind: ReportKind::Committed { at, metrics, world_size, .. }, rank, .. } => {
            assert_eq!((*rank, *world_size), (Rank(0), 2));
            Some((at.step, metrics.contains_key("valid/score")))
        }
        _ => None,
    });
    assert_eq!(committed.collect::<Vec<_>>(), [(Step(10), true), (Step(20), true), (Step(25), true)]);
}

#[test]
fn a_lost_rank_is_replaced_from_memory_and_no_step_is_missing() {
    let expected = calm(60);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let labels = "fake-step-ms: '5', fake-fail: '33', fake-fail-rank: '1', fake-fail-generation: '1'";
    let mut gang = Gang::start(&counting(labels, 60, ""), folder.path(), 3, fake::make, 1, None);
    wait("both survivors report the loss", || [0, 2].iter().all(|&rank| gang.members[rank].lost(1).is_some()));
    assert_eq!(gang.members[0].lost(1), Some(Step(32)));
    wait("the other one is over", || gang.members[1].is_over());
    let dead = gang.reform(3);
    assert_eq!(dead.len(), 1);
    let ended = gang.end();
    ended.all(&ExitCause::Finished);
    assert_eq!(ended.steps(), (1..=60).collect::<Vec<_>>());
    assert_eq!(ended.digests(), expected.digests());
    assert_eq!(ended.weights(), expected.weights());
}

#[test]
fn the_loss_of_rank_0_loses_none_of_its_records() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let labels = "fake-fail: '27', fake-fail-rank: '0', fake-fail-generation: '1'";
    let mut gang = Gang::start(&counting(labels, 40, ""), folder.path(), 2, fake::make, 1, None);
    wait("the survivor reports the loss", || gang.members[1].lost(1).is_some());
    wait("the other one is over", || gang.members[0].is_over());
    // Its own words do not count: the survivors must be able to tell everything since the last second.
    drop(gang.reform(2));
    let ended = gang.end();
    ended.all(&ExitCause::Finished);
    assert_eq!(ended.steps(), (1..=40).collect::<Vec<_>>());
}

#[test]
fn a_stop_saves_the_present_step_and_another_world_goes_on_from_there() {
    let expected = calm(50);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let spec = counting("fake-step-ms: '10'", 50, "");
    let gang = Gang::start(&spec, folder.path(), 2, fake::make, 1, None);
    wait("it trains", || gang.members[0].step() >= Step(13));
    gang.stop();
    let stopped = gang.end();
    stopped.all(&ExitCause::Stopped);
    let at = stopped.committed.last().expect("it was saved").clone();
    assert_eq!(Some(&at.step.0), stopped.steps().last(), "no step is lost");
    assert!(at.step < Step(50));

    let resumed = Gang::start(&spec, folder.path(), 3, fake::make, 2, Some(at)).end();
    resumed.all(&ExitCause::Finished);
    assert_eq!(resumed.weights(), expected.weights());
}

#[test]
fn a_generation_that_finds_everything_done_only_says_so() {
    let done = calm(20);
    let at = done.committed.last().expect("it was saved").clone();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let again = Gang::start(&counting("", 20, ""), folder.path(), 2, fake::make, 2, Some(at)).end();
    again.all(&ExitCause::Finished);
    assert!(again.committed.is_empty() && again.records.is_empty());
}

#[test]
fn a_checkpoint_that_the_coordinator_never_accepted_is_written_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Eight steps must be enough for a checkpoint of some bytes, on a busy machine too.
    let labels = "fake-step-ms: '40', fake-fail: '18', fake-fail-rank: '1', fake-fail-generation: '1'";
    let mut gang = Gang::start(&counting(labels, 40, ""), folder.path(), 2, fake::make, 1, None);
    wait("the survivor reports the loss", || gang.members[0].lost(1).is_some());
    wait("the first checkpoint is committed", || !gang.committed().is_empty());
    wait("the other one is over", || gang.members[1].is_over());
    gang.forget_commits();
    drop(gang.reform(2));
    let ended = gang.end();
    ended.all(&ExitCause::Finished);
    let steps: Vec<u64> = ended.committed.iter().map(|at| at.step.0).collect();
    assert!(steps.contains(&17), "the state in memory was saved at once: {steps:?}");
}

#[test]
fn a_damaged_checkpoint_ends_every_trainer_with_its_name() {
    let done = calm(20);
    let at = done.committed.last().expect("it was saved").clone();
    let before = weights(&at);
    assert!(!before.is_empty());
    let mut damaged = 0;
    for entry in walk(std::path::Path::new(&at.uri)) {
        if entry.extension().is_some_and(|end| end == "safetensors")
            && entry.display().to_string().contains("step-00000020")
        {
            let mut bytes = std::fs::read(&entry).expect("a shard");
            *bytes.last_mut().expect("it has bytes") ^= 1;
            std::fs::write(&entry, bytes).expect("it can be written");
            damaged += 1;
        }
    }
    assert_eq!(damaged, 2);
    let manifest = at.manifest.clone();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ended = Gang::start(&counting("", 30, ""), folder.path(), 1, fake::make, 2, Some(at)).end();
    let [ExitCause::CheckpointDamaged { manifest: named, message }] = ended.causes.as_slice() else {
        panic!("{:?}", ended.causes)
    };
    assert_eq!(*named, manifest);
    assert!(message.contains("damaged"), "{message}");
}

#[test]
fn a_loss_that_is_no_number_fails_the_job_for_good() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let labels = "fake-fail: '4', fake-fail-how: nan";
    let ended = Gang::start(&counting(labels, 30, ""), folder.path(), 2, fake::make, 1, None).end();
    for cause in &ended.causes {
        let ExitCause::Invalid { message } = cause else { panic!("{cause:?}") };
        assert!(message.contains("diverged") && message.contains("step 4") && message.contains("hint:"), "{message}");
    }
}

#[test]
fn ranks_with_different_data_refuse_to_train_together() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let make: crate::harness::gang::Make = |begin, surroundings| {
        let mut begin = begin.clone();
        if begin.seat.rank == Rank(1) {
            begin.spec = counting("fake-samples: '961'", 30, "");
        }
        fake::make(&begin, surroundings)
    };
    let ended = Gang::start(&counting("", 30, ""), folder.path(), 2, make, 1, None).end();
    for cause in &ended.causes {
        let ExitCause::Invalid { message } = cause else { panic!("{cause:?}") };
        assert!(message.contains("961 made-up samples"), "{message}");
    }
}

#[test]
fn a_store_that_cannot_be_written_is_told_with_its_place() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "x").expect("it can be written");
    let ended = Gang::start(&counting("", 30, ""), &file.join("below"), 1, fake::make, 1, None).end();
    let message = ended.causes[0].to_string();
    assert!(message.contains("access refused") && message.contains("below"), "{message}");
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
