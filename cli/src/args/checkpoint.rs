//! Arguments of `unimse ckpt`.

use std::path::PathBuf;

use clap::Subcommand;

use super::Output;

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum CheckpointCommand {
    /// List the checkpoints of a job
    Ls {
        /// An id such as j-7k2m, a unique prefix of one, a name, or @last
        #[arg(value_name = "JOB")]
        job: String,
        #[command(flatten)]
        output: Output,
    },
    /// Show what a checkpoint holds
    Show {
        /// A checkpoint, such as j-7k2m:best, j-7k2m:latest or j-7k2m:1200
        checkpoint: String,
        #[command(flatten)]
        output: Output,
    },
    /// Read a checkpoint and compare every byte with its hash
    Verify {
        /// A checkpoint, such as j-7k2m:best, j-7k2m:latest or j-7k2m:1200
        checkpoint: String,
        /// Compare sizes only, which reads nothing
        #[arg(long)]
        quick: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Write a checkpoint to a folder that transformers can read
    Pull {
        /// A checkpoint, such as j-7k2m:best, j-7k2m:latest or j-7k2m:1200
        checkpoint: String,
        /// The folder, absent or empty
        folder: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Remove a checkpoint that no job needs
    Rm {
        /// A checkpoint, such as j-7k2m:1200
        checkpoint: String,
        /// Even if it is the newest or the best of its job
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        output: Output,
    },
}
