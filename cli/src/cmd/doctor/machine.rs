//! What can be said of this machine alone.

use std::fs;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;

use super::{Check, Verdict};
use crate::cmd::exec::Worker;
use crate::context::Context;
use crate::error::Error;
use crate::render::amount::bytes;

/// Sockets to all peers, shards and data files at once.
const OPEN_FILES: u64 = 1024;
/// NCCL's and `PyTorch`'s shared buffers.
const SHARED_MEMORY: u64 = 1 << 30;
/// A few checkpoints of a small model.
const DISK: u64 = 5 << 30;

pub(super) fn checks(context: &Context) -> Vec<Check> {
    vec![
        Check::new(Verdict::Ok, format!("unimse {}, {}", env!("CARGO_PKG_VERSION"), context.executable.display())),
        worker(context),
        gpus(),
        open_files(),
        room("/dev/shm", "shared memory", SHARED_MEMORY, "start the container with --shm-size=1g or more"),
        room(".", "disk here", DISK, "checkpoints of jobs need room; free some, or give --checkpoints another place"),
    ]
}

fn worker(context: &Context) -> Check {
    match Worker::find(context) {
        Ok(worker) => {
            let same = worker.version == env!("CARGO_PKG_VERSION");
            let check = Check::new(
                if same { Verdict::Ok } else { Verdict::Warn },
                format!(
                    "unimse-worker {} starts, its libraries are found, {}",
                    worker.version,
                    worker.program.display()
                ),
            );
            if same { check } else { check.hint(format!("bring it to version {}", env!("CARGO_PKG_VERSION"))) }
        }
        // A laptop that only submits needs no worker.
        Err(error @ Error::NotFound { .. }) => {
            let text = error.to_string();
            let (what, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
            Check::new(Verdict::Skip, format!("{what}: this machine can submit, not train")).hint(hint)
        }
        Err(error) => {
            let text = error.to_string();
            let (what, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
            Check::new(Verdict::Fail, what).hint(hint)
        }
    }
}

fn gpus() -> Check {
    let driver = fs::read_to_string("/proc/driver/nvidia/version").ok();
    let devices = (0..64).take_while(|number| Path::new(&format!("/dev/nvidia{number}")).exists()).count();
    match (driver, devices) {
        (None, _) => Check::new(Verdict::Ok, "no NVIDIA driver: workers here train on the processors"),
        (Some(text), devices) => {
            let version = driver_version(&text).unwrap_or("of unknown version");
            if devices == 0 {
                Check::new(Verdict::Warn, format!("NVIDIA driver {version}, but no GPU is visible"))
                    .hint("a container needs --gpus all")
            } else {
                Check::new(Verdict::Ok, format!("{devices} NVIDIA GPU(s), driver {version}"))
            }
        }
    }
}

/// The first word with a dot and only digits around it.
fn driver_version(text: &str) -> Option<&str> {
    let number = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines().next()?.split_whitespace().find(number)
}

fn open_files() -> Check {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((limit, _)) if limit >= OPEN_FILES => Check::new(Verdict::Ok, format!("{limit} files may be open")),
        Ok((limit, _)) => {
            Check::new(Verdict::Warn, format!("only {limit} files may be open")).hint(format!("ulimit -n {OPEN_FILES}"))
        }
        Err(error) => Check::new(Verdict::Skip, format!("how many files may be open is unknown ({error})")),
    }
}

fn room(path: &str, name: &str, least: u64, hint: &str) -> Check {
    match statvfs(path) {
        Ok(found) => {
            let free = found.blocks_available() * found.fragment_size();
            let what = format!("{} free, {name}", bytes(free));
            if free >= least { Check::new(Verdict::Ok, what) } else { Check::new(Verdict::Warn, what).hint(hint) }
        }
        Err(error) => Check::new(Verdict::Skip, format!("{name}: cannot look at {path} ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_version_is_found_in_its_own_words() {
        let old =
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: ...";
        let new = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build";
        assert_eq!((driver_version(old), driver_version(new)), (Some("550.54.15"), Some("570.86.15")));
        assert_eq!(driver_version(""), None);
    }

    #[test]
    fn too_little_room_is_a_warning_with_a_way_out() {
        assert_eq!(room("/", "disk", 0, "").verdict, Verdict::Ok);
        let full = room("/", "disk", u64::MAX, "free some");
        assert_eq!((full.verdict, full.hint.as_deref()), (Verdict::Warn, Some("free some")));
        assert_eq!(room("/no/such/folder", "disk", 0, "").verdict, Verdict::Skip);
    }
}
