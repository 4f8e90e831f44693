//! Bytes that can be read at any position.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A source of bytes with a fixed length.
pub trait ReadAt: Send + Sync {
    /// The number of bytes.
    fn length(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset`, or fails.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl ReadAt for Vec<u8> {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let end = start.and_then(|start| start.checked_add(buffer.len()));
        let found = start.zip(end).and_then(|(start, end)| self.get(start..end));
        let found = found.ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }
}

impl fmt::Debug for dyn ReadAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadAt({:?} bytes)", self.length().ok())
    }
}

/// A string of bytes: in memory if it is short, else still in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Blob {
    Inline(Box<[u8]>),
    Range { offset: u64, length: u64 },
}

impl Blob {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Range { length, .. } => *length,
        }
    }

    /// Reads `buffer.len()` bytes from `start` of the string.
    pub(super) fn read(&self, source: &dyn ReadAt, start: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Inline(bytes) => {
                let start = usize::try_from(start).map_err(|_| io::ErrorKind::UnexpectedEof)?;
                let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
                buffer.copy_from_slice(bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            Self::Range { offset, length } => {
                let fits = start.checked_add(buffer.len() as u64).is_some_and(|end| end <= *length);
                if !fits {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                source.read_exact_at(buffer, offset + start)
            }
        }
    }
}
