//! Gang scheduling: which waiting jobs get which free slots, who has to make room, and why the others wait.
//!
//! A problem and a solution, both plain values: the machine translates its jobs and workers into a dense [`Problem`], calls
//! [`solve`] and translates the [`Solution`] back. Solving the same problem twice gives the same solution.
//!
//! The rules, in order:
//! 1. Higher priority first, then the longer wait.
//! 2. All or nothing: a job starts with at least its minimum of slots, at best its maximum, packed on few nodes.
//! 3. A smaller job may pass a blocked larger one, until the larger one has waited for [`PATIENCE`]; then nothing passes it.
//! 4. A job of strictly higher priority may take the slots of running ones: the fewest, of the lowest priority, that lose least.
//! 5. What is left lets running jobs grow to their maximum.

mod problem;
mod solve;

pub use problem::{Claim, Node, PATIENCE, Problem, SlotOrd};
pub use solve::{Solution, Verdict, hopeless, solve};

#[cfg(test)]
mod tests;
