//! Writing a store in one pass with bounded memory.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions, write_message};
use arrow_schema::ArrowError;

use super::layout::{BatchBuilder, first_feature_buffer, schema};
use super::moments::Moments;
use super::partial::PartialFile;
use super::seal::{BatchEntry, HEADER_BYTES, content_hash, footer, header, to_json};
use crate::error::Error;
use crate::schema::{Counts, Features, Metadata, Provenance, SCORE_RANGE, Sample, Split, Task, Vocabulary};

/// Rows a batch at most: enough to make a batch's header cheap, few enough to verify one quickly.
const BATCH_ROWS: usize = 1024;
/// Bytes a batch about at most, which bounds the memory of an import.
const BATCH_BYTES: usize = 32 << 20;

/// What must be known about a dataset before its first sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewStore {
    /// The dataset's name: letters, digits, `-`, `_` and `.`, 64 at most.
    pub name: String,
    /// What its own labels say.
    pub task: Task,
    /// The vocabularies that its labels may use, its own first.
    pub vocabularies: Vec<Vocabulary>,
    /// Where the samples come from.
    pub source: Provenance,
}

/// Writes a store: samples in, one file out, which exists only if [`StoreWriter::finish`] succeeded.
pub struct StoreWriter {
    partial: PartialFile,
    encoder: Encoder<File>,
}

impl std::fmt::Debug for StoreWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreWriter").field("path", &self.partial.path()).finish_non_exhaustive()
    }
}

impl StoreWriter {
    /// Starts a store beside `target`; fails if `target` exists, unless it may be replaced.
    pub fn create(target: &Path, new: NewStore, replace: bool) -> Result<Self, Error> {
        if !replace && target.exists() {
            return Err(Error::Exists { path: target.display().to_string() });
        }
        let (partial, file) = PartialFile::create(target)?;
        let encoder = Encoder::start(file, target.to_owned(), new)?;
        Ok(Self { partial, encoder })
    }

    /// Adds a sample, or says which rule of the store it breaks; a refused sample leaves the store as it was.
    pub fn push(&mut self, sample: &Sample) -> Result<(), Error> {
        self.encoder.push(sample)
    }

    /// Completes the file and gives it its name.
    pub fn finish(self) -> Result<Metadata, Error> {
        let (metadata, file) = self.encoder.finish()?;
        self.partial.commit(&file)?;
        Ok(metadata)
    }
}

/// Encodes a store into any seekable sink.
pub(super) struct Encoder<W> {
    sink: W,
    target: PathBuf,
    new: NewStore,
    builder: BatchBuilder,
    options: IpcWriteOptions,
    context: IpcWriteContext,
    batches: Vec<BatchEntry>,
    position: u64,
    ids: HashSet<(Split, String)>,
    counts: Counts,
    acoustic_dim: Option<usize>,
    visual_dim: Option<usize>,
    acoustic_moments: Moments,
    visual_moments: Moments,
}

impl<W: Write + Seek> Encoder<W> {
    pub(super) fn start(mut sink: W, target: PathBuf, new: NewStore) -> Result<Self, Error> {
        if !is_name(&new.name) {
            return Err(Error::Format {
                path: target.display().to_string(),
                problem: format!("`{}` cannot be the name of a dataset", new.name),
                hint: "give a --name of up to 64 letters, digits, `-`, `_` and `.`".to_owned(),
            });
        }
        sink.write_all(&vec![0; HEADER_BYTES]).map_err(|cause| Error::io("write", &target, cause))?;
        Ok(Self {
            sink,
            target,
            new,
            builder: BatchBuilder::new(),
            options: IpcWriteOptions::default(),
            context: IpcWriteContext::default(),
            batches: Vec::new(),
            position: HEADER_BYTES as u64,
            ids: HashSet::new(),
            counts: Counts::default(),
            acoustic_dim: None,
            visual_dim: None,
            acoustic_moments: Moments::default(),
            visual_moments: Moments::default(),
        })
    }

