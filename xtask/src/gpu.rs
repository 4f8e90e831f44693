//! Finds out whether there is a GPU, and checks what only a GPU can show.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{programs, talk};

/// Where distributions, containers and WSL put the driver's library.
const DRIVER_FOLDERS: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/lib/wsl/lib",
    "/usr/local/nvidia/lib64",
    "/usr/local/cuda/compat",
];

/// Finds an NVIDIA driver and tells what gave it away; asks nothing of it.
pub(crate) fn driver() -> Option<String> {
    let listing = Command::new("nvidia-smi").arg("-L").output().ok().filter(|output| output.status.success());
    if let Some(first) =
        listing.and_then(|output| String::from_utf8(output.stdout).ok()?.lines().next().map(first_part))
    {
        return Some(first);
    }
    let library = DRIVER_FOLDERS.iter().map(|folder| Path::new(folder).join("libcuda.so.1")).find(|path| path.exists());
    library.map(|path| path.display().to_string())
}

/// Cuts `GPU 0: NVIDIA H100 (UUID: ...)` before the part that is nobody's business.
fn first_part(line: &str) -> String {
    line.split(" (UUID").next().unwrap_or(line).to_owned()
}

/// Builds the worker and lets it check this machine's GPUs; without any, there is nothing to check.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let Some(driver) = driver() else {
        talk::say("Skipped", "no NVIDIA GPU or driver here, so there is nothing to check");
        return Ok(());
    };
    talk::say("Checking", &driver);
    let programs = programs::build(workspace)?;
    let status = Command::new(programs.join("unimse-worker"))
        .arg("gpu-check")
        .current_dir(&workspace.root)
        .status()
        .context("run unimse-worker gpu-check")?;
    if !status.success() {
        bail!("the GPU check failed ({status})");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serial_number_of_a_gpu_is_not_shown() {
        assert_eq!(first_part("GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1234)"), "GPU 0: NVIDIA H100 80GB HBM3");
    }
}
