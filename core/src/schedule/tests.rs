use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::id::JobId;

fn node(free: &[u32], total: u32) -> Node {
    Node { free: free.to_vec(), total }
}

fn waits(job: u32, min: u32, max: u32) -> Claim {
    Claim {
        job: JobId(job),
        min,
        max,
        priority: 50,
        holds: 0,
        stopping: false,
        ready: true,
        waited: Duration::from_secs(u64::from(100 - job.min(99))),
        cost: Duration::ZERO,
        may_grow: false,
    }
}

fn holds(job: u32, slots: u32, max: u32) -> Claim {
    Claim { holds: slots, ..waits(job, 1, max) }
}

fn verdict(problem: &Problem, job: u32) -> Verdict {
    solve(problem).verdicts[&JobId(job)].clone()
}

fn reason(problem: &Problem, job: u32) -> String {
    match verdict(problem, job) {
        Verdict::Wait { reason } => reason,
        other => panic!("expected a wait, got {other:?}"),
    }
}

#[test]
fn a_gang_is_packed_on_the_node_that_fits_tightest() {
    let problem = Problem { nodes: vec![node(&[0, 1, 2, 3], 4), node(&[1, 3], 4)], claims: vec![waits(1, 2, 2)] };
    let expected = [1, 3].map(|slot| SlotOrd { node: 1, slot }).to_vec();
    assert_eq!(verdict(&problem, 1), Verdict::Start(expected));
}

#[test]
fn a_gang_larger_than_any_node_spreads_over_the_emptiest() {
    let problem = Problem { nodes: vec![node(&[0], 4), node(&[0, 1, 2, 3], 4)], claims: vec![waits(1, 5, 8)] };
    let Verdict::Start(seats) = verdict(&problem, 1) else { panic!("five of five slots are free") };
    assert_eq!(seats.len(), 5);
    assert_eq!(seats.iter().filter(|seat| seat.node == 1).count(), 4);
}

#[test]
fn a_gang_is_all_or_nothing_and_the_reason_says_who_holds_the_rest() {
    let problem = Problem { nodes: vec![node(&[3], 4)], claims: vec![waits(2, 2, 4), holds(1, 3, 3)] };
    assert_eq!(reason(&problem, 2), format!("needs 2 slots, 1 free of 4; held by {} (3)", JobId(1)));
}

#[test]
fn slots_that_no_worker_will_ever_have_are_explained() {
    let problem = Problem { nodes: vec![node(&[0, 1], 2)], claims: vec![waits(1, 8, 8)] };
    let expected = "needs 8 slots, but the 1 live worker have 2 in all; add workers or lower resources.min_slots";
    assert_eq!(reason(&problem, 1), expected.replace("worker have", "worker has"));
}

#[test]
fn a_small_job_passes_a_blocked_large_one_only_until_its_patience_ends() {
    let mut problem =
        Problem { nodes: vec![node(&[3], 4)], claims: vec![holds(9, 3, 3), waits(1, 4, 4), waits(2, 1, 1)] };
    assert!(matches!(verdict(&problem, 2), Verdict::Start(_)));
    problem.claims[1].waited = PATIENCE;
    assert_eq!(
        reason(&problem, 2),
        format!("free slots are kept for {} (priority 50), which is first in line", JobId(1))
    );
}

#[test]
fn a_higher_priority_takes_the_cheapest_victim_and_no_more() {
    let mut problem = Problem {
        nodes: vec![node(&[], 4)],
        claims: vec![holds(1, 2, 2), holds(2, 2, 2), waits(3, 2, 2), waits(4, 1, 1)],
    };
    problem.claims[0].cost = Duration::from_secs(90);
    problem.claims[1].cost = Duration::from_secs(5);
    problem.claims[2].priority = 80;
    let solution = solve(&problem).verdicts;
    assert_eq!(solution[&JobId(1)], Verdict::Keep);
    assert_eq!(solution[&JobId(2)], Verdict::Preempt { by: JobId(3) });
    assert!(matches!(solution[&JobId(4)], Verdict::Wait { .. }), "the slots that become free are promised");
    // While the victim stops, nobody else is asked to.
    problem.claims[1].stopping = true;
    assert_eq!(solve(&problem).verdicts[&JobId(1)], Verdict::Keep);
}

#[test]
fn equals_are_never_preempted() {
    let problem = Problem { nodes: vec![node(&[], 2)], claims: vec![holds(1, 2, 2), waits(2, 1, 1)] };
    assert_eq!(verdict(&problem, 1), Verdict::Keep);
}

