//! libtorch from the wheels on `PyPI`: fetched once for all checkouts, whole or not at all.
//!
//! `cargo xtask` may be stopped at any moment and started twice at once. So pip fills a folder beside the final one, every
//! file is compared with the wheels' own lists, a marker is written, and only then the folder gets its name; a lock keeps
//! a second run waiting.

mod pip;
mod record;

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::talk::{self, Progress};

/// The release that the bindings (tch 0.24) are made for.
pub(crate) const VERSION: &str = "2.11.0";

const MARKER: &str = ".unimse-complete.json";

/// Which wheels are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// Three wheels: libtorch and the two CUDA libraries without which even its CPU half does not load.
    Cpu,
    /// The same libtorch with all of CUDA, cuDNN and NCCL.
    Cuda,
}

impl Flavour {
    fn folder(self) -> String {
        let kind = match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        };
        format!("libtorch-{VERSION}-{kind}")
    }

    fn requirements(self) -> &'static [&'static str] {
        match self {
            Self::Cpu => &["torch==2.11.0", "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"],
            Self::Cuda => &["torch==2.11.0"],
        }
    }

    fn size(self) -> &'static str {
        match self {
            Self::Cpu => "530 MB to fetch, 1.2 GB on disk",
            Self::Cuda => "2.7 GB to fetch",
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "CPUs",
            Self::Cuda => "GPUs",
        })
    }
}

/// What a complete folder says about itself.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    version: String,
    requirements: Vec<String>,
}

impl Marker {
    fn new(flavour: Flavour) -> Self {
        let requirements = flavour.requirements().iter().map(|&requirement| requirement.to_owned()).collect();
        Self { version: VERSION.to_owned(), requirements }
    }

    fn is_in(&self, folder: &Path) -> bool {
        let found = fs::read(folder.join(MARKER)).ok().and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        found.as_ref() == Some(self) && has_libraries(&folder.join("torch"))
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let (fresh, place) = (folder.join(format!("{MARKER}.new")), folder.join(MARKER));
        fs::write(&fresh, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&fresh, &place))
            .with_context(|| format!("write {}", place.display()))
    }
}

/// Tells whether nothing has to be fetched.
pub(crate) fn is_there(cache: &Path, flavour: Flavour) -> bool {
    Marker::new(flavour).is_in(&cache.join(flavour.folder()))
}

/// Gives the folder of a complete libtorch, after fetching it if need be.
pub(crate) fn provide(cache: &Path, flavour: Flavour) -> Result<PathBuf> {
    let folder = cache.join(flavour.folder());
    let marker = Marker::new(flavour);
    if marker.is_in(&folder) {
        return Ok(folder);
    }
    fs::create_dir_all(cache).with_context(|| format!("create {}", cache.display()))?;
    let _lock = lock(&cache.join("libtorch.lock"))?;
    // Whoever held the lock may have done all the work.
    if marker.is_in(&folder) {
        return Ok(folder);
    }
    remove_leftovers(cache, flavour);
    if folder.exists() {
        if record::is_complete(&folder).is_ok() && version_of(&folder.join("torch")).as_deref() == Some(VERSION) {
            marker.write(&folder)?;
            return Ok(folder);
        }
        talk::warn("Replacing", &format!("{}, which is not complete", folder.display()));
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fetch(&folder, flavour, &marker)?;
    Ok(folder)
}

fn fetch(folder: &Path, flavour: Flavour, marker: &Marker) -> Result<()> {
    let (system, machine) = (std::env::consts::OS, std::env::consts::ARCH);
    if (system, machine) != ("linux", "x86_64") {
        bail!(
            "libtorch is fetched for x86_64 Linux only, this is {machine} {system}; hint: put a libtorch {VERSION} in \
             `.libtorch` yourself"
        );
    }
    let partial = folder.with_file_name(format!("{}.partial-{}", flavour.folder(), std::process::id()));
    let mut progress = Progress::begin("Fetching", &format!("libtorch {VERSION} for {flavour} ({})", flavour.size()));
    let filled = fill(&partial, flavour, &mut progress);
    let took = talk::seconds(progress.end());
    if let Err(error) = filled.and_then(|()| marker.write(&partial)) {
        // A run that is killed cannot do this; the next one then does.
        let _ = fs::remove_dir_all(&partial);
        return Err(error);
    }
    fs::rename(&partial, folder).with_context(|| format!("move the finished folder to {}", folder.display()))?;
    talk::say("Fetched", &format!("{} in {took}", folder.display()));
    Ok(())
}

fn fill(partial: &Path, flavour: Flavour, progress: &mut Progress) -> Result<()> {
    pip::install(partial, flavour.requirements(), flavour == Flavour::Cuda, |megabytes| {
        progress.update(&format!("{megabytes} MB on disk"));
    })?;
    record::is_complete(partial).context("the fetched libtorch is not complete")?;
    match version_of(&partial.join("torch")) {
        Some(found) if found == VERSION => Ok(()),
        found => bail!("the fetched libtorch has version {}, not {VERSION}", found.as_deref().unwrap_or("unknown")),
    }
}

/// Waits for other runs that work in the same folder.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            talk::say("Waiting", "for another set-up to end");
            file.lock().with_context(|| format!("lock {}", path.display()))?;
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {}", path.display())),
    }
    Ok(file)
}

/// Removes what interrupted runs left; only the holder of the lock may, since nobody else is at work then.
fn remove_leftovers(cache: &Path, flavour: Flavour) {
    let prefix = format!("{}.partial-", flavour.folder());
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)) {
        let _ = fs::remove_dir_all(entry.path());
    }
}

fn has_libraries(torch: &Path) -> bool {
    ["libtorch_cpu.so", "libc10.so", "libtorch.so"].iter().all(|library| torch.join("lib").join(library).is_file())
}

/// Reads the release of an unpacked libtorch, without the build's suffix: wheels and archives tell it in different files.
pub(crate) fn version_of(torch: &Path) -> Option<String> {
    if !has_libraries(torch) {
        return None;
    }
    let full = match fs::read_to_string(torch.join("version.py")) {
        Ok(text) => {
            text.lines().find_map(|line| line.strip_prefix("__version__ = '"))?.trim_end_matches('\'').to_owned()
        }
        Err(_) => fs::read_to_string(torch.join("build-version")).ok()?,
    };
    full.trim().split('+').next().map(ToOwned::to_owned)
}
