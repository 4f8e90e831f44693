//! The trainer: one process a slot, which trains one rank of one generation after another.
//!
//! [`run`] is the whole life of it, and the same for real and fake training; what differs is the [`Replica`]. A generation goes
//! so: listen for peers and say `Ready`; when all are ready, connect; agree on the state (a peer's memory, a checkpoint, or a
//! fresh start); then step after step, with evaluations and checkpoints at step boundaries. When a peer is lost the state
//! of the last completed step stays in memory, and the next generation begins.

mod boundary;
pub mod fake;
mod forming;
mod held;
mod lanes;
mod life;
mod mailbox;
mod mouth;
mod profiling;
mod saving;
mod shares;
mod spans;
mod stepping;
#[cfg(feature = "torch")]
pub mod torch;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use unimse_checkpoint::{Manifest, Tensor, TensorSpec};
use unimse_collectives::{self as collectives, Collective};
use unimse_core::id::{Generation, Rank, Step};
use unimse_core::job::ExitCause;
use unimse_core::shard::{Batch, DataOrder, Digest};

pub use life::{Surroundings, run};
pub use mailbox::{Mailbox, listen};
pub use mouth::Mouth;
pub use spans::Span;

/// Reads those tensors of a checkpoint whose names are wanted.
pub type Read<'r> = dyn FnMut(&dyn Fn(&str) -> bool) -> Result<BTreeMap<String, Tensor>, ExitCause> + 'r;

/// One rank's copy of the model and its optimiser, and the data it learns from.
///
/// All replicas of a job hold the same numbers after every step. A call that fails with [`Halt::Group`] leaves the numbers of
/// the last completed step intact.
pub trait Replica {
    /// The order of the training data.
    fn order(&self) -> DataOrder;

    /// What the manifest says of the model, and what all ranks must agree on.
    fn description(&self) -> Description;

    /// Takes over the description of a peer or checkpoint, where it can differ from what this rank made itself.
    fn adopt(&mut self, description: &Description) -> Result<(), ExitCause>;

    /// Whether it holds the whole state: else it is of no use to another generation.
    fn is_whole(&self) -> bool {
        true
    }

    /// Joins a new generation: takes the group in which the ranks have met and gives the one in which they compute.
    fn join(&mut self, generation: Generation, group: Box<dyn Collective>) -> Result<Box<dyn Collective>, Halt>;

    /// Sets everything as it is before the first step: a pure function of the job's seed.
    fn initialise(&mut self) -> Result<(), ExitCause>;

