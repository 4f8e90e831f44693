//! The bytes of a pickle in order, with every length checked before it is believed.

use super::fault::PickleFault;
use super::source::{Blob, ReadAt};

const BUFFER: usize = 64 * 1024;
/// Byte strings from this length on stay in the file.
const INLINE: u64 = 16 * 1024;

/// A buffered reader that knows where it is and how much is left.
pub(super) struct Input<'s> {
    source: &'s dyn ReadAt,
    length: u64,
    position: u64,
    buffer: Vec<u8>,
    buffer_start: u64,
}

impl<'s> Input<'s> {
    pub(super) fn new(source: &'s dyn ReadAt) -> Result<Self, PickleFault> {
        let length = source.length().map_err(|cause| PickleFault::Io(cause.to_string()))?;
        Ok(Self { source, length, position: 0, buffer: Vec::new(), buffer_start: 0 })
    }

    pub(super) fn source(&self) -> &'s dyn ReadAt {
        self.source
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    fn left(&self) -> u64 {
        self.length - self.position
    }

    pub(super) fn claim(&self, needed: u64) -> Result<(), PickleFault> {
        if needed > self.left() { Err(PickleFault::Truncated { needed, left: self.left() }) } else { Ok(()) }
    }

    /// Makes sure that `count` bytes (not more than the buffer) from the position are buffered.
    fn buffered(&mut self, count: usize) -> Result<&[u8], PickleFault> {
        self.claim(count as u64)?;
        let mut start = (self.position - self.buffer_start) as usize;
        if self.position < self.buffer_start || start + count > self.buffer.len() {
            let size = self.left().min(BUFFER as u64) as usize;
            self.buffer.resize(size, 0);
            let read = self.source.read_exact_at(&mut self.buffer, self.position);
            read.map_err(|cause| PickleFault::Io(cause.to_string()))?;
            self.buffer_start = self.position;
            start = 0;
        }
        Ok(&self.buffer[start..start + count])
    }

    pub(super) fn byte(&mut self) -> Result<u8, PickleFault> {
        let byte = self.buffered(1)?[0];
        self.position += 1;
        Ok(byte)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleFault> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.buffered(N)?);
        self.position += N as u64;
        Ok(bytes)
    }

    /// Reads a short string of bytes.
    pub(super) fn bytes(&mut self, length: u64) -> Result<Box<[u8]>, PickleFault> {
        self.claim(length)?;
        let mut bytes = vec![0; length as usize].into_boxed_slice();
        if bytes.len() <= BUFFER {
            bytes.copy_from_slice(self.buffered(bytes.len())?);
        } else {
            let read = self.source.read_exact_at(&mut bytes, self.position);
            read.map_err(|cause| PickleFault::Io(cause.to_string()))?;
        }
        self.position += length;
        Ok(bytes)
    }

    /// Takes a string of bytes, which stays where it is if it is long.
    pub(super) fn blob(&mut self, length: u64) -> Result<Blob, PickleFault> {
        if length < INLINE {
            return Ok(Blob::Inline(self.bytes(length)?));
        }
        self.claim(length)?;
        let offset = self.position;
        self.position += length;
        Ok(Blob::Range { offset, length })
    }

    /// Reads up to a line feed, which is not returned.
    pub(super) fn line(&mut self, limit: u64) -> Result<Vec<u8>, PickleFault> {
        let mut line = Vec::new();
        loop {
            let byte = self.byte()?;
            if byte == b'\n' {
                return Ok(line);
            }
            if line.len() as u64 >= limit {
                return Err(PickleFault::Limit { what: "bytes in a line", limit });
            }
            line.push(byte);
        }
    }
}
