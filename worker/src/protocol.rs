//! What an agent and its trainers say to each other: one JSON value a line, on the trainer's stdin and stdout.
//!
//! A trainer's stderr carries its log. The end of its stdin means that the agent is gone, and the trainer goes at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use unimse_core::id::{Generation, JobId, Rank, Step};
use unimse_core::job::ExitCause;
use unimse_core::machine::{Form, ReportKind};
use unimse_core::spec::JobSpec;
use unimse_core::time::Timestamp;
use unimse_core::view::Progress;
use unimse_core::worker::Slot;

/// The place of a trainer in one generation of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    pub generation: Generation,
    pub rank: Rank,
    pub world_size: u32,
}

/// All that a fresh trainer has to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    pub job: JobId,
    pub spec: Arc<JobSpec>,
    /// Store for checkpoints.
    pub checkpoint_uri: String,
    /// The cluster that the job belongs to; goes into manifests and into the proof that peers give each other.
    pub cluster: String,
    /// Host name or address at which other trainers reach this one.
    pub host: String,
    pub slot: Slot,
    pub seat: Seat,
}

/// A message to a trainer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToTrainer {
    /// The first message: prepare, listen for peers, report `Ready`.
    Begin(Box<Begin>),
    /// A newer generation: leave the old group, keep the state, report `Ready` again.
    Reform(Seat),
    /// All are ready: connect and train.
    Form(Form),
    /// Write a checkpoint at the next step boundary and exit.
    Stop { generation: Generation },
}

/// One completed step, for telemetry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    pub step: Step,
    pub at: Timestamp,
    /// The digest of the samples that all ranks together consumed, in hex.
    pub digest: String,
    /// Metrics by name; finite numbers only, because JSON has no others.
    pub values: BTreeMap<String, f64>,
}

/// A message from a trainer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromTrainer {
    /// Something that the coordinator must hear.
    Event { generation: Generation, rank: Rank, kind: ReportKind },
    /// How far it is, and the steps since the last such message.
    Steps { generation: Generation, rank: Rank, progress: Progress, records: Vec<StepRecord> },
    /// Its last words before it exits other than as asked.
    Failed { cause: ExitCause },
}

/// Exit codes of a trainer, for those who look at the process alone; details are in [`FromTrainer::Failed`].
pub mod exit_code {
    /// All steps are done.
    pub const FINISHED: i32 = 0;
    /// Anything else that went wrong.
    pub const FAILED: i32 = 1;
    /// It saved and stopped because it was told to.
    pub const STOPPED: i32 = 10;
    /// The specification cannot be carried out.
    pub const INVALID: i32 = 20;
    /// The checkpoint to resume from is damaged.
    pub const CHECKPOINT_DAMAGED: i32 = 21;
    /// Host or device memory ran out.
    pub const OUT_OF_MEMORY: i32 = 22;
}

/// The exit code that goes with a cause.
pub fn exit_code_of(cause: &ExitCause) -> i32 {
    match cause {
        ExitCause::Finished => exit_code::FINISHED,
        ExitCause::Stopped => exit_code::STOPPED,
        ExitCause::Invalid { .. } => exit_code::INVALID,
        ExitCause::CheckpointDamaged { .. } => exit_code::CHECKPOINT_DAMAGED,
        ExitCause::OutOfMemory { .. } => exit_code::OUT_OF_MEMORY,
        ExitCause::Failed { .. } | ExitCause::Signalled { .. } | ExitCause::NotStarted { .. } => exit_code::FAILED,
    }
}

/// Writes a message as its line, without the line's end.
pub fn to_line(message: &impl Serialize) -> String {
    serde_json::to_string(message).expect("messages are plain data with finite numbers and text keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_single_lines_that_read_back() {
        let spec = unimse_core::spec::parse_job(
            "name: t\nlabels: {note: \"two\\nlines\"}\nmodel: {preset: tiny}\ndata: {train: [{path: a.arrow}]}\ntrain: {max_steps: 4}",
            "t.yaml",
        );
        let seat = Seat { generation: Generation(3), rank: Rank(1), world_size: 2 };
        let begin = Begin {
            job: JobId(4),
            spec: Arc::new(spec.expect("a valid job")),
            checkpoint_uri: "/ckpt".to_owned(),
            cluster: "c".to_owned(),
            host: "127.0.0.1".to_owned(),
            slot: Slot::Cpu { threads: 2 },
            seat,
        };
        let form = Form {
            job: JobId(4),
            generation: Generation(3),
            peers: vec!["127.0.0.1:1".to_owned()],
            nccl_id: Some(vec![1, 2, 255]),
            source: Some((Rank(0), Step(7))),
            resume: None,
        };
        for message in [
            ToTrainer::Begin(Box::new(begin)),
            ToTrainer::Reform(seat),
            ToTrainer::Form(form),
            ToTrainer::Stop { generation: Generation(3) },
        ] {
            let line = to_line(&message);
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<ToTrainer>(&line).expect("it reads back"), message);
        }
        let failed = FromTrainer::Failed { cause: ExitCause::Invalid { message: "two\nlines".to_owned() } };
        let line = to_line(&failed);
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(serde_json::from_str::<FromTrainer>(&line).expect("it reads back"), failed);
    }

    #[test]
    fn exit_codes_tell_the_kinds_of_failure_apart() {
        let message = String::new();
        let causes = [
            ExitCause::Finished,
            ExitCause::Stopped,
            ExitCause::Invalid { message: message.clone() },
            ExitCause::CheckpointDamaged { manifest: message.clone(), message: message.clone() },
            ExitCause::OutOfMemory { message: message.clone() },
            ExitCause::Failed { code: 1, message },
        ];
        let codes: std::collections::BTreeSet<i32> = causes.iter().map(exit_code_of).collect();
        assert_eq!(codes.len(), causes.len());
    }
}
