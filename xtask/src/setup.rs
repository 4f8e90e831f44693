//! Makes the machine ready: a second when it is, one download when it is not.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::gpu;
use crate::libtorch::{self, Flavour};
use crate::requirements::{self, Need};
use crate::talk;
use crate::workspace::Workspace;

/// What a person can choose.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Get libtorch for CPUs only, even where a GPU is found
    #[arg(long, conflicts_with = "cuda")]
    cpu: bool,
    /// Get libtorch with CUDA (2.7 GB), even where no GPU is found
    #[arg(long)]
    cuda: bool,
}

/// How much is said when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// Also that all is there.
    Full,
    /// Nothing: another task is what the person asked for.
    OnlyWork,
}

/// Checks and completes what every build needs.
pub(crate) fn run(workspace: &Workspace, options: Options, voice: Voice) -> Result<()> {
    let begun = Instant::now();
    if has_own_libtorch(workspace)? {
        return requirements::check(&[Need::Compiler]);
    }
    let driver = gpu::driver();
    let flavour = if options.cuda || (driver.is_some() && !options.cpu) { Flavour::Cuda } else { Flavour::Cpu };
    // A folder of an older layout may only need its marker, which takes no pip; asking for it all the same costs nobody much.
    let fetches = !libtorch::is_there(&workspace.cache, flavour);
    requirements::check(if fetches { &[Need::Compiler, Need::Pip] } else { &[Need::Compiler] })?;
    let folder = libtorch::provide(&workspace.cache, flavour)?;
    let target = folder.join("torch");
    let linked = link(&workspace.libtorch_link(), &target)?;
    if linked || voice == Voice::Full {
        let why = driver.map_or_else(|| "no GPU driver here".to_owned(), |driver| format!("GPU driver: {driver}"));
        let took = talk::seconds(begun.elapsed());
        talk::say("Ready", &format!("libtorch {} for {flavour} in .libtorch ({why}), {took}", libtorch::VERSION));
    }
    Ok(())
}

/// Recognises a libtorch that somebody put in the place of our link, and leaves it alone.
fn has_own_libtorch(workspace: &Workspace) -> Result<bool> {
    let place = workspace.libtorch_link();
    let own = place.is_dir() && !place.is_symlink();
    if own {
        let version = libtorch::version_of(&place).context("`.libtorch` is a folder but holds no libtorch")?;
        if version != libtorch::VERSION {
            bail!("`.libtorch` holds libtorch {version}, this workspace needs {}; hint: remove it", libtorch::VERSION);
        }
    }
    Ok(own)
}

/// Points `link` to `target`, in one step; tells whether anything changed.
fn link(link: &Path, target: &Path) -> Result<bool> {
    if fs::read_link(link).is_ok_and(|found| found == target) {
        return Ok(false);
    }
    let fresh = link.with_extension(format!("new-{}", std::process::id()));
    std::os::unix::fs::symlink(target, &fresh)
        .and_then(|()| fs::rename(&fresh, link))
        .with_context(|| format!("link {} to {}", link.display(), target.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_made_kept_and_moved() {
        let scratch = std::env::temp_dir().join(format!("unimse-xtask-link-{}", std::process::id()));
        fs::create_dir_all(&scratch).expect("a scratch folder");
        let place = scratch.join(".libtorch");
        for (target, changes) in [("a", true), ("a", false), ("b", true)] {
            assert_eq!(link(&place, Path::new(target)).expect("it links"), changes);
            assert_eq!(fs::read_link(&place).expect("it is a link"), Path::new(target));
        }
        assert_eq!(fs::read_dir(&scratch).expect("it is there").count(), 1, "nothing but the link stays");
        fs::remove_dir_all(&scratch).expect("it is ours");
    }
}
