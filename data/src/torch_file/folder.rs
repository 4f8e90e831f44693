//! The files of a published model: `pytorch_model.bin`, or the parts that `pytorch_model.bin.index.json` names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::Error;

const WHOLE: &str = "pytorch_model.bin";
const INDEX: &str = "pytorch_model.bin.index.json";
/// An index has a line for each tensor.
const LARGEST_INDEX: u64 = 64 << 20;
/// The largest published models have some hundred parts.
const MOST_PARTS: usize = 10_000;

#[derive(Deserialize)]
struct Index {
    /// Which part each tensor is in.
    weight_map: BTreeMap<String, String>,
}

/// Finds the files of `torch.save` in the folder of a published model, sorted by name; `None` if it has none.
///
/// Where there is a whole file and an index, the whole file is taken.
pub fn torch_files_of(folder: &Path) -> Result<Option<Vec<PathBuf>>, Error> {
    let whole = folder.join(WHOLE);
    if whole.is_file() {
        return Ok(Some(vec![whole]));
    }
    let path = folder.join(INDEX);
    if !path.is_file() {
        return Ok(None);
    }
    let parts = parts(&path)?;
    Ok(Some(parts.into_iter().map(|part| folder.join(part)).collect()))
}

fn parts(path: &Path) -> Result<BTreeSet<String>, Error> {
    let refuse = |problem: String| Error::Format {
        path: path.display().to_string(),
        problem,
        hint: "download it again with the model, whose files it names".to_owned(),
    };
    let file = File::open(path).map_err(|cause| Error::io("open", path, cause))?;
    let mut bytes = Vec::new();
    file.take(LARGEST_INDEX + 1).read_to_end(&mut bytes).map_err(|cause| Error::io("read", path, cause))?;
    if bytes.len() as u64 > LARGEST_INDEX {
        return Err(refuse(format!("it has more than {LARGEST_INDEX} bytes")));
    }
    let index: Index = serde_json::from_slice(&bytes).map_err(|cause| refuse(format!("it is no index: {cause}")))?;
    let parts: BTreeSet<String> = index.weight_map.into_values().collect();
    if let Some(part) = parts.iter().find(|part| !beside(part)) {
        return Err(refuse(format!("it names `{}`, which is no file beside it", part.escape_debug())));
    }
    match parts.len() {
        0 => Err(refuse("it names no files".to_owned())),
        count if count > MOST_PARTS => Err(refuse(format!("it names {count} files, more than {MOST_PARTS}"))),
        _ => Ok(parts),
    }
}

/// Whether a name is that of a file in the same folder, on any system.
fn beside(name: &str) -> bool {
    !name.is_empty() && !matches!(name, "." | "..") && !name.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn a_whole_file_comes_before_parts_and_parts_come_sorted_and_once() {
        let index =
            r#"{"metadata": {"total_size": 9}, "weight_map": {"a": "m-2.bin", "b": "m-1.bin", "c": "m-2.bin"}}"#;
        let names = |files: &[(&str, &str)]| {
            let folder = folder(files);
            let found = torch_files_of(folder.path()).unwrap()?;
            Some(found.iter().map(|path| path.strip_prefix(folder.path()).unwrap().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(names(&[("model.safetensors", "")]), None);
        assert_eq!(names(&[(INDEX, index)]), Some(vec!["m-1.bin".into(), "m-2.bin".into()]));
        assert_eq!(names(&[(INDEX, index), (WHOLE, "")]), Some(vec![WHOLE.into()]));
    }

    #[test]
    fn parts_elsewhere_are_refused() {
        for part in ["../secret.bin", "..", ".", "", "/etc/passwd", "sub/m.bin", r"..\\m.bin", r"m\u0000.bin"] {
            let folder = folder(&[(INDEX, &format!(r#"{{"weight_map": {{"a": "m.bin", "b": "{part}"}}}}"#))]);
            let error = torch_files_of(folder.path()).unwrap_err().to_string();
            assert!(error.contains("which is no file beside it"), "{part}: {error}");
        }
        for (index, problem) in [
            ("{}", "missing field `weight_map`"),
            (r#"{"weight_map": {}}"#, "it names no files"),
            (r#"{"weight_map": {"a": 1}}"#, "it is no index"),
            ("", "it is no index"),
        ] {
            let folder = folder(&[(INDEX, index)]);
            let error = torch_files_of(folder.path()).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("hint: "), "{error}");
        }
    }
}