    /// Takes everything from a checkpoint, of which `read` gives the tensors of some names: all at once they would need as much
    /// memory again as the state itself.
    fn load(&mut self, manifest: &Manifest, read: &mut Read<'_>) -> Result<(), ExitCause>;

    /// Overwrites everything with what `root` holds.
    fn receive(&mut self, root: Rank, group: &mut dyn Collective) -> Result<(), Halt>;

    /// A value that replicas with different numbers hardly share.
    fn fingerprint(&mut self) -> u64;

    /// Computes the gradients of this rank's micro-shards for the update that makes `step`.
    fn gradients(
        &mut self,
        step: Step,
        batch: &Batch,
        seat: (Rank, u32),
        group: &mut dyn Collective,
    ) -> Result<Sums, Halt>;

    /// Adds up the gradients of all ranks for the update that makes `step`. With `exactly` nothing may be put off to later steps:
    /// what is held after this step will be saved.
    fn reduce(&mut self, step: Step, exactly: bool, group: &mut dyn Collective) -> Result<(), Halt>;

    /// Applies the summed gradients; `total` is the number of steps of the job.
    fn update(&mut self, step: Step, total: u64) -> Result<Update, ExitCause>;

    /// Ends a step: returns whether all replicas hold the same numbers now. Where ranks take steps of their own in between, this is
    /// where they agree again.
    fn synchronise(&mut self, step: Step, total: u64, group: &mut dyn Collective) -> Result<bool, Halt> {
        let _ = (step, total, group);
        Ok(true)
    }

    /// Goes back to the numbers that all replicas held last.
    fn rewind(&mut self) -> Result<(), ExitCause> {
        Ok(())
    }

    /// The most memory of a GPU that this rank has taken, in bytes, if it is on one.
    fn device_memory(&self) -> Option<u64> {
        None
    }

    /// Bytes of gradients (or what stands for them) that this rank gave to sums since the last call.
    fn traffic(&mut self) -> u64 {
        0
    }

    /// Begins to record its work in detail, if it can.
    fn record(&mut self) -> Result<(), ExitCause> {
        Ok(())
    }

    /// Ends that and returns what was recorded.
    fn recorded(&mut self) -> Result<Vec<Span>, ExitCause> {
        Ok(Vec::new())
    }

    /// Measures the model on the validation sets, all ranks together; each gets the same metrics, none if there are no such sets.
    fn evaluate(&mut self, group: &mut dyn Collective) -> Result<BTreeMap<String, f64>, Halt>;

    /// The tensors that make a checkpoint, the same on all ranks and in the same order, with the rank that must write them where the
    /// others do not hold them.
    fn tensors(&self) -> Vec<(TensorSpec, Option<Rank>)>;

    /// What copies some of them to host memory, by their place in [`Replica::tensors`]. It may run on another thread, but must have ended
    /// before the next call that changes the numbers.
    fn copier(&self, places: &[usize]) -> Copier;
}

/// Copies tensors to host memory.
pub type Copier = Box<dyn FnOnce() -> Result<Vec<Bytes>, ExitCause> + Send>;

/// What the replicas of a job have in common besides numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// The model's configuration, as `config.json`.
    pub model: serde_json::Value,
    /// The label schema, as `labels.json`.
    pub labels: serde_json::Value,
    /// The tokenizer, as `tokenizer.json`.
    pub tokenizer: Option<String>,
    /// What identifies the training data; ranks on different data cannot train together.
    pub data: String,
}

/// What one rank adds to a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// This rank's part of the cross-entropy, already divided by the tokens of the global batch.
    pub ce: f64,
    /// Its part of the text-acoustic loss, divided by the samples of the global batch, without its weight.
    pub contrastive_acoustic: f64,
    /// The same for text and picture.
    pub contrastive_visual: f64,
    /// Its part of the loss, with weights.
    pub loss: f64,
    pub samples: u64,
    pub digest: Digest,
    pub data: Duration,
    pub forward: Duration,
    pub backward: Duration,
    /// Communication that the backward pass did not hide.
    pub exposed: Duration,
    /// Tokens of inputs and targets, padding not counted.
    pub tokens: u64,
    /// Floating-point operations of its samples' matrix products, forward and backward.
    pub flops: f64,
    /// Operations a second that its slot could do, if that is known.
    pub peak: Option<f64>,
}

/// What an update did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Update {
    pub learning_rate: f64,
    /// The global norm of the gradients before clipping.
    pub gradient_norm: f64,
}

/// Why a rank cannot go on with its group.
#[derive(Debug)]
pub enum Halt {
    /// The group is over; the state in memory is good.
    Group(collectives::Error),
    /// This trainer is over.
    End(ExitCause),
}

impl From<collectives::Error> for Halt {
    fn from(error: collectives::Error) -> Self {
        Self::Group(error)
    }
}

impl From<ExitCause> for Halt {
    fn from(cause: ExitCause) -> Self {
        Self::End(cause)
    }
}

/// A failure of this trainer that another try may survive.
pub(crate) fn failed(message: impl std::fmt::Display) -> ExitCause {
    ExitCause::Failed { code: crate::protocol::exit_code::FAILED, message: message.to_string() }
}

/// A failure that every other try would meet as well.
pub(crate) fn invalid(message: impl std::fmt::Display) -> ExitCause {
    ExitCause::Invalid { message: message.to_string() }
}
