//! The exit codes, which scripts rely on.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything asked for was done.
    Done,
    /// Something went wrong that has no code of its own.
    Failure,
    /// The command line or a file given to it is not valid.
    Usage,
    /// What was named does not exist.
    NotFound,
    /// It exists, but this must not be done to it, or not now.
    NotAllowed,
    /// The coordinator cannot be reached.
    Unreachable,
    /// A job that was waited for failed.
    JobFailed,
    /// A job that was waited for was cancelled.
    JobCancelled,
    /// The time given with `--timeout` is over.
    TimedOut,
    /// Ctrl-C.
    Interrupted,
}

impl Exit {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 10] = [
        Self::Done,
        Self::Failure,
        Self::Usage,
        Self::NotFound,
        Self::NotAllowed,
        Self::Unreachable,
        Self::JobFailed,
        Self::JobCancelled,
        Self::TimedOut,
        Self::Interrupted,
    ];

    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::NotAllowed => 4,
            Self::Unreachable => 5,
            Self::JobFailed => 10,
            Self::JobCancelled => 11,
            Self::TimedOut => 12,
            Self::Interrupted => 130,
        }
    }

    /// One line for `unimse help exit-codes`.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failure => "failed, for a reason without a code of its own",
            Self::Usage => "the command line or a file given to it is not valid",
            Self::NotFound => "no such job, checkpoint, sweep, node or file",
            Self::NotAllowed => "not allowed, or not in the present state",
            Self::Unreachable => "the coordinator cannot be reached",
            Self::JobFailed => "a job that was waited for failed",
            Self::JobCancelled => "a job that was waited for was cancelled",
            Self::TimedOut => "the time given with --timeout is over",
            Self::Interrupted => "interrupted with Ctrl-C; whatever was watched goes on",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_that_the_design_fixes() {
        let numbers: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 10, 11, 12, 130]);
    }
}
