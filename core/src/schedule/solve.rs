//! The solution of a scheduling problem, with a reason for every job.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::problem::{Claim, Node, PATIENCE, Problem, SlotOrd};
use crate::id::JobId;
use crate::time::humane;

/// What one job is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It starts on these slots; rank r takes the r-th.
    Start(Vec<SlotOrd>),
    /// It waits.
    Wait { reason: String },
    /// It goes on as it is.
    Keep,
    /// It takes these slots in addition.
    Grow(Vec<SlotOrd>),
    /// It stops at the next step boundary and waits again, so that the named job can start.
    Preempt { by: JobId },
}

/// One verdict a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Solution {
    pub verdicts: BTreeMap<JobId, Verdict>,
}

/// Decides for every claim; see the module's rules.
pub fn solve(problem: &Problem) -> Solution {
    let mut nodes = problem.nodes.clone();
    let mut verdicts: BTreeMap<JobId, Verdict> =
        problem.claims.iter().filter(|claim| claim.holds > 0).map(|claim| (claim.job, Verdict::Keep)).collect();
    let mut waiting: Vec<&Claim> = problem.claims.iter().filter(|claim| claim.holds == 0).collect();
    waiting.sort_by_key(|claim| (std::cmp::Reverse(claim.priority), std::cmp::Reverse(claim.waited)));
    // Slots that running or stopping jobs give up for a claim that is ahead of the line.
    let mut promised = 0;
    let mut first_in_line: Option<&Claim> = None;

    for claim in waiting {
        let verdict = if !claim.ready {
            Verdict::Wait { reason: "waits for the end of its back-off after a failure".to_owned() }
        } else if let Some(first) = first_in_line {
            let reason =
                format!("free slots are kept for {} (priority {}), which is first in line", first.job, first.priority);
            Verdict::Wait { reason }
        } else if let Some(seats) = take(&mut nodes, claim.min, claim.max) {
            Verdict::Start(seats)
        } else if claim.min > problem.total() {
            Verdict::Wait { reason: never(claim, problem) }
        } else {
            let free = count(&nodes);
            let stopping = problem.claims.iter().filter(|other| other.stopping).map(|other| other.holds).sum::<u32>();
            let soon = free + stopping.saturating_sub(promised);
            let victims =
                if soon >= claim.min { Some(Vec::new()) } else { victims(claim, problem, &verdicts, claim.min - soon) };
            if let Some(victims) = victims {
                promised += claim.min.saturating_sub(free);
                first_in_line = Some(claim);
                let reason = room(claim, free, &victims);
                for victim in victims {
                    verdicts.insert(victim, Verdict::Preempt { by: claim.job });
                }
                Verdict::Wait { reason }
            } else {
                if claim.waited >= PATIENCE {
                    first_in_line = Some(claim);
                }
                Verdict::Wait { reason: busy(claim, free, problem) }
            }
        };
        verdicts.insert(claim.job, verdict);
    }
    if first_in_line.is_none() {
        grow(problem, &mut nodes, &mut verdicts);
    }
    Solution { verdicts }
}

/// Why `job` waits whatever the other waiting jobs want: it does not fit, and nobody of a lower priority runs. None if it
/// might start or displace somebody, which takes a full [`solve`].
pub fn hopeless(problem: &Problem, job: JobId) -> Option<String> {
    let claim = problem.claims.iter().find(|claim| claim.job == job)?;
    let displaces = problem.claims.iter().any(|other| other.holds > 0 && other.priority < claim.priority);
    if claim.min > problem.total() {
        Some(never(claim, problem))
    } else if claim.min > problem.free() && !displaces {
        Some(busy(claim, problem.free(), problem))
    } else {
        None
    }
}

fn count(nodes: &[Node]) -> u32 {
    Problem { nodes: nodes.to_vec(), claims: Vec::new() }.free()
}

