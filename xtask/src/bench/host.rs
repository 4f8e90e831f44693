//! What a number was measured on, without which it means little.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::workspace::Workspace;

/// The machine and the state of the sources.
#[derive(Debug, Serialize)]
pub(super) struct Host {
    /// When, in seconds since the epoch.
    pub(super) unix_seconds: u64,
    /// The commit, with `-dirty` where files were changed since.
    pub(super) commit: String,
    /// The processor's name for itself.
    pub(super) cpu: String,
    /// How many threads this process may run at once.
    pub(super) cores: usize,
    /// The memory in MiB.
    pub(super) memory_mib: u64,
    /// The first GPU, where there is a driver.
    pub(super) gpu: Option<String>,
}

impl Host {
    pub(super) fn find(workspace: &Workspace) -> Self {
        Self {
            unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            commit: workspace.commit(),
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            memory_mib: field("/proc/meminfo", "MemTotal").and_then(|text| kib(&text)).unwrap_or(0) / 1024,
            gpu: crate::gpu::driver(),
        }
    }
}

/// Reads the first `name : value` of a file of such lines.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn kib(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}
