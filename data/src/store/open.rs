//! Opening a store and reading its samples.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_ipc::{Block, MetadataVersion, root_as_footer, root_as_message};

use super::layout::{HEAD_COLUMNS, Head, first_feature_buffer, number_at, schema, text_at, value_buffers};
use super::seal::{BATCHES_KEY, BatchEntry, END_OF_STREAM, HEADER_BYTES, content_hash};
use crate::error::Error;
use crate::schema::{Features, Labels, Metadata, Sample, Split};

/// A footer larger than this is not one of ours.
const MAX_FOOTER: usize = 256 << 20;
const TRAILER: usize = 10;

/// An open dataset: text and labels in memory, features read when asked for. Can be shared between threads.
pub struct Store {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
    pub(super) batches: Vec<Batch>,
    rows: [Vec<usize>; 3],
    len: usize,
}

pub(super) struct Batch {
    pub(super) entry: BatchEntry,
    pub(super) first_row: usize,
    pub(super) head: Head,
    acoustic: Placed,
    visual: Placed,
    verified: AtomicBool,
}

/// Where in the file the values of each row of a feature column start.
struct Placed {
    starts: Vec<u64>,
    dim: usize,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).field("metadata", &self.metadata).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens a store; verifies its metadata, its lengths, and the hashes of all that is read now.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|cause| Error::io("open", path, cause))?;
        let (metadata, entries) = read_footer(&file, path)?;
        let mut batches = Vec::with_capacity(entries.len());
        let mut first_row = 0;
        for entry in entries {
            let rows = entry.rows;
            let batch = read_batch(&file, entry, first_row, &metadata);
            batches.push(batch.map_err(|problem| damaged(path, format!("batch {}: {problem}", batches.len())))?);
            first_row += rows;
        }
        let rows = rows_by_split(&batches).map_err(|problem| damaged(path, problem))?;
        for split in Split::ALL {
            let (found, told) = (rows[split as usize].len(), metadata.counts.of(split));
            if found != told {
                return Err(damaged(path, format!("split `{split}` has {found} samples, its metadata says {told}")));
            }
        }
        Ok(Self { file, path: path.to_owned(), metadata, batches, rows, len: first_row })
    }

    /// What the store says about itself.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Where the store lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of samples of all splits.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no sample at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The rows of a split in the order of the source.
    pub fn rows(&self, split: Split) -> &[usize] {
        &self.rows[split as usize]
    }

    /// The id of a row, as in the source file.
    ///
    /// # Panics
    /// This and the other readers of a row panic if `row` is not below [`Store::len`].
    pub fn id(&self, row: usize) -> &str {
        let (batch, row) = self.locate(row);
        batch.head.id.value(row)
    }

    /// The utterance alone.
    pub fn text(&self, row: usize) -> &str {
        let (batch, row) = self.locate(row);
        batch.head.text.value(row)
    }

    /// The words that the model reads: with context where there is one.
    pub fn source_text(&self, row: usize) -> &str {
        let (batch, row) = self.locate(row);
        text_at(&batch.head.context, row).unwrap_or_else(|| batch.head.text.value(row))
    }

    /// The labels of a row, without reading its features.
    pub fn labels(&self, row: usize) -> Labels {
        let (batch, row) = self.locate(row);
        batch.head.labels(row)
    }

    /// The true lengths of a row's acoustic and visual sequences, without reading them.
    pub fn frames(&self, row: usize) -> (Option<usize>, Option<usize>) {
        let (batch, row) = self.locate(row);
        let length = |column| number_at(column, row).map(|frames| frames as usize);
        (length(&batch.head.acoustic_frames), length(&batch.head.visual_frames))
    }

    /// Reads a sample with its features; the batch that holds it is verified the first time.
    pub fn sample(&self, row: usize) -> Result<Sample, Error> {
        let (batch, row) = self.locate(row);
        let head = &batch.head;
        let owned = |column| text_at(column, row).map(str::to_owned);
        let split = head.split.value(row).parse().map_err(|problem| damaged(&self.path, problem))?;
        Ok(Sample {
            id: head.id.value(row).to_owned(),
            split,
            text: head.text.value(row).to_owned(),
            context: owned(&head.context),
            speaker: owned(&head.speaker),
            dialogue: owned(&head.dialogue),
            turn: number_at(&head.turn, row),
            labels: head.labels(row),
            acoustic: self.features(batch, &batch.acoustic, number_at(&head.acoustic_frames, row), row)?,
            visual: self.features(batch, &batch.visual, number_at(&head.visual_frames, row), row)?,
        })
    }

    fn locate(&self, row: usize) -> (&Batch, usize) {
        assert!(row < self.len, "row {row} of a store of {} samples", self.len);
        let index = self.batches.partition_point(|batch| batch.first_row + batch.entry.rows <= row);
        let batch = &self.batches[index];
        (batch, row - batch.first_row)
    }

    fn features(
        &self,
        batch: &Batch,
        placed: &Placed,
        frames: Option<i32>,
        row: usize,
    ) -> Result<Option<Features>, Error> {
        let Some(frames) = frames else { return Ok(None) };
        if !batch.verified.load(Ordering::Acquire) {
            self.verify(&batch.entry)?;
            batch.verified.store(true, Ordering::Release);
        }
        let frames = frames as usize;
        let mut bytes = vec![0; frames * placed.dim * size_of::<f32>()];
        let read = self.file.read_exact_at(&mut bytes, placed.starts[row]);
        read.map_err(|cause| Error::io("read", &self.path, cause))?;
        let values = bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        Ok(Features::try_new(frames, placed.dim, values))
    }

    /// Compares the bytes of a batch with their hash.
    pub(super) fn verify(&self, entry: &BatchEntry) -> Result<(), Error> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        let mut done = 0;
        while done < entry.bytes {
            let chunk = (entry.bytes - done).min(buffer.len() as u64) as usize;
            let read = self.file.read_exact_at(&mut buffer[..chunk], entry.offset + done);
            read.map_err(|cause| Error::io("read", &self.path, cause))?;
            hasher.update(&buffer[..chunk]);
            done += chunk as u64;
        }
        if hasher.finalize().to_hex().as_str() == entry.hash {
            return Ok(());
        }
        Err(damaged(&self.path, format!("the {} bytes from byte {} have another hash", entry.bytes, entry.offset)))
    }
}