/// Takes between `min` and `max` free slots, on as few nodes as possible; of equal choices the tightest fit, then the first.
fn take(nodes: &mut [Node], min: u32, max: u32) -> Option<Vec<SlotOrd>> {
    let want = max.min(count(nodes));
    if want < min || want == 0 {
        return None;
    }
    let mut seats = Vec::new();
    let mut left = want as usize;
    while left > 0 {
        let fits = (0..nodes.len()).filter(|&n| nodes[n].free.len() >= left).min_by_key(|&n| nodes[n].free.len());
        // No node holds the rest alone: empty the fullest of the free ones and look again.
        let node = fits.or_else(|| (0..nodes.len()).rev().max_by_key(|&n| nodes[n].free.len()))?;
        let taken = left.min(nodes[node].free.len());
        seats.extend(nodes[node].free.drain(..taken).map(|slot| SlotOrd { node, slot }));
        left -= taken;
    }
    Some(seats)
}

/// The running jobs of lower priority whose slots, `missing` or more, cost least; none when even all would not do.
fn victims(claim: &Claim, problem: &Problem, verdicts: &BTreeMap<JobId, Verdict>, missing: u32) -> Option<Vec<JobId>> {
    let mut candidates: Vec<&Claim> = problem
        .claims
        .iter()
        .filter(|other| other.holds > 0 && !other.stopping && other.priority < claim.priority)
        .filter(|other| verdicts.get(&other.job) == Some(&Verdict::Keep))
        .collect();
    candidates.sort_by_key(|other| (other.priority, other.cost, std::cmp::Reverse(other.job)));
    let mut chosen: Vec<&Claim> = Vec::new();
    let mut freed = 0;
    for candidate in candidates {
        if freed >= missing {
            break;
        }
        freed += candidate.holds;
        chosen.push(candidate);
    }
    if freed < missing {
        return None;
    }
    // A later, larger victim can make earlier ones unnecessary: spare those that would lose most first.
    for candidate in chosen.clone().into_iter().rev() {
        if freed - candidate.holds >= missing {
            freed -= candidate.holds;
            chosen.retain(|other| other.job != candidate.job);
        }
    }
    Some(chosen.into_iter().map(|other| other.job).collect())
}

fn grow(problem: &Problem, nodes: &mut [Node], verdicts: &mut BTreeMap<JobId, Verdict>) {
    let mut running: Vec<&Claim> =
        problem.claims.iter().filter(|claim| claim.may_grow && !claim.stopping && claim.holds < claim.max).collect();
    running.sort_by_key(|claim| (std::cmp::Reverse(claim.priority), claim.job));
    for claim in running {
        if verdicts.get(&claim.job) == Some(&Verdict::Keep)
            && let Some(seats) = take(nodes, 1, claim.max - claim.holds)
        {
            verdicts.insert(claim.job, Verdict::Grow(seats));
        }
    }
}

fn slots(number: u32) -> String {
    format!("{number} slot{}", if number == 1 { "" } else { "s" })
}

fn never(claim: &Claim, problem: &Problem) -> String {
    let total = problem.total();
    let workers = problem.nodes.len();
    format!(
        "needs {}, but the {workers} live worker{} {total} in all; add workers or lower resources.min_slots",
        slots(claim.min),
        if workers == 1 { " has" } else { "s have" },
    )
}

fn busy(claim: &Claim, free: u32, problem: &Problem) -> String {
    let mut reason = format!("needs {}, {free} free of {}", slots(claim.min), problem.total());
    let holders: Vec<String> = problem
        .claims
        .iter()
        .filter(|other| other.holds > 0)
        .map(|other| format!("{} ({})", other.job, other.holds))
        .collect();
    if !holders.is_empty() {
        let shown = holders.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
        let more = holders.len().saturating_sub(4);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        write!(reason, "; held by {shown}{more}").expect("writing to a String cannot fail");
    }
    if claim.waited >= PATIENCE {
        write!(reason, "; has waited {}, so nothing passes it any more", humane(claim.waited)).expect("as above");
    }
    reason
}

fn room(claim: &Claim, free: u32, victims: &[JobId]) -> String {
    let who = if victims.is_empty() {
        "jobs that are stopping".to_owned()
    } else {
        victims.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    format!("needs {}, {free} free; waits for {who} to save and make room", slots(claim.min))
}
