//! Pure decisions: what the coordinator, the workers and the tools agree on.
//!
//! Nothing here performs I/O, reads a clock or draws randomness of its own: time, seeds and text are arguments, effects are
//! values. A simulation is therefore a test, and replaying the journal is recovery.
//!
//! The words: a **job** trains one model on **slots** (a GPU, or a few CPU threads) of **workers**. Each time the set of ranks
//! of a job is formed its **generation** grows by one; whatever carries an older generation is refused everywhere. A **sweep**
//! is a set of jobs, its **trials**. The [`machine`] holds all of that and moves only by [`machine::Machine::step`].
//!
//! - [`id`], [`time`]: newtypes that cannot be mixed.
//! - [`job`], [`worker`], [`checkpoint`]: the state of one of each.
//! - [`schedule`]: which job runs where, and why the others wait.
//! - [`machine`]: events in, effects out.
//! - [`view`]: what people are shown of all that.
//! - [`spec`], [`diagnostic`]: job and sweep files, and what is wrong with them.
//! - [`shard`]: which samples each step uses, and which rank computes them.
//! - [`sweep`]: which trials there are, which go on, and which is best.
//! - [`retention`], [`backoff`], [`metrics`]: which checkpoints stay, when to try again, which value is better.

pub mod backoff;
pub mod checkpoint;
pub mod diagnostic;
mod draw;
pub mod id;
pub mod job;
pub mod machine;
pub mod metrics;
pub mod retention;
pub mod schedule;
pub mod shard;
pub mod spec;
pub mod sweep;
pub mod time;
pub mod view;
pub mod worker;