pub(super) fn damaged(path: &Path, problem: String) -> Error {
    Error::Damaged { path: path.display().to_string(), problem }
}

fn read_at(file: &File, offset: u64, length: usize) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset).map_err(|cause| format!("{length} bytes at {offset}: {cause}"))?;
    Ok(bytes)
}

/// Reads and checks everything after the last batch.
fn read_footer(file: &File, path: &Path) -> Result<(Metadata, Vec<BatchEntry>), Error> {
    let not_a_store = |problem: String| Error::NotAStore { path: path.display().to_string(), problem };
    let length = file.metadata().map_err(|cause| Error::io("read", path, cause))?.len();
    if length < (HEADER_BYTES + END_OF_STREAM.len() + TRAILER) as u64 {
        return Err(not_a_store(format!("it has only {length} bytes")));
    }
    let trailer = read_at(file, length - TRAILER as u64, TRAILER).map_err(not_a_store)?;
    let trailer = trailer.try_into().expect("ten bytes were read");
    let footer_length = read_footer_length(trailer)
        .map_err(|_| not_a_store("it does not end like an Arrow file; it may have been cut short".to_owned()))?;
    let room = length as usize - HEADER_BYTES - END_OF_STREAM.len() - TRAILER;
    if footer_length > room.min(MAX_FOOTER) {
        return Err(not_a_store(format!("its footer claims {footer_length} bytes")));
    }
    let footer_start = length - (TRAILER + footer_length) as u64;
    let bytes = read_at(file, footer_start, footer_length).map_err(not_a_store)?;
    let footer = root_as_footer(&bytes).map_err(|cause| not_a_store(format!("its footer is invalid: {cause}")))?;
    let found = footer.schema().ok_or_else(|| not_a_store("its footer has no schema".to_owned()))?;
    let found = try_fb_to_schema(found).map_err(|cause| not_a_store(cause.to_string()))?;
    let json = found.metadata().get(Metadata::KEY).ok_or_else(|| {
        not_a_store(format!("its schema has no metadata `{}`; it is an Arrow file of another program", Metadata::KEY))
    })?;
    let metadata: Metadata = parse_metadata(json).map_err(not_a_store)?;
    if found.fields() != schema(None).fields() {
        return Err(not_a_store("its columns are not those of a store".to_owned()));
    }
    let custom = footer.custom_metadata().into_iter().flatten();
    let list = custom.filter(|entry| entry.key() == Some(BATCHES_KEY)).find_map(|entry| entry.value());
    let list = list.ok_or_else(|| not_a_store(format!("its footer has no `{BATCHES_KEY}`")))?;
    if content_hash(&metadata, list) != metadata.content_hash {
        return Err(damaged(path, "its metadata does not agree with its content hash".to_owned()));
    }
    let entries: Vec<BatchEntry> = serde_json::from_str(list).map_err(|cause| not_a_store(cause.to_string()))?;
    let blocks: Vec<Block> = footer.recordBatches().into_iter().flatten().copied().collect();
    check_tiling(&entries, &blocks, footer_start).map_err(|problem| damaged(path, problem))?;
    Ok((metadata, entries))
}

fn parse_metadata(json: &str) -> Result<Metadata, String> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } = serde_json::from_str(json).map_err(|cause| format!("its metadata: {cause}"))?;
    if version != Metadata::VERSION {
        return Err(format!("its layout has version {version}, this program reads version {}", Metadata::VERSION));
    }
    serde_json::from_str(json).map_err(|cause| format!("its metadata: {cause}"))
}