    pub(super) fn push(&mut self, sample: &Sample) -> Result<(), Error> {
        self.validate(sample).map_err(|problem| Error::Invalid { id: sample.id.clone(), problem })?;
        self.acoustic_dim = self.acoustic_dim.or_else(|| sample.acoustic.as_ref().map(Features::dim));
        self.visual_dim = self.visual_dim.or_else(|| sample.visual.as_ref().map(Features::dim));
        self.ids.insert((sample.split, sample.id.clone()));
        self.counts.add(sample.split);
        if sample.split == Split::Train {
            self.acoustic_moments.add(sample.acoustic.as_ref());
            self.visual_moments.add(sample.visual.as_ref());
        }
        self.builder.push(sample);
        if self.builder.rows() >= BATCH_ROWS || self.builder.bytes() >= BATCH_BYTES {
            self.flush_batch()?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(Metadata, W), Error> {
        if self.builder.rows() > 0 {
            self.flush_batch()?;
        }
        let mut metadata = Metadata {
            version: Metadata::VERSION,
            name: self.new.name,
            task: self.new.task,
            vocabularies: self.new.vocabularies,
            acoustic_dim: self.acoustic_dim,
            visual_dim: self.visual_dim,
            acoustic_statistics: self.acoustic_moments.finish(),
            visual_statistics: self.visual_moments.finish(),
            counts: self.counts,
            source: self.new.source,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            content_hash: String::new(),
        };
        metadata.content_hash = content_hash(&metadata, &to_json(&self.batches));
        let schema = schema(Some(to_json(&metadata)));
        let header = header(&schema, &self.options).ok_or_else(|| Error::Format {
            path: self.target.display().to_string(),
            problem: format!("the dataset's metadata takes more than {HEADER_BYTES} bytes"),
            hint: "import fewer source files at once".to_owned(),
        })?;
        let footer = footer(&schema, &self.batches, &self.options);
        let written = (|| -> io::Result<()> {
            self.sink.write_all(&footer)?;
            self.sink.seek(SeekFrom::Start(0))?;
            self.sink.write_all(&header)?;
            self.sink.flush()
        })();
        written.map_err(|cause| Error::io("write", &self.target, cause))?;
        Ok((metadata, self.sink))
    }

    fn validate(&self, sample: &Sample) -> Result<(), String> {
        if sample.id.is_empty() {
            return Err("the id is empty".to_owned());
        }
        if self.ids.contains(&(sample.split, sample.id.clone())) {
            return Err(format!("the id appears twice in split `{}`", sample.split));
        }
        check_labels(sample, &self.new.vocabularies)?;
        check_features("acoustic", sample.acoustic.as_ref(), self.acoustic_dim)?;
        check_features("visual", sample.visual.as_ref(), self.visual_dim)
    }

    fn flush_batch(&mut self) -> Result<(), Error> {
        let rows = self.builder.rows();
        let encoded = self.encode();
        let (bytes, header, head) = encoded.map_err(|cause| Error::Arrow {
            action: "encode",
            path: self.target.display().to_string(),
            cause,
        })?;
        self.sink.write_all(&bytes).map_err(|cause| Error::io("write", &self.target, cause))?;
        self.batches.push(BatchEntry {
            offset: self.position,
            header: header as u64,
            head: head as u64,
            bytes: bytes.len() as u64,
            rows,
            head_hash: blake3::hash(&bytes[..head]).to_hex().to_string(),
            hash: blake3::hash(&bytes).to_hex().to_string(),
        });
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Encodes the collected samples: the bytes, the length of the header, the length up to the features.
    fn encode(&mut self) -> Result<(Vec<u8>, usize, usize), ArrowError> {
        let batch = self.builder.finish()?;
        let mut tracker = DictionaryTracker::new(true);
        let (_, encoded) =
            IpcDataGenerator::default().encode(&batch, &mut tracker, &self.options, &mut self.context)?;
        let body_head = {
            let message = arrow_ipc::root_as_message(&encoded.ipc_message)
                .map_err(|cause| ArrowError::IpcError(cause.to_string()))?;
            let buffers = message.header_as_record_batch().and_then(|batch| batch.buffers());
            let buffers = buffers.ok_or_else(|| ArrowError::IpcError("a batch without buffers".to_owned()))?;
            buffers.get(first_feature_buffer()).offset() as usize
        };
        let mut bytes = Vec::with_capacity(encoded.ipc_message.len() + encoded.arrow_data.len() + 64);
        let (header, _) = write_message(&mut bytes, encoded, &self.options)?;
        Ok((bytes, header, header + body_head))
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 64 && name.chars().all(allowed) && !name.starts_with('.')
}

/// Checks the values of a sample's labels.
pub(super) fn check_labels(sample: &Sample, vocabularies: &[Vocabulary]) -> Result<(), String> {
    if let Some(score) = sample.labels.score
        && !SCORE_RANGE.contains(&score)
    {
        return Err(format!("the score {score} is outside {} to {}", SCORE_RANGE.start(), SCORE_RANGE.end()));
    }
    for (name, class) in &sample.labels.emotions {
        let Some(vocabulary) = vocabularies.iter().find(|vocabulary| vocabulary.name == *name) else {
            return Err(format!("the store has no emotion vocabulary `{name}`"));
        };
        if vocabulary.index_of(class).is_none() {
            return Err(format!("the emotion `{class}` is not one of `{name}`: {}", vocabulary.classes.join(", ")));
        }
    }
    Ok(())
}

/// Checks the width and the values of features.
pub(super) fn check_features(name: &str, features: Option<&Features>, dim: Option<usize>) -> Result<(), String> {
    let Some(features) = features else { return Ok(()) };
    if let Some(dim) = dim
        && dim != features.dim()
    {
        return Err(format!("{name} vectors have {} values, those of earlier samples {dim}", features.dim()));
    }
    if i32::try_from(features.data().len()).is_err() {
        return Err(format!("{name} features have {} values, too many for one sample", features.data().len()));
    }
    match features.data().iter().position(|value| !value.is_finite()) {
        Some(at) => Err(format!("{name} value {at} is {}", features.data()[at])),
        None => Ok(()),
    }
}
