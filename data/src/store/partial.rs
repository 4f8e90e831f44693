//! A file that appears complete or not at all.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::error::Error;

/// A file under construction beside its final place; dropping it without [`PartialFile::commit`] removes it.
pub(super) struct PartialFile {
    path: PathBuf,
    target: PathBuf,
    committed: bool,
}

impl PartialFile {
    /// Creates the file, after sweeping away what processes that are no more have left for the same target.
    pub(super) fn create(target: &Path) -> Result<(Self, File), Error> {
        sweep(target);
        let path = partial_path(target, std::process::id());
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(|cause| Error::io("create", &path, cause))?;
        Ok((Self { path, target: target.to_owned(), committed: false }, file))
    }

    /// Makes the bytes durable, then the name.
    pub(super) fn commit(mut self, file: &File) -> Result<(), Error> {
        file.sync_all().map_err(|cause| Error::io("flush", &self.path, cause))?;
        fs::rename(&self.path, &self.target).map_err(|cause| Error::io("rename", &self.target, cause))?;
        self.committed = true;
        let folder = folder_of(&self.target);
        let synced = File::open(&folder).and_then(|folder| folder.sync_all());
        synced.map_err(|cause| Error::io("flush", &folder, cause))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.committed {
            // Nothing can be done about a failure here; the next import of the same target sweeps the file away.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes what a process that died while writing `target` has left.
pub fn remove_partial(target: &Path, process: u32) {
    let _ = fs::remove_file(partial_path(target, process));
}

fn folder_of(target: &Path) -> PathBuf {
    match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn file_name(target: &Path) -> String {
    target.file_name().map_or_else(|| "store".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn partial_path(target: &Path, process: u32) -> PathBuf {
    folder_of(target).join(format!(".{}.{process}.partial", file_name(target)))
}

fn sweep(target: &Path) {
    let prefix = format!(".{}.", file_name(target));
    let Ok(entries) = fs::read_dir(folder_of(target)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.strip_suffix(".partial"));
        let Some(owner) = owner.and_then(|digits| digits.parse::<i32>().ok()) else { continue };
        if kill(Pid::from_raw(owner), None) == Err(nix::errno::Errno::ESRCH) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