/// Checks that the batches fill the file from the header to the footer, as both lists of them tell.
fn check_tiling(entries: &[BatchEntry], blocks: &[Block], footer_start: u64) -> Result<(), String> {
    if entries.len() != blocks.len() {
        return Err(format!("{} batches are listed, {} are in the footer", entries.len(), blocks.len()));
    }
    let mut position = HEADER_BYTES as u64;
    for (index, (entry, block)) in entries.iter().zip(blocks).enumerate() {
        let agree = block.offset() == entry.offset as i64
            && i64::from(block.metaDataLength()) == entry.header as i64
            && block.bodyLength().checked_add(entry.header as i64) == Some(entry.bytes as i64);
        let ordered = entry.header >= 8 && entry.header <= entry.head && entry.head <= entry.bytes;
        if !agree || !ordered || entry.offset != position {
            return Err(format!("batch {index} is not where the footer says"));
        }
        position = position.checked_add(entry.bytes).ok_or("the batches have impossible lengths")?;
    }
    if position.checked_add(END_OF_STREAM.len() as u64) != Some(footer_start) {
        return Err(format!("the batches end at byte {position}, the footer starts at byte {footer_start}"));
    }
    Ok(())
}

fn read_batch(file: &File, entry: BatchEntry, first_row: usize, metadata: &Metadata) -> Result<Batch, String> {
    let bytes = read_at(file, entry.offset, entry.head as usize)?;
    if blake3::hash(&bytes).to_hex().as_str() != entry.head_hash {
        return Err("its text columns have another hash".to_owned());
    }
    let header = entry.header as usize;
    let values = {
        let message = root_as_message(&bytes[8..header]).map_err(|cause| cause.to_string())?;
        let batch = message.header_as_record_batch().ok_or("it is not a record batch")?;
        if batch.length() != entry.rows as i64 {
            return Err(format!("it has {} rows, {} are listed", batch.length(), entry.rows));
        }
        let buffers = batch.buffers().ok_or("it has no buffers")?;
        let (acoustic, visual) = value_buffers();
        if buffers.len() <= visual {
            return Err(format!("it has {} buffers", buffers.len()));
        }
        // The decoder slices without asking, so the places of the buffers it will touch are checked first.
        let within = |index: usize, limit: u64| {
            let (offset, length) = (buffers.get(index).offset(), buffers.get(index).length());
            offset >= 0 && length >= 0 && offset.checked_add(length).is_some_and(|end| end as u64 <= limit)
        };
        let head_fits = (0..first_feature_buffer()).all(|index| within(index, entry.head - entry.header));
        let all_fit = (0..buffers.len()).all(|index| within(index, entry.bytes - entry.header));
        if !head_fits || !all_fit {
            return Err("its buffers lie outside of it".to_owned());
        }
        let place = |index: usize| {
            let buffer = buffers.get(index);
            (entry.offset + entry.header + buffer.offset() as u64, buffer.length() as u64)
        };
        (place(acoustic), place(visual))
    };
    let block = Block::new(entry.offset as i64, entry.header as i32, (entry.bytes - entry.header) as i64);
    let decoder =
        FileDecoder::new(Arc::new(schema(None)), MetadataVersion::V5).with_projection((0..HEAD_COLUMNS).collect());
    let batch = decoder.read_record_batch(&block, &Buffer::from_vec(bytes)).map_err(|cause| cause.to_string())?;
    let head = batch.as_ref().and_then(Head::of).ok_or("its columns have other types")?;
    let acoustic = place_rows("acoustic", &head.acoustic_frames, values.0, metadata.acoustic_dim)?;
    let visual = place_rows("visual", &head.visual_frames, values.1, metadata.visual_dim)?;
    Ok(Batch { entry, first_row, head, acoustic, visual, verified: AtomicBool::new(false) })
}

fn place_rows(
    name: &str,
    frames: &arrow_array::Int32Array,
    (start, length): (u64, u64),
    dim: Option<usize>,
) -> Result<Placed, String> {
    let dim = dim.unwrap_or(0);
    let mut starts = Vec::with_capacity(frames.len());
    let mut bytes = 0u64;
    for row in 0..frames.len() {
        starts.push(start.saturating_add(bytes));
        let count = number_at(frames, row);
        if count.is_some_and(|count| count <= 0) || (count.is_some() && dim == 0) {
            return Err(format!("row {row} has {} {name} frames of {dim} values", count.unwrap_or(0)));
        }
        let values = (count.unwrap_or(0) as u64).saturating_mul(dim as u64);
        bytes = bytes.saturating_add(values.saturating_mul(size_of::<f32>() as u64));
    }
    if bytes != length {
        return Err(format!("its {name} values take {length} bytes, its frames need {bytes}"));
    }
    Ok(Placed { starts, dim })
}

fn rows_by_split(batches: &[Batch]) -> Result<[Vec<usize>; 3], String> {
    let mut rows: [Vec<usize>; 3] = Default::default();
    for batch in batches {
        for row in 0..batch.entry.rows {
            let split: Split = batch.head.split.value(row).parse()?;
            rows[split as usize].push(batch.first_row + row);
        }
    }
    Ok(rows)
}
