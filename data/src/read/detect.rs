//! Telling formats apart by what files contain; names and endings do not count.

use super::{Format, Source, first_bytes, meld};
use crate::error::Error;

/// Finds the format of a source file.
pub fn detect(source: &Source) -> Result<Format, Error> {
    let mut file = source.open()?;
    let start = first_bytes(&mut file, &source.path, 4096)?;
    let unknown = |problem: &str, hint: &str| Error::Format {
        path: source.path.display().to_string(),
        problem: problem.to_owned(),
        hint: hint.to_owned(),
    };
    let header = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match start.as_slice() {
        [] => Err(unknown("the file is empty", "download it again")),
        [0x80, 0..=5, ..] => Ok(Format::Mmsa),
        _ if start.starts_with(b"ARROW1") => {
            Err(unknown("it is an Arrow file already", "use it as it is, or look at it with `unimse data inspect`"))
        }
        _ if start.starts_with(b"\x89HDF") => Err(unknown(
            "HDF5 files (.csd) are not supported",
            "export the aligned data as an MMSA pickle, as the MMSA platform distributes it",
        )),
        _ if start.starts_with(b"PK\x03\x04") => {
            Err(unknown("zip files and .npz are not supported", "unpack it and import the file inside"))
        }
        _ if meld::is_header(header) => Ok(Format::Meld),
        // Protocols 0 and 1 have no mark; they start by making a dict or a mark, in an unreadable mixture.
        [b'(' | b'}', ..] => Ok(Format::Mmsa),
        _ => Err(unknown(
            "the format is not known",
            "supported are MMSA pickles and the CSV files of MELD; name one with --format mmsa|meld",
        )),
    }
}
