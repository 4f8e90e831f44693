//! Compares an installed folder with the lists of files that its wheels brought along.

use std::fs;
use std::path::{Component, Path};

use anyhow::{Context, Result, bail, ensure};

/// Fails unless every file of every wheel is there with its size, and torch is among the wheels.
pub(super) fn is_complete(folder: &Path) -> Result<()> {
    let mut wheels = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(wheel) = name.strip_suffix(".dist-info") {
            check(folder, &entry.path().join("RECORD")).with_context(|| format!("check {wheel}"))?;
            wheels.push(wheel.to_owned());
        }
    }
    ensure!(wheels.iter().any(|wheel| wheel.starts_with("torch-")), "{} holds no torch", folder.display());
    Ok(())
}

fn check(folder: &Path, record: &Path) -> Result<()> {
    let record = fs::read_to_string(record).with_context(|| format!("read {}", record.display()))?;
    for (path, size) in record.lines().filter_map(entry) {
        // Programs are listed as `../../bin/x`; they go elsewhere with --target and nobody here runs them.
        if Path::new(path).components().any(|part| part == Component::ParentDir) {
            continue;
        }
        match fs::metadata(folder.join(path)) {
            Ok(meta) if meta.len() == size => {}
            Ok(meta) => bail!("{path} has {} bytes instead of {size}", meta.len()),
            Err(_) => bail!("{path} is missing"),
        }
    }
    Ok(())
}

/// Splits a line `path,hash,size`; `None` for files without a size (RECORD itself, compiled Python).
fn entry(line: &str) -> Option<(&str, u64)> {
    let (rest, size) = line.rsplit_once(',')?;
    let (path, _hash) = rest.rsplit_once(',')?;
    Some((path.trim_matches('"'), size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_record_are_understood() {
        assert_eq!(entry("torch/lib/libc10.so,sha256=abc,1234"), Some(("torch/lib/libc10.so", 1234)));
        assert_eq!(entry("\"a,b.py\",sha256=abc,5"), Some(("a,b.py", 5)));
        assert_eq!(entry("torch-2.11.0.dist-info/RECORD,,"), None);
    }

    #[test]
    fn a_missing_or_cut_file_is_found() {
        let folder = std::env::temp_dir().join(format!("unimse-xtask-record-{}", std::process::id()));
        let info = folder.join("torch-2.11.0.dist-info");
        fs::create_dir_all(&info).expect("a scratch folder");
        assert!(is_complete(&folder).is_err(), "without RECORD nothing is known");
        fs::write(info.join("RECORD"), "../../bin/torchrun,sha256=x,9\na.txt,sha256=x,3\n").expect("it writes");
        assert!(format!("{:#}", is_complete(&folder).expect_err("a.txt is missing")).ends_with("a.txt is missing"));
        fs::write(folder.join("a.txt"), "ab").expect("it writes");
        assert!(is_complete(&folder).is_err(), "it is cut");
        fs::write(folder.join("a.txt"), "abc").expect("it writes");
        is_complete(&folder).expect("now it is complete");
        fs::remove_dir_all(&folder).expect("it is ours");
    }
}
