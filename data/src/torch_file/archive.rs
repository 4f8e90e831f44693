//! The zip archive: which entries there are, and where in the file their bytes begin and end.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use rawzip::{CompressionMethod, RECOMMENDED_BUFFER_SIZE, ZipArchive, ZipArchiveEntryWayfinder, ZipLocator};

use super::fault::TorchFault;
use crate::read::pickle::ReadAt;

/// A published model of 11 billion numbers has some 500 tensors, each with one entry.
const MOST_ENTRIES: usize = 100_000;
/// The longest name of an entry: torch writes the name of the file, `/data/` and a number.
const LONGEST_NAME: usize = 512;
/// The most bytes of a pickle, which holds names and shapes: that of a large model has a few hundred kilobytes.
const LARGEST_PICKLE: u64 = 256 << 20;

/// An archive whose directory has been read.
pub(super) struct Archive {
    source: Arc<dyn ReadAt>,
    length: u64,
    zip: ZipArchive<Bytes>,
    entries: HashMap<String, Entry>,
    /// What all entries begin with, the slash included.
    prefix: String,
}

struct Entry {
    place: ZipArchiveEntryWayfinder,
    /// Whether its bytes are in the file as they are.
    plain: bool,
}

impl Archive {
    /// Reads the directory of an archive, after a look at whether it is one.
    pub(super) fn open(source: Arc<dyn ReadAt>) -> Result<Self, TorchFault> {
        let length = source.length()?;
        let mut head = vec![0; length.min(512) as usize];
        source.read_exact_at(&mut head, 0)?;
        recognise(&head)?;
        let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
        let bytes = Bytes { source: Arc::clone(&source), length };
        let zip = ZipLocator::new().locate_in_reader(bytes, &mut buffer, length).map_err(|(_, cause)| cause)?;
        let entries = directory(&zip, &mut buffer)?;
        let prefix = prefix(&entries)?;
        let archive = Self { source, length, zip, entries, prefix };
        archive.little_endian()?;
        Ok(archive)
    }

    /// The bytes of the pickle.
    pub(super) fn pickle(&self) -> Result<Box<dyn ReadAt>, TorchFault> {
        let span = self.span("data.pkl")?;
        if span.end - span.start > LARGEST_PICKLE {
            return Err(TorchFault::Limit { what: "bytes of data.pkl", limit: LARGEST_PICKLE });
        }
        Ok(Box::new(Section { source: Arc::clone(&self.source), span }))
    }

    /// Where the bytes of a storage are.
    pub(super) fn storage(&self, key: &str) -> Result<Range<u64>, TorchFault> {
        self.span(&format!("data/{key}"))
    }

    fn span(&self, name: &str) -> Result<Range<u64>, TorchFault> {
        let name = format!("{}{name}", self.prefix);
        let Some(entry) = self.entries.get(&name) else {
            return Err(TorchFault::Missing { entry: name });
        };
        if !entry.plain {
            return Err(TorchFault::Packed { entry: name });
        }
        let (start, end) = self.zip.get_entry(entry.place)?.compressed_data_range();
        if end > self.length {
            return Err(TorchFault::Archive(format!("`{name}` ends at byte {end} of {}", self.length)));
        }
        Ok(start..end)
    }

    /// Torch before 2.1 does not say so, and wrote little-endian on every machine that it is published for.
    fn little_endian(&self) -> Result<(), TorchFault> {
        if !self.entries.contains_key(&format!("{}byteorder", self.prefix)) {
            return Ok(());
        }
        let span = self.span("byteorder")?;
        let mut order = vec![0; (span.end - span.start).min(16) as usize];
        self.source.read_exact_at(&mut order, span.start)?;
        if order.trim_ascii() == b"little" {
            return Ok(());
        }
        Err(TorchFault::ByteOrder(String::from_utf8_lossy(&order).into_owned()))
    }
}

fn directory(zip: &ZipArchive<Bytes>, buffer: &mut [u8]) -> Result<HashMap<String, Entry>, TorchFault> {
    let mut found = HashMap::new();
    let mut entries = zip.entries(buffer);
    while let Some(record) = entries.next_entry()? {
        let path = record.file_path();
        if path.len() > LONGEST_NAME {
            return Err(TorchFault::Limit { what: "bytes in the name of an entry", limit: LONGEST_NAME as u64 });
        }
        let name = String::from_utf8(path.as_bytes().to_vec());
        let name = name.map_err(|_| TorchFault::Archive("the name of an entry is not UTF-8".to_owned()))?;
        let plain = record.compression_method() == CompressionMethod::STORE
            && record.compressed_size_hint() == record.uncompressed_size_hint()
            && !record.flags().is_encrypted();
        let entry = Entry { place: record.wayfinder(), plain };
        if found.len() == MOST_ENTRIES {
            return Err(TorchFault::Limit { what: "entries", limit: MOST_ENTRIES as u64 });
        }
        if let Some(entry) = found.insert(name.clone(), entry).map(|_| name) {
            return Err(TorchFault::Repeated { entry });
        }
    }
    let (announced, there) = (zip.entries_hint(), found.len());
    if announced != there as u64 {
        return Err(TorchFault::Archive(format!("{announced} entries are announced, {there} are there")));
    }
    Ok(found)
}

/// The folder of the pickle, which is that of everything else.
fn prefix(entries: &HashMap<String, Entry>) -> Result<String, TorchFault> {
    let folders = || entries.keys().filter_map(|name| name.strip_suffix("data.pkl")).filter(|name| name.ends_with('/'));
    match (folders().next(), folders().count()) {
        (Some(folder), 1) => Ok(folder.to_owned()),
        (None, _) => Err(TorchFault::Missing { entry: "data.pkl".to_owned() }),
        (Some(_), count) => Err(TorchFault::Archive(format!("it has {count} files `data.pkl`"))),
    }
}

/// The number that files of torch before 1.6 begin with, as a pickle has it.
const LEGACY: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Tells files that are often in the place of an archive.
fn recognise(head: &[u8]) -> Result<(), TorchFault> {
    let legacy = head.windows(LEGACY.len()).take(8).any(|window| window == LEGACY);
    let tar = head.get(257..262) == Some(b"ustar");
    if head.starts_with(b"PK\x03\x04") {
        Ok(())
    } else if legacy || tar {
        Err(TorchFault::Legacy)
    } else if head.is_empty() {
        Err(TorchFault::Foreign("it is empty"))
    } else if head.starts_with(b"version https://git-lfs") {
        Err(TorchFault::Foreign("it is a pointer of Git LFS, not the file itself"))
    } else if head.trim_ascii_start().starts_with(b"<") {
        Err(TorchFault::Foreign("it is a web page"))
    } else {
        Err(TorchFault::Foreign("it does not begin as a zip archive does"))
    }
}

/// A file as the zip library wants to see it.
struct Bytes {
    source: Arc<dyn ReadAt>,
    length: u64,
}

impl rawzip::ReaderAt for Bytes {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.length.saturating_sub(offset);
        let count = left.min(buffer.len() as u64) as usize;
        self.source.read_exact_at(&mut buffer[..count], offset)?;
        Ok(count)
    }
}

/// A part of a file, seen as a file.
struct Section {
    source: Arc<dyn ReadAt>,
    span: Range<u64>,
}

impl ReadAt for Section {
    fn length(&self) -> io::Result<u64> {
        Ok(self.span.end - self.span.start)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = self.span.start.checked_add(offset);
        let end = start.and_then(|start| start.checked_add(buffer.len() as u64));
        match start.zip(end) {
            Some((start, end)) if end <= self.span.end => self.source.read_exact_at(buffer, start),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
