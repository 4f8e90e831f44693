//! Real training: the model in libtorch, its data, its optimiser.
//!
//! One OS thread owns everything here; beside it work a thread that prepares batches and, during the last backward pass of a
//! step, one that adds up the gradients that are ready. Nothing numerical depends on the world size: see `core::shard`.

mod copies;
mod description;
mod device;
mod evaluation;
mod exact;
mod exporting;
mod feed;
mod flat;
mod folder;
pub mod gpu_check;
mod graphs;
mod labelling;
mod material;
mod negatives;
mod optimiser;
mod powersgd;
mod predicting;
mod published;
mod reducer;
mod replica;
mod rounds;
mod seeding;
pub mod step_bench;
mod stored;
mod tensors;
mod tuning;
mod utilisation;
mod zero;

pub use evaluation::{Confusion, Details};
pub use exporting::{Exported, Precision, export};
pub use folder::{Evaluated, ModelFolder, SampleLine};
pub use labelling::Encoder;
pub use predicting::{Guess, Question};
pub use replica::make;
