//! Workers that leave.

use super::*;

#[test]
fn a_worker_that_leaves_lets_its_job_save_and_go_on_elsewhere_at_once() {
    let mut world = World::new();
    let a = world.worker("a", 1);
    let b = world.worker("b", 1);
    let job = world.submit(spec(2, 1, ""));
    world.form(job, &[None, None]);
    world.step(Event::WorkerLeaves { worker: a }).expect("it may");
    assert_eq!(world.job(job).phase.word(), "stopping");
    let told = |worker| Effect::Send { worker, order: Order::Stop { job, generation: Generation(1) } };
    assert!(world.effects.contains(&told(a)) && world.effects.contains(&told(b)), "{:?}", world.effects);
    let waiting = world.submit(spec(1, 1, ""));
    assert_eq!(world.job(waiting).phase.word(), "queued", "nothing new is put on a worker that leaves");
    world.step(Event::Cancel { job: waiting }).expect("it may");

    // It is through first: its rank has stopped, the other still writes.
    let stopped = || ReportKind::Exited { cause: ExitCause::Stopped, step: None };
    world.report_as(a, job, Generation(1), 0, stopped());
    world.step(Event::WorkerLeft { worker: a }).expect("it may");
    assert_eq!(world.job(job).phase.word(), "stopping", "{:?}", world.job(job).history);
    let kind = ReportKind::Committed { at: at(17, Generation(1)), bytes: 9, world_size: 2, metrics: BTreeMap::new() };
    world.report_as(b, job, Generation(1), 1, kind);
    world.report_as(b, job, Generation(1), 1, stopped());
    assert_eq!(world.seats(job), [(b, 0)]);
    assert_eq!(world.form(job, &[None]).resume.map(|at| at.step), Some(TrainStep(17)));
    assert_eq!(world.job(job).restarts, 0);
    let told = world.job(job).history.iter().any(|entry| entry.what.contains("worker a leaves"));
    assert!(told, "{:?}", world.job(job).history);
    let word = |worker| {
        let views = world.machine.node_views();
        views.into_iter().find(|view| view.worker == worker).map(|view| view.state).unwrap_or_default()
    };
    assert_eq!((word(a).as_str(), word(b).as_str()), ("left", "alive"));
}

#[test]
fn a_worker_that_leaves_while_its_job_is_formed_is_replaced_without_a_stop() {
    let mut world = World::new();
    let a = world.worker("a", 1);
    let b = world.worker("b", 1);
    let job = world.submit(spec(2, 1, ""));
    world.step(Event::WorkerLeaves { worker: a }).expect("it may");
    assert_eq!((world.seats(job), world.job(job).generation), (vec![(b, 0)], Generation(2)));
    let order = Order::Kill { job, generation: Generation(2) };
    assert!(world.effects.contains(&Effect::Send { worker: a, order }), "{:?}", world.effects);
    // The agent has ended that trainer by itself, too; nobody counts it.
    world.report_as(a, job, Generation(1), 0, killed());
    assert_eq!(world.job(job).restarts, 0);
}

#[test]
fn a_worker_that_left_with_ranks_that_had_not_saved_is_replaced_at_once() {
    let mut world = World::new();
    let a = world.worker("a", 1);
    let b = world.worker("b", 1);
    let job = world.submit(spec(2, 1, ""));
    world.form(job, &[None, None]);
    world.commit(job, 5, None);
    world.step(Event::WorkerLeft { worker: a }).expect("it may");
    assert_eq!(world.seats(job), [(b, 0)]);
    let last = world.job(job).history.last().map(|entry| entry.what.clone());
    assert_eq!(last.as_deref(), Some("worker a left: world size 1"));
    let again = WorkerInfo {
        node: "a".to_owned(),
        incarnation: "a-1000".to_owned(),
        host: "h".to_owned(),
        slots: Vec::new(),
        version: "0".to_owned(),
    };
    let refused = world.step(Event::Register { info: again, trainers: Vec::new() });
    assert_eq!(refused, Err(Refusal::WorkerGone { worker: a, reason: "it left".to_owned() }));
    // Saying it twice, or being found silent later, changes nothing.
    let before = world.machine.state().clone();
    world.step(Event::WorkerLeft { worker: a }).expect("it may");
    world.step(Event::WorkerLeaves { worker: a }).expect("it may");
    world.step(Event::WorkerLost { worker: a, reason: "silent".to_owned() }).expect("it may");
    assert_eq!(&before, world.machine.state());
}
