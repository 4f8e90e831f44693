//! Arrays in `.npy` files, seen like those in pickles.
//!
//! A file is the mark, a version, the length of a header, the header, which is a Python dict in words
//! (`{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`), and the elements.

use super::array::Array;
use super::dtype::{Dtype, Kind};
use super::fault::{PickleError, PickleFault};
use super::machine::Limits;
use super::source::{Blob, ReadAt};
use super::value::{Document, Node};

const MARK: &[u8] = b"\x93NUMPY";
/// Numpy itself refuses longer ones.
const MAX_HEADER: u64 = 10_000;

impl Document {
    /// Reads an array of numbers or strings from an `.npy` file; it is the root.
    pub(crate) fn npy(source: Box<dyn ReadAt>) -> Result<Self, PickleError> {
        let array = array(source.as_ref()).map_err(|fault| PickleError { offset: 0, fault })?;
        Ok(Self::of_node(source, Node::Array(Box::new(array)), Limits::default().text))
    }
}

fn array(source: &dyn ReadAt) -> Result<Array, PickleFault> {
    let read = |bytes: &mut [u8], offset| {
        source.read_exact_at(bytes, offset).map_err(|_| PickleFault::Truncated { needed: bytes.len() as u64, left: 0 })
    };
    let length = source.length().map_err(|cause| PickleFault::Io(cause.to_string()))?;
    let mut start = [0; 12];
    read(&mut start[..10], 0)?;
    if !start.starts_with(MARK) {
        return Err(PickleFault::Unsupported("a file without the mark of .npy".to_owned()));
    }
    let (from, header) = if start[6] == 1 {
        (10, u64::from(u16::from_le_bytes([start[8], start[9]])))
    } else {
        read(&mut start, 0)?;
        (12, u64::from(u32::from_le_bytes([start[8], start[9], start[10], start[11]])))
    };
    if header > MAX_HEADER {
        return Err(PickleFault::Limit { what: "bytes of header", limit: MAX_HEADER });
    }
    let mut text = vec![0; header as usize];
    read(&mut text, from)?;
    let text = String::from_utf8(text).map_err(|_| PickleFault::BadText)?;
    let dtype = Dtype::parse(quoted(field(&text, "descr")?)?)?;
    if dtype.kind == Kind::Object {
        return Err(PickleFault::Dtype("O in an .npy file".to_owned()));
    }
    let fortran = field(&text, "fortran_order")?.starts_with("True");
    let shape = shape(field(&text, "shape")?)?;
    let offset = from + header;
    Array::of_bytes(dtype, shape, fortran, Blob::Range { offset, length: length.saturating_sub(offset) })
}

/// What follows a key of the header.
fn field<'t>(header: &'t str, key: &str) -> Result<&'t str, PickleFault> {
    let rest = header.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
    rest.ok_or_else(|| PickleFault::Unsupported(format!("a header of .npy without `{key}`")))
}

fn quoted(text: &str) -> Result<&str, PickleFault> {
    let code = text.strip_prefix('\'').and_then(|rest| rest.split('\'').next());
    code.ok_or_else(|| PickleFault::Dtype("a structured type".to_owned()))
}

fn shape(text: &str) -> Result<Vec<u64>, PickleFault> {
    let inside = text.strip_prefix('(').and_then(|rest| rest.split(')').next());
    let inside = inside.ok_or_else(|| PickleFault::Shape("a header of .npy without a shape".to_owned()))?;
    let axes = inside.split(',').map(str::trim).filter(|axis| !axis.is_empty());
    axes.map(|axis| axis.parse().map_err(|_| PickleFault::BadNumber(axis.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let length = (header.len() as u16).to_le_bytes();
        [MARK, &[1, 0], &length, header.as_bytes(), data].concat()
    }

    #[test]
    fn an_array_is_read_in_either_order_of_bytes_and_axes() {
        let header = "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }\n";
        let data: Vec<u8> = (1..=6_i16).flat_map(i16::to_be_bytes).collect();
        let document = Document::npy(Box::new(file(header, &data))).unwrap();
        let numbers = document.root().numbers().unwrap().unwrap();
        assert_eq!(numbers.shape(), [2, 3]);
        assert_eq!(numbers.all().unwrap(), [1., 3., 5., 2., 4., 6.]);
    }

    #[test]
    fn broken_files_are_refused() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n";
        let fault = |bytes: Vec<u8>| Document::npy(Box::new(bytes)).unwrap_err().fault.to_string();
        assert!(fault(file(header, &[0; 7])).contains("has 7 bytes"));
        assert!(fault(file("{'descr': '|O', 'fortran_order': False, 'shape': (), }", &[])).contains('O'));
        assert!(fault(file("{}", &[])).contains("without `descr`"));
        assert!(fault(b"\x93NUMPY\x01\x00".to_vec()).contains("bytes are claimed"));
        assert!(
            fault(file("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999, 9999), }", &[]))
                .contains("impossible")
        );
    }
}
