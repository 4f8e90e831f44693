//! Reading the files that people write.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// The largest job or sweep file, in bytes.
pub(crate) const LARGEST: u64 = 1 << 20;

/// Reads a job or sweep file; `-` is standard input.
///
/// The size is looked at before anything is read, so a data set given by mistake costs nothing.
pub(crate) fn read(path: &Path) -> Result<String> {
    let fail = |source| Error::file("read", path, source);
    if path == Path::new("-") {
        return decode(path, take(io::stdin().lock()).map_err(fail)?);
    }
    let file = File::open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if metadata.is_dir() {
        let hint = format!("name a file in it: {}/job.yaml", path.display());
        return Err(Error::Usage { message: format!("{} is a folder, not a job or sweep file", path.display()), hint });
    }
    if metadata.len() > LARGEST {
        return Err(too_large(path, Some(metadata.len())));
    }
    // A pipe has no size, and a file may grow while it is read.
    decode(path, take(file).map_err(fail)?)
}

fn take(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn decode(path: &Path, bytes: Vec<u8>) -> Result<String> {
    if bytes.len() as u64 > LARGEST {
        return Err(too_large(path, None));
    }
    String::from_utf8(bytes).map_err(|error| Error::Usage {
        message: format!("{} is not text: byte {} is not UTF-8", path.display(), error.utf8_error().valid_up_to()),
        hint: "job and sweep files are YAML; datasets are imported with `unimse data import`".to_owned(),
    })
}

fn too_large(path: &Path, size: Option<u64>) -> Error {
    let size = size
        .map_or_else(|| "more than".to_owned(), |size| format!("{}, more than", crate::render::amount::bytes(size)));
    Error::Usage {
        message: format!("{} is too large for a job or sweep file: {size} the limit of 1 MiB", path.display()),
        hint: "job and sweep files are a page of YAML; datasets are imported with `unimse data import`".to_owned(),
    }
}

/// How a file is called in messages.
pub(crate) fn source_name(path: &Path) -> String {
    if path == Path::new("-") { "<stdin>".to_owned() } else { path.display().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_huge_file_is_refused_without_being_read() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let path = scratch.path().join("huge.yaml");
        // Sparse: reading it would take 100 GB of memory.
        File::create(&path).and_then(|file| file.set_len(100 << 30)).expect("a sparse file");
        let error = read(&path).expect_err("100 GiB is too large");
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.to_string().contains("100 GiB, more than the limit of 1 MiB"), "{error}");
    }

    #[test]
    fn a_folder_and_a_binary_file_are_told_as_such() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let folder = read(scratch.path()).expect_err("a folder");
        assert!(folder.to_string().contains("is a folder"), "{folder}");
        let path = scratch.path().join("x.yaml");
        std::fs::write(&path, b"ab\xff").expect("it can be written");
        let binary = read(&path).expect_err("not text");
        assert!(binary.to_string().contains("byte 2 is not UTF-8"), "{binary}");
    }
}
