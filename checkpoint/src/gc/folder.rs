//! What a folder holds that an object store's listing does not show: staging files of killed writers and empty folders.
//!
//! The local store writes `key#1` beside `key` and renames it at the end. All of this is best effort: a folder that cannot be
//! removed harms nobody.

use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use unimse_core::id::JobId;
use unimse_core::time::Timestamp;

use super::Deleted;
use crate::key::{AttemptKey, ManifestKey};

/// Finds staging files of shards: the try, the size in bytes and the age of each.
pub(super) fn staged(root: &Path, job: Option<JobId>) -> Vec<(AttemptKey, u64, Timestamp)> {
    let jobs = match job {
        Some(job) => vec![root.join(job.to_string())],
        None => folders(root),
    };
    let attempts = jobs.iter().flat_map(|job| folders(job)).flat_map(|step| folders(&step));
    attempts
        .flat_map(|attempt| files(&attempt))
        .filter(|file| is_staging(file))
        .filter_map(|file| {
            let key = object_store::path::Path::from(file.strip_prefix(root).ok()?.to_str()?);
            let meta = fs::metadata(&file).ok()?;
            let age = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            Some((AttemptKey::containing(&key)?, meta.len(), Timestamp(age.as_millis() as u64)))
        })
        .collect()
}

/// Removes staging files and empty folders that a deleted checkpoint leaves.
pub(super) fn tidy(root: &Path, key: &ManifestKey) {
    let step = root.join(key.step_prefix().as_ref());
    for attempt in folders(&step) {
        let relative = attempt.strip_prefix(root).ok().and_then(Path::to_str).unwrap_or_default();
        let any = object_store::path::Path::from(relative).join("any");
        if let Some(found) = AttemptKey::containing(&any).filter(|found| found.checkpoint == *key) {
            tidy_attempt(root, &found);
        }
    }
    let manifest = format!("{}#", root.join(key.path().as_ref()).display());
    for file in files(&step).iter().filter(|file| file.to_string_lossy().starts_with(&manifest)) {
        let _ = fs::remove_file(file);
    }
    let _ = fs::remove_dir(&step);
    let _ = fs::remove_dir(root.join(key.job.to_string()));
}

/// Removes the staging files of one try and its folder, if that is then empty.
pub(super) fn tidy_attempt(root: &Path, attempt: &AttemptKey) -> Deleted {
    let folder = root.join(attempt.prefix().as_ref());
    let mut deleted = Deleted::default();
    for file in files(&folder).iter().filter(|file| is_staging(file)) {
        let bytes = fs::metadata(file).map_or(0, |meta| meta.len());
        if fs::remove_file(file).is_ok() {
            deleted.objects += 1;
            deleted.bytes += bytes;
        }
    }
    let _ = fs::remove_dir(&folder);
    let _ = fs::remove_dir(root.join(attempt.checkpoint.step_prefix().as_ref()));
    deleted
}

fn is_staging(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.rsplit_once('#').is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

fn folders(below: &Path) -> Vec<std::path::PathBuf> {
    entries(below, fs::FileType::is_dir)
}

fn files(below: &Path) -> Vec<std::path::PathBuf> {
    entries(below, fs::FileType::is_file)
}

fn entries(below: &Path, kind: impl Fn(&fs::FileType) -> bool) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(below) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|found| kind(&found)))
        .map(|entry| entry.path())
        .collect()
}