#[test]
fn running_jobs_grow_into_what_nobody_waits_for() {
    let mut problem = Problem { nodes: vec![node(&[2, 3], 4)], claims: vec![holds(1, 2, 3)] };
    assert_eq!(verdict(&problem, 1), Verdict::Keep, "not before it may");
    problem.claims[0].may_grow = true;
    assert_eq!(verdict(&problem, 1), Verdict::Grow(vec![SlotOrd { node: 0, slot: 2 }]));
}

fn problems() -> impl Strategy<Value = Problem> {
    let nodes = prop::collection::vec((1_u32..9, any::<u8>()), 0..6).prop_map(|nodes| {
        nodes
            .into_iter()
            .map(|(total, mask)| node(&(0..total).filter(|slot| mask >> slot & 1 == 1).collect::<Vec<_>>(), total))
            .collect::<Vec<_>>()
    });
    let claims =
        prop::collection::vec((0_u32..6, 1_u32..9, 0_u32..4, 0_u32..3, any::<(bool, bool, bool)>(), 0_u64..900), 0..12);
    (nodes, claims).prop_map(|(nodes, claims)| Problem {
        nodes,
        claims: claims
            .into_iter()
            .enumerate()
            .map(|(job, (held, min, extra, priority, (ready, may_grow, stopping), waited))| Claim {
                job: JobId(u32::try_from(job).expect("few")),
                min,
                max: min + extra,
                priority,
                holds: held.min(min + extra),
                stopping: stopping && held > 0,
                ready,
                waited: Duration::from_secs(waited),
                cost: Duration::from_secs(waited % 7),
                may_grow,
            })
            .collect(),
    })
}

proptest! {
    #[test]
    fn solutions_are_feasible_complete_and_repeatable(problem in problems()) {
        let solution = solve(&problem);
        prop_assert_eq!(&solution, &solve(&problem));
        prop_assert_eq!(solution.verdicts.len(), problem.claims.len());
        let mut taken = std::collections::BTreeSet::new();
        for claim in &problem.claims {
            let (seats, least, most) = match &solution.verdicts[&claim.job] {
                Verdict::Start(seats) => {
                    prop_assert!(claim.holds == 0 && claim.ready);
                    (seats, claim.min, claim.max)
                }
                Verdict::Grow(seats) => {
                    prop_assert!(claim.holds > 0 && claim.may_grow);
                    (seats, 1, claim.max - claim.holds)
                }
                Verdict::Preempt { by } => {
                    let by = problem.claims.iter().find(|other| other.job == *by).expect("a claim");
                    prop_assert!(by.priority > claim.priority && by.holds == 0);
                    continue;
                }
                Verdict::Wait { reason } => {
                    prop_assert!(claim.holds == 0 && !reason.is_empty());
                    continue;
                }
                Verdict::Keep => {
                    prop_assert!(claim.holds > 0);
                    continue;
                }
            };
            prop_assert!((least..=most).contains(&u32::try_from(seats.len()).expect("few")));
            for seat in seats {
                prop_assert!(problem.nodes[seat.node].free.contains(&seat.slot));
                prop_assert!(taken.insert(*seat), "a slot is given once");
            }
        }
    }

    #[test]
    fn nobody_who_fits_waits_behind_an_impatient_line(problem in problems()) {
        let solution = solve(&problem);
        let blocked = problem.claims.iter().any(|claim| claim.holds == 0 && claim.ready
            && matches!(&solution.verdicts[&claim.job], Verdict::Wait { .. }) && claim.min <= problem.free());
        let started = solution.verdicts.values().any(|verdict| matches!(verdict, Verdict::Start(_)));
        let kept = problem.claims.iter().any(|claim| claim.waited >= PATIENCE || claim.stopping)
            || solution.verdicts.values().any(|verdict| matches!(verdict, Verdict::Preempt { .. }));
        prop_assert!(!blocked || started || kept);
    }
}

proptest! {
    #[test]
    fn a_hopeless_job_waits_in_every_solution_and_displaces_nobody(problem in problems()) {
        let solution = solve(&problem);
        for claim in problem.claims.iter().filter(|claim| claim.holds == 0) {
            if hopeless(&problem, claim.job).is_some() {
                let waits = matches!(solution.verdicts[&claim.job], Verdict::Wait { .. });
                let displaces = solution.verdicts.values().any(|verdict| *verdict == Verdict::Preempt { by: claim.job });
                prop_assert!(waits && !displaces);
            }
        }
    }
}
