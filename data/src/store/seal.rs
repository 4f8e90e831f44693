//! The hashes that bind a store together, and the header and footer that carry them.
//!
//! `content_hash = BLAKE3(metadata with an empty content_hash, 0, list of batches)`, where the list has the place, length
//! and hash of every batch. So checking the hash of a few kilobytes at opening binds every byte of the file.

use arrow_ipc as ipc;
use arrow_ipc::convert::{IpcSchemaEncoder, metadata_to_fb};
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use arrow_schema::Schema;
use flatbuffers::FlatBufferBuilder;
use serde::{Deserialize, Serialize};

use crate::schema::Metadata;

/// The bytes before the first batch: the schema message, padded, so that it can be written when the counts are known.
pub(super) const HEADER_BYTES: usize = 256 * 1024;
/// The key of the list of batches in the footer's metadata.
pub(super) const BATCHES_KEY: &str = "unimse.batches";
/// What an Arrow file ends with.
pub(super) const MAGIC: &[u8; 6] = b"ARROW1";
/// The end-of-stream marker after the last batch.
pub(super) const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// One record batch of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BatchEntry {
    /// Where its message starts in the file.
    pub(super) offset: u64,
    /// The length of the message's header.
    pub(super) header: u64,
    /// The length from `offset` to the end of the head columns.
    pub(super) head: u64,
    /// The length of the whole batch.
    pub(super) bytes: u64,
    /// The number of samples.
    pub(super) rows: usize,
    /// The hash of the first `head` bytes.
    pub(super) head_hash: String,
    /// The hash of all bytes.
    pub(super) hash: String,
}

/// Computes the content hash of a store.
pub(super) fn content_hash(metadata: &Metadata, batches: &str) -> String {
    let unsealed = Metadata { content_hash: String::new(), ..metadata.clone() };
    let mut hasher = blake3::Hasher::new();
    hasher.update(to_json(&unsealed).as_bytes());
    hasher.update(&[0]);
    hasher.update(batches.as_bytes());
    hasher.finalize().to_hex().to_string()
}

/// Renders plain data whose keys are strings, which `serde_json` cannot refuse.
pub(super) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain structs with string keys always render as JSON")
}

/// Builds the first [`HEADER_BYTES`] of the file; `None` if the schema does not fit in.
pub(super) fn header(schema: &Schema, options: &IpcWriteOptions) -> Option<Vec<u8>> {
    let mut tracker = DictionaryTracker::new(true);
    let message = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(schema, &mut tracker, options);
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&[0, 0]);
    header.extend_from_slice(&END_OF_STREAM[..4]);
    let room = HEADER_BYTES - header.len() - 4;
    header.extend_from_slice(&(room as i32).to_le_bytes());
    header.extend_from_slice(&message.ipc_message);
    (header.len() <= HEADER_BYTES).then(|| {
        header.resize(HEADER_BYTES, 0);
        header
    })
}

/// Builds everything after the last batch.
pub(super) fn footer(schema: &Schema, batches: &[BatchEntry], options: &IpcWriteOptions) -> Vec<u8> {
    let blocks: Vec<ipc::Block> = batches
        .iter()
        .map(|batch| ipc::Block::new(batch.offset as i64, batch.header as i32, (batch.bytes - batch.header) as i64))
        .collect();
    let mut builder = FlatBufferBuilder::new();
    let dictionaries = builder.create_vector::<ipc::Block>(&[]);
    let blocks = builder.create_vector(&blocks);
    let mut tracker = DictionaryTracker::new(true);
    let schema =
        IpcSchemaEncoder::new().with_dictionary_tracker(&mut tracker).schema_to_fb_offset(&mut builder, schema);
    let custom = [(BATCHES_KEY.to_owned(), to_json(&batches))].into_iter().collect();
    let custom = metadata_to_fb(&mut builder, &custom);
    let mut footer = ipc::FooterBuilder::new(&mut builder);
    footer.add_version(ipc_version(options));
    footer.add_schema(schema);
    footer.add_dictionaries(dictionaries);
    footer.add_recordBatches(blocks);
    footer.add_custom_metadata(custom);
    let root = footer.finish();
    builder.finish(root, None);
    let encoded = builder.finished_data();
    let mut bytes = END_OF_STREAM.to_vec();
    bytes.extend_from_slice(encoded);
    bytes.extend_from_slice(&(encoded.len() as i32).to_le_bytes());
    bytes.extend_from_slice(MAGIC);
    bytes
}

/// The metadata version that the default options write, which the options do not tell.
fn ipc_version(_options: &IpcWriteOptions) -> ipc::MetadataVersion {
    ipc::MetadataVersion::V5
}
