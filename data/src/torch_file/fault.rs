//! What can be wrong with a file of `torch.save`, and what to do about it.

use std::io;

use rawzip::ErrorKind;

use crate::read::pickle::{PickleError, PickleFault};

/// Why a file of `torch.save` cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchFault {
    /// The operating system refused to read it.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// Torch before 1.6 wrote it, or a newer one that was told to write the old format.
    #[error("it is of the format that torch wrote before version 1.6")]
    Legacy,
    /// It is something else.
    #[error("{0}")]
    Foreign(&'static str),
    /// The zip archive is damaged.
    #[error("its zip archive is damaged: {0}")]
    Archive(String),
    /// A bound on what the file may make the reader hold.
    #[error("it has more than {limit} {what}")]
    Limit {
        /// What is bounded.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// Two entries of the archive have one name, and readers may differ in which they take.
    #[error("the entry `{}` is there twice", entry.escape_debug())]
    Repeated {
        /// The name.
        entry: String,
    },
    /// An entry of the archive is not there.
    #[error("the entry `{}` is missing", entry.escape_debug())]
    Missing {
        /// The name.
        entry: String,
    },
    /// An entry is compressed or encrypted; torch never does either.
    #[error("the entry `{}` is compressed or encrypted", entry.escape_debug())]
    Packed {
        /// The name.
        entry: String,
    },
    /// It was written on a big-endian machine.
    #[error("its byte order is `{}`, only `little` is read", .0.escape_debug())]
    ByteOrder(String),
    /// The pickle is malformed, over a limit, or names a function that is not known.
    #[error("{0}")]
    Pickle(PickleError),
    /// The file does not hold a dict.
    #[error("it holds {found}, not a state dict")]
    NotADict {
        /// What it holds.
        found: &'static str,
    },
    /// Tensors are further inside than in a state dict.
    #[error("there are tensors inside of `{}`, {found}", key.escape_debug())]
    Nested {
        /// The key of the value that holds them.
        key: String,
        /// What that value is.
        found: &'static str,
    },
    /// There is nothing to load.
    #[error("it holds no tensors")]
    NoTensors,
    /// The key of a tensor is no name.
    #[error("the key of a tensor is {found}, not a text")]
    Unnamed {
        /// What it is.
        found: &'static str,
    },
    /// Two tensors have one name.
    #[error("the tensor `{}` is there twice", tensor.escape_debug())]
    Twice {
        /// The name.
        tensor: String,
    },
    /// The elements of a tensor are not in a row, as after a transposition.
    #[error("the tensor `{}` is not contiguous: shape {shape:?} with strides {strides:?}", tensor.escape_debug())]
    Strided {
        /// The name.
        tensor: String,
        /// The lengths of its axes.
        shape: Vec<u64>,
        /// Distance between neighbours along each axis, in elements.
        strides: Vec<u64>,
    },
    /// A tensor claims elements that its storage or the file does not have.
    #[error("the tensor `{}` is not all there: {problem}", tensor.escape_debug())]
    Outside {
        /// The name.
        tensor: String,
        /// What is claimed, and what is there.
        problem: String,
    },
}

impl TorchFault {
    /// What to do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Io(_) => "check the disk and the permissions of the file",
            Self::Legacy => {
                "load it with a newer torch and save it again, `torch.save(torch.load(file, weights_only=True), file)`, or save it as safetensors"
            }
            Self::Strided { .. } => "save the model again, this tensor as `tensor.contiguous()`",
            Self::ByteOrder(_) => "load it with torch on the machine that it comes from and save it as safetensors",
            Self::Pickle(PickleError { fault: PickleFault::Global { .. } | PickleFault::Unsupported(_), .. }) => {
                "only tensors and plain data are read, nothing is executed; save `model.state_dict()` alone, or as safetensors"
            }
            Self::NotADict { .. } | Self::Nested { .. } | Self::NoTensors | Self::Unnamed { .. } => {
                "save the dict of a model's tensors alone, `torch.save(model.state_dict(), file)`"
            }
            Self::Packed { .. } => "save it again with torch, which does not compress; a zip program may have",
            Self::Limit { .. } | Self::Pickle(PickleError { fault: PickleFault::Limit { .. }, .. }) => {
                "no model needs that much; the file may be malicious"
            }
            Self::Repeated { .. } | Self::Twice { .. } => "torch writes no such file; it may be malicious",
            Self::Foreign(_) | Self::Archive(_) | Self::Missing { .. } | Self::Outside { .. } | Self::Pickle(_) => {
                "the file may have been cut short or damaged; download it again from where the model was published"
            }
        }
    }
}

impl From<rawzip::Error> for TorchFault {
    fn from(cause: rawzip::Error) -> Self {
        match cause.into_kind() {
            // Beyond the end is where a damaged directory points; everything else is the disk's.
            ErrorKind::IO(cause) if cause.kind() != io::ErrorKind::UnexpectedEof => Self::Io(cause),
            kind => Self::Archive(kind.to_string()),
        }
    }
}
