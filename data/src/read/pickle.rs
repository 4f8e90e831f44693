//! Reads Python pickles of numpy arrays without ever executing anything.
//!
//! A pickle is a program for a small stack machine. This machine knows the opcodes of protocols 0 to 5 and a closed list
//! of globals (numpy arrays, dtypes and scalars, `_codecs.encode`, `collections.OrderedDict` and `defaultdict`, sets, empty `bytes`); any other
//! global is an error that names it. Values live in one flat arena and refer to each other by number: nothing recurses
//! over them, neither reading nor dropping, shared values cost nothing, and cycles are harmless. Large byte strings stay
//! in the file and are read a row at a time, so a file of many gigabytes needs little memory.
//!
//! The pickle in a file of `torch.save` has a list of its own: tensors and their storages, `OrderedDict`, and nothing of numpy.
//!
//! Every count is bounded by [`Limits`]; a length is compared with what is left of the file before anything is reserved.

mod array;
mod dtype;
mod fault;
mod input;
mod literal;
mod machine;
mod npy;
mod numpy;
mod source;
mod torch;
mod value;

pub use array::Numbers;
pub use dtype::{Dtype, Kind};
pub use fault::{PickleError, PickleFault};
pub use machine::Limits;
pub use source::ReadAt;
pub use torch::TorchDtype;
pub(crate) use torch::{Search, Tensor};
pub(crate) use value::Cells;
pub use value::{Column, Document, Value};

#[cfg(test)]
mod tests;
