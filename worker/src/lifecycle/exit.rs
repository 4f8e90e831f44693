//! Why a trainer ended, from what is known when its process is gone.

use unimse_core::job::ExitCause;

use crate::protocol::exit_code;

/// How a process ended, and what its last lines were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed a process of this control group for want of memory while it ran.
    pub oom_killed: bool,
    /// The end of its stderr.
    pub stderr: String,
}

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
/// What shells and the dynamic loader use for programs that cannot be run.
const NOT_RUNNABLE: [i32; 2] = [126, 127];
/// Words of allocators that give up.
const MEMORY_WORDS: [&str; 4] = ["out of memory", "OutOfMemoryError", "bad_alloc", "memory allocation of"];

/// Names the cause; `last_words` are the trainer's own, and `finished` tells whether it had said that all steps are done.
pub fn classify(exit: &Exit, last_words: Option<&ExitCause>, finished: bool) -> ExitCause {
    let tail = || if exit.stderr.is_empty() { "no message".to_owned() } else { exit.stderr.clone() };
    let ran_out = MEMORY_WORDS.iter().any(|words| exit.stderr.contains(words));
    match (exit.signal, exit.code) {
        (Some(SIGKILL), _) if exit.oom_killed => {
            let message =
                "killed by the kernel (oom_killed); hint: give the host more memory, or lower train.micro_batch";
            ExitCause::OutOfMemory { message: message.to_owned() }
        }
        (Some(SIGABRT), _) if ran_out => ExitCause::OutOfMemory { message: tail() },
        (Some(signal), _) => ExitCause::Signalled { signal },
        (None, Some(exit_code::FINISHED)) if finished => ExitCause::Finished,
        (None, Some(exit_code::STOPPED)) => ExitCause::Stopped,
        (None, Some(code)) => match last_words {
            Some(cause) => cause.clone(),
            None if NOT_RUNNABLE.contains(&code) => ExitCause::NotStarted { message: tail() },
            None if ran_out => ExitCause::OutOfMemory { message: tail() },
            None => ExitCause::Failed { code, message: tail() },
        },
        (None, None) => ExitCause::Failed { code: exit_code::FAILED, message: tail() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: Option<i32>, signal: Option<i32>, stderr: &str) -> Exit {
        Exit { code, signal, oom_killed: false, stderr: stderr.to_owned() }
    }

    #[test]
    fn every_way_to_end_has_its_cause() {
        let words = ExitCause::Invalid { message: "no such dataset".to_owned() };
        let text = |text: &str| text.to_owned();
        let cases = [
            (exit(Some(0), None, ""), None, true, ExitCause::Finished),
            (exit(Some(0), None, ""), None, false, ExitCause::Failed { code: 0, message: text("no message") }),
            (exit(Some(10), None, ""), None, false, ExitCause::Stopped),
            (exit(Some(20), None, "log"), Some(&words), false, words.clone()),
            (
                exit(Some(1), None, "thread panicked"),
                None,
                false,
                ExitCause::Failed { code: 1, message: text("thread panicked") },
            ),
            (
                exit(Some(127), None, "libtorch_cpu.so: cannot open"),
                None,
                false,
                ExitCause::NotStarted { message: text("libtorch_cpu.so: cannot open") },
            ),
            (exit(None, Some(9), "log"), None, false, ExitCause::Signalled { signal: 9 }),
            (exit(None, Some(11), ""), Some(&words), false, ExitCause::Signalled { signal: 11 }),
            (
                exit(None, Some(6), "what(): std::bad_alloc"),
                None,
                false,
                ExitCause::OutOfMemory { message: text("what(): std::bad_alloc") },
            ),
        ];
        for (exit, words, finished, expected) in cases {
            assert_eq!(classify(&exit, words, finished), expected, "{exit:?}");
        }
    }

    #[test]
    fn a_kill_by_the_kernel_is_told_from_a_kill_by_hand() {
        let killed = Exit { oom_killed: true, ..exit(None, Some(9), "") };
        let ExitCause::OutOfMemory { message } = classify(&killed, None, false) else {
            panic!("not seen as out of memory")
        };
        assert!(message.contains("oom_killed") && message.contains("hint:"), "{message}");
        let abort = Exit { oom_killed: true, ..exit(None, Some(6), "assertion") };
        assert_eq!(classify(&abort, None, false), ExitCause::Signalled { signal: 6 });
    }
}
