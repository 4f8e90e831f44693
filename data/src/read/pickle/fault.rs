//! What can be wrong with a pickle.

use std::fmt;

/// A fault and where in the file it was met.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset} of the pickle: {fault}")]
pub struct PickleError {
    /// The position of the opcode that failed.
    pub offset: u64,
    /// What is wrong.
    pub fault: PickleFault,
}

impl PickleError {
    /// What to do about it, as a line to append.
    pub(crate) fn hint(&self) -> &'static str {
        match self.fault {
            PickleFault::Global { .. } => {
                "\n  hint: only plain data and numpy arrays are read, nothing is executed; save the values as numpy arrays"
            }
            PickleFault::Unsupported(_) | PickleFault::Dtype(_) => {
                "\n  hint: save the values as plain numpy arrays of numbers or strings with pickle protocol 4"
            }
            PickleFault::Truncated { .. } => "\n  hint: the file may have been cut short; download it again",
            PickleFault::Limit { .. } => "\n  hint: no dataset needs that much; the file may be malicious",
            _ => "\n  hint: the file may be damaged; download it again",
        }
    }
}

/// What is wrong with a pickle.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PickleFault {
    /// The file could not be read.
    Io(String),
    /// Something claims more bytes than there are.
    Truncated {
        /// The bytes claimed.
        needed: u64,
        /// The bytes left.
        left: u64,
    },
    /// A byte that is no opcode.
    UnknownOpcode(u8),
    /// An opcode or a feature of it that no plain dataset uses.
    Unsupported(String),
    /// A global that is not on the list; it would name code to run.
    Global {
        /// The module.
        module: String,
        /// The name in it.
        name: String,
    },
    /// A bound on the size of a pickle.
    Limit {
        /// What is bounded.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// An opcode takes more values than there are.
    EmptyStack,
    /// An opcode refers to a memo entry that does not exist.
    NoMemo(u64),
    /// A value of another kind than the opcode or function takes.
    Unexpected {
        /// What would be right.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// Text that is not valid in its encoding.
    BadText,
    /// A number that cannot be understood.
    BadNumber(String),
    /// A numpy type that is not read.
    Dtype(String),
    /// An array whose shape does not agree with its data.
    Shape(String),
}

impl fmt::Display for PickleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(cause) => write!(f, "cannot read: {cause}"),
            Self::Truncated { needed, left } => write!(f, "{needed} bytes are claimed, {left} are left"),
            Self::UnknownOpcode(byte) => write!(f, "0x{byte:02x} is no opcode"),
            Self::Unsupported(what) => write!(f, "{what} is not supported"),
            Self::Global { module, name } => {
                write!(f, "refused to load `{}.{}`", module.escape_debug(), name.escape_debug())
            }
            Self::Limit { what, limit } => write!(f, "more than {limit} {what}"),
            Self::EmptyStack => write!(f, "an opcode takes more values than there are"),
            Self::NoMemo(index) => write!(f, "memo entry {index} does not exist"),
            Self::Unexpected { expected, found } => write!(f, "expected {expected}, found {found}"),
            Self::BadText => write!(f, "text is not valid in its encoding"),
            Self::BadNumber(text) => write!(f, "`{}` is not a number that can be read", text.escape_debug()),
            Self::Dtype(code) => write!(f, "numpy type `{}` is not supported", code.escape_debug()),
            Self::Shape(problem) => write!(f, "{problem}"),
        }
    }
}
