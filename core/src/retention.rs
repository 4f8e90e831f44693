//! Which checkpoints to keep, and why the others go.

use std::collections::BTreeSet;

use crate::id::{Generation, Step};
use crate::metrics::Goal;

/// What the decision needs to know of a committed checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Committed {
    pub step: Step,
    pub generation: Generation,
    /// Its value of the metric that `best` is judged by, if it was evaluated.
    pub metric: Option<f64>,
    /// Whether its bytes are known to be what was written; damaged ones are not.
    pub verified: bool,
    /// Whether something needs it now: a restore, a download, a job that starts from it. Never deleted.
    pub in_use: bool,
}

/// How many survive; the union of both rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The newest so many that are verified, at least one.
    pub latest: u32,
    /// The best so many.
    pub best: u32,
    /// Which way is up.
    pub goal: Goal,
}

/// A checkpoint to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    pub step: Step,
    pub generation: Generation,
    /// For people.
    pub reason: String,
}

/// Decides which of `checkpoints`, in any order, are to be deleted, oldest first.
///
/// The newest verified one is kept whatever the policy says, and only verified ones count for it: a damaged newest checkpoint must
/// not push out the one that still works. Among equally good ones the later step is better, since it has trained longer.
pub fn decide(checkpoints: &[Committed], policy: Policy) -> Vec<Deletion> {
    let key = |checkpoint: &Committed| (checkpoint.step, checkpoint.generation);
    let mut newest: Vec<&Committed> = checkpoints.iter().filter(|checkpoint| checkpoint.verified).collect();
    newest.sort_by_key(|checkpoint| std::cmp::Reverse(key(checkpoint)));
    let mut best: Vec<(&Committed, f64)> = newest
        .iter()
        .filter_map(|checkpoint| Some((*checkpoint, checkpoint.metric.filter(|value| !value.is_nan())?)))
        .collect();
    // Stable, so that among equals the newest stays first.
    best.sort_by(|a, b| policy.goal.compare(b.1, a.1));

    let latest = newest.iter().take(policy.latest.max(1) as usize).map(|checkpoint| key(checkpoint));
    let best = best.iter().take(policy.best as usize).map(|(checkpoint, _)| key(checkpoint));
    let kept: BTreeSet<_> = latest.chain(best).collect();
    let mut deletions: Vec<Deletion> = checkpoints
        .iter()
        // Without a verified one there is nothing to fall back on, and a damaged one may still be repaired by hand.
        .filter(|checkpoint| !checkpoint.in_use && !kept.contains(&key(checkpoint)) && !newest.is_empty())
        .map(|checkpoint| Deletion {
            step: checkpoint.step,
            generation: checkpoint.generation,
            reason: if checkpoint.verified {
                format!("not among the {} newest or the {} best", policy.latest.max(1), policy.best)
            } else {
                "damaged, and a good one exists".into()
            },
        })
        .collect();
    deletions.sort_by_key(|deletion| (deletion.step, deletion.generation));
    deletions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(step: u64, metric: Option<f64>) -> Committed {
        Committed { step: Step(step), generation: Generation(1), metric, verified: true, in_use: false }
    }

    fn deleted(checkpoints: &[Committed], latest: u32, best: u32) -> Vec<u64> {
        let policy = Policy { latest, best, goal: Goal::Minimize };
        decide(checkpoints, policy).iter().map(|deletion| deletion.step.0).collect()
    }

    #[test]
    fn the_newest_and_the_best_stay() {
        let list = [at(100, Some(0.5)), at(200, Some(0.9)), at(300, Some(0.4)), at(400, Some(0.8)), at(500, None)];
        assert_eq!(deleted(&list, 2, 1), [100, 200]);
        assert_eq!(deleted(&list, 1, 0), [100, 200, 300, 400]);
        assert_eq!(deleted(&list, 1, 2), [200, 400]);
        assert_eq!(deleted(&list, 9, 9), [0_u64; 0]);
    }

    #[test]
    fn ties_go_to_the_later_step_and_nan_is_never_best() {
        let list = [at(100, Some(0.5)), at(200, Some(0.5)), at(300, Some(f64::NAN)), at(400, None)];
        assert_eq!(deleted(&list, 1, 1), [100, 300]);
    }

    #[test]
    fn what_is_in_use_stays() {
        let mut list = [at(100, None), at(200, None), at(300, None)];
        list[0].in_use = true;
        assert_eq!(deleted(&list, 1, 1), [200]);
    }

    #[test]
    fn a_damaged_newest_one_does_not_push_out_the_good_one() {
        let mut list = [at(100, Some(0.1)), at(200, Some(0.2)), at(300, Some(0.0))];
        list[2].verified = false;
        assert_eq!(deleted(&list, 1, 1), [300], "200 is the newest good one, 100 the best good one");
        let list = list.map(|checkpoint| Committed { verified: false, ..checkpoint });
        assert_eq!(deleted(&list, 1, 0), [0_u64; 0], "nothing good is left to fall back on");
    }

    proptest! {
        #[test]
        fn the_newest_verified_one_survives_every_policy_and_deciding_twice_changes_nothing(
            steps in proptest::collection::btree_map(0_u64..40, (proptest::option::of(-1.0..1.0), any::<bool>(), any::<bool>()), 0..20),
            latest in 0_u32..4, best in 0_u32..4, maximize: bool,
        ) {
            let list: Vec<Committed> = steps
                .into_iter()
                .map(|(step, (metric, verified, in_use))| Committed { verified, in_use, ..at(step, metric) })
                .collect();
            let policy = Policy { latest, best, goal: if maximize { Goal::Maximize } else { Goal::Minimize } };
            let gone: BTreeSet<Step> = decide(&list, policy).into_iter().map(|deletion| deletion.step).collect();
            let newest = list.iter().filter(|checkpoint| checkpoint.verified).map(|checkpoint| checkpoint.step).max();
            prop_assert!(newest.is_none_or(|newest| !gone.contains(&newest)));
            prop_assert!(list.iter().all(|checkpoint| !checkpoint.in_use || !gone.contains(&checkpoint.step)));
            let rest: Vec<Committed> = list.into_iter().filter(|checkpoint| !gone.contains(&checkpoint.step)).collect();
            prop_assert_eq!(decide(&rest, policy), vec![]);
        }
    }
}
