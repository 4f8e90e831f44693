//! The element types of numpy arrays.

use half::f16;

use super::fault::PickleFault;
use super::literal::shorten;

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A floating-point number of 2, 4 or 8 bytes.
    Float(u8),
    /// A signed integer of 1, 2, 4 or 8 bytes.
    Int(u8),
    /// An unsigned integer of 1, 2, 4 or 8 bytes.
    Uint(u8),
    /// A boolean, one byte.
    Bool,
    /// A string of so many bytes, padded with zeros.
    Bytes(u32),
    /// A string of so many code points of four bytes, padded with zeros.
    Unicode(u32),
    /// A Python object; the array's data is a list.
    Object,
}

/// The element type of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dtype {
    /// What an element is.
    pub kind: Kind,
    /// Whether its bytes come in the order of big-endian machines.
    pub big_endian: bool,
}

impl Dtype {
    /// Reads a type code such as `f4`, `<U10` or `O8`.
    pub(super) fn parse(code: &str) -> Result<Self, PickleFault> {
        let unsupported = || PickleFault::Dtype(shorten(code));
        let (big_endian, rest) = match code.as_bytes() {
            [b'>', ..] => (true, &code[1..]),
            [b'<' | b'=' | b'|', ..] => (false, &code[1..]),
            _ => (false, code),
        };
        let letter = rest.chars().next().ok_or_else(unsupported)?;
        let size: u32 = match &rest[letter.len_utf8()..] {
            "" => 0,
            digits => digits.parse().map_err(|_| unsupported())?,
        };
        let kind = match (letter, size) {
            ('f', 2 | 4 | 8) => Kind::Float(size as u8),
            ('i', 1 | 2 | 4 | 8) => Kind::Int(size as u8),
            ('u', 1 | 2 | 4 | 8) => Kind::Uint(size as u8),
            ('b', 1) | ('?', 0) => Kind::Bool,
            ('S' | 'a', _) => Kind::Bytes(size),
            ('U', _) => Kind::Unicode(size),
            ('O', _) => Kind::Object,
            _ => return Err(unsupported()),
        };
        Ok(Self { kind, big_endian })
    }

    /// Sets the size of a string type, which numpy tells in the state of the type.
    pub(super) fn set_item_size(&mut self, bytes: i64) {
        let Ok(bytes) = u32::try_from(bytes) else { return };
        match &mut self.kind {
            Kind::Bytes(size) => *size = bytes,
            Kind::Unicode(size) => *size = bytes / 4,
            _ => {}
        }
    }

    /// The bytes an element takes; 0 for objects.
    pub fn item_size(self) -> u64 {
        match self.kind {
            Kind::Float(size) | Kind::Int(size) | Kind::Uint(size) => u64::from(size),
            Kind::Bool => 1,
            Kind::Bytes(size) => u64::from(size),
            Kind::Unicode(size) => u64::from(size) * 4,
            Kind::Object => 0,
        }
    }

    /// Whether elements are numbers.
    pub fn is_number(self) -> bool {
        matches!(self.kind, Kind::Float(_) | Kind::Int(_) | Kind::Uint(_) | Kind::Bool)
    }

    /// Reads a number from its [`Dtype::item_size`] bytes; `None` if elements are not numbers.
    pub(super) fn number(self, bytes: &[u8]) -> Option<f64> {
        let mut word = [0; 8];
        let size = bytes.len();
        word.get_mut(..size)?.copy_from_slice(bytes);
        if self.big_endian {
            word[..size].reverse();
        }
        let raw = u64::from_le_bytes(word);
        match self.kind {
            Kind::Float(2) => Some(f16::from_bits(raw as u16).to_f64()),
            Kind::Float(4) => Some(f64::from(f32::from_bits(raw as u32))),
            Kind::Float(_) => Some(f64::from_bits(raw)),
            Kind::Int(1) => Some(f64::from(raw as u8 as i8)),
            Kind::Int(2) => Some(f64::from(raw as u16 as i16)),
            Kind::Int(4) => Some(f64::from(raw as u32 as i32)),
            Kind::Int(_) => Some(raw as i64 as f64),
            Kind::Uint(_) => Some(raw as f64),
            Kind::Bool => Some(f64::from(u8::from(raw != 0))),
            Kind::Bytes(_) | Kind::Unicode(_) | Kind::Object => None,
        }
    }

    /// Reads a string from its bytes; `None` if elements are not strings or the bytes are not text.
    pub(super) fn text(self, bytes: &[u8]) -> Option<String> {
        match self.kind {
            Kind::Bytes(_) => {
                let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                Some(super::super::text::decode(&bytes[..end]))
            }
            Kind::Unicode(_) => {
                let (points, _) = bytes.as_chunks::<4>();
                let points = points
                    .iter()
                    .map(|point| if self.big_endian { u32::from_be_bytes(*point) } else { u32::from_le_bytes(*point) });
                let text: String = points.map(char::from_u32).collect::<Option<_>>()?;
                Some(text.trim_end_matches('\0').to_owned())
            }
            _ => None,
        }
    }
}
