//! One folder with everything that the GPU check and the GPU benches need beside a driver, python3 and torch.
//!
//! Machines with a GPU are lent for minutes, and may reach nothing: what is carried there has to be small, complete and tried out
//! (`run.sh --cpu`). libtorch is not in it; the programs take the one of torch's wheel, which must have the same release.

mod build;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::workspace::{Workspace, relative, succeeds};
use crate::{libtorch, peers, talk};

/// Bytes that the folder may have.
const LIMIT: u64 = 60 << 20;

/// What is copied as it is, from `xtask/` into the bundle.
const SCRIPTS: [(&str, &str); 4] = [
    ("bundle/run.sh", "run.sh"),
    ("bundle/gpu_bench.py", "gpu_bench.py"),
    ("bundle/t5_folder.py", "t5_folder.py"),
    ("peers/train_step.py", "peers/train_step.py"),
];

/// What a person can choose.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Where it is made; what an earlier run made there is replaced [default: target/gpu-bundle]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Take these programs instead of building them: a folder with `unimse-worker` and `train`
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
}

/// Makes the folder, and fails if it is too large to be carried.
pub(crate) fn make(workspace: &Workspace, options: &Options) -> Result<()> {
    let programs = match &options.programs {
        Some(folder) => build::Programs::in_folder(folder),
        None => build::programs(workspace)?,
    };
    let folder = options.out.clone().unwrap_or_else(|| workspace.target().join("gpu-bundle"));
    clear(&folder)?;
    for (source, name) in [(&programs.worker, "unimse-worker"), (&programs.train, "train")] {
        strip(source, &folder.join(name))?;
    }
    for (source, place) in SCRIPTS {
        let (source, place) = (workspace.root.join("xtask").join(source), folder.join(place));
        let parent = place.parent().context("it lies in the bundle")?;
        fs::create_dir_all(parent)
            .and_then(|()| fs::copy(&source, &place))
            .with_context(|| format!("copy {} to {}", source.display(), place.display()))?;
    }
    let about = json!({"commit": workspace.commit(), "torch": libtorch::VERSION, "transformers": peers::PACKAGES[0]});
    fs::write(folder.join("bundle.json"), format!("{about}\n")).context("write bundle.json")?;
    let bytes = bytes_below(&folder)?;
    fits(bytes)?;
    let shown = relative(&folder, &workspace.root).display();
    talk::say(
        "Made",
        &format!("{shown} ({:.1} MiB): ./run.sh there, or ./run.sh --cpu to try it out", mebibytes(bytes)),
    );
    Ok(())
}

/// Empties the folder, if it is one that this task made.
fn clear(folder: &Path) -> Result<()> {
    if folder.exists() {
        let ours =
            folder.join("bundle.json").is_file() || fs::read_dir(folder).is_ok_and(|mut all| all.next().is_none());
        ensure!(ours, "{} is no bundle; hint: name an empty folder with --out", folder.display());
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    // From here on the folder may be emptied again, also if this run ends early.
    fs::write(folder.join("bundle.json"), "{}\n").with_context(|| format!("write into {}", folder.display()))
}

/// Copies a program without its symbols, which are most of it.
fn strip(source: &Path, place: &Path) -> Result<()> {
    ensure!(source.is_file(), "there is no program {}", source.display());
    if !succeeds(Command::new("strip").arg("-o").arg(place).arg(source)) {
        bail!("{} cannot be stripped; hint: apt install binutils", source.display());
    }
    Ok(())
}

fn bytes_below(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() { bytes_below(&entry.path())? } else { about.len() };
    }
    Ok(bytes)
}

fn fits(bytes: u64) -> Result<()> {
    let over = bytes.saturating_sub(LIMIT);
    ensure!(
        over == 0,
        "the bundle has {:.1} MiB, {:.1} MiB more than the {:.0} MiB that it may have",
        mebibytes(bytes),
        mebibytes(over),
        mebibytes(LIMIT)
    );
    Ok(())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_is_too_large_is_refused_by_how_much() {
        assert!(fits(LIMIT).is_ok());
        let error = fits(LIMIT + (3 << 19)).expect_err("it is too large").to_string();
        assert!(error.contains("61.5 MiB, 1.5 MiB more than the 60 MiB"), "{error}");
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let scratch = std::env::temp_dir().join(format!("unimse-xtask-bundle-{}", std::process::id()));
        clear(&scratch).expect("it is made");
        clear(&scratch).expect("it is a bundle");
        assert_eq!(bytes_below(&scratch).expect("it is there"), 3);
        fs::remove_file(scratch.join("bundle.json")).expect("it is there");
        fs::write(scratch.join("letter"), "dear").expect("it is ours");
        assert!(clear(&scratch).is_err());
        assert!(scratch.join("letter").is_file());
        fs::remove_dir_all(&scratch).expect("it is ours");
    }

    #[test]
    fn every_script_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (source, _) in SCRIPTS {
            assert!(root.join(source).is_file(), "{source}");
        }
    }
}
