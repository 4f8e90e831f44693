//! Merges the shards of a checkpoint into one local folder that other tools can read.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::error::{Error, Result};
use crate::header::{self, TensorSpec};
use crate::manifest::ShardDescriptor;
use crate::reader::Checkpoint;

/// The file that holds the tensors, named as transformers expects.
const MODEL: &str = "model.safetensors";

/// What to pull: which tensors under which names, and which files beside them.
pub struct PullPlan<'a> {
    /// Gives the name in the pulled file, or `None` to leave the tensor out.
    pub rename: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// Files written beside `model.safetensors`, by name (`config.json`, `tokenizer.json`, ...).
    pub files: Vec<(String, Vec<u8>)>,
}

impl std::fmt::Debug for PullPlan<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files: Vec<_> = self.files.iter().map(|(name, _)| name).collect();
        f.debug_struct("PullPlan").field("files", &files).finish_non_exhaustive()
    }
}

/// What a pull wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The folder.
    pub folder: PathBuf,
    /// How many tensors `model.safetensors` holds.
    pub tensors: usize,
    /// The size of `model.safetensors` in bytes.
    pub bytes: u64,
}

impl Checkpoint {
    /// Writes the planned tensors, each byte checked, and files to `folder`, which must be absent or empty.
    ///
    /// The folder appears with all its content or not at all; memory holds a few chunks at a time.
    pub async fn pull(&self, folder: &Path, plan: &PullPlan<'_>) -> Result<Pulled> {
        let local = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Local { path, action, source }
        };
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::Occupied { path: folder.to_owned() });
        }
        let folder = std::path::absolute(folder).map_err(local("find", folder))?;
        let parent = folder.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).map_err(local("create", parent))?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let scratch = Scratch(parent.join(format!(".{name}.partial-{}", uuid::Uuid::new_v4().simple())));
        fs::create_dir(&scratch.0).map_err(local("create", &scratch.0))?;

        let (tensors, bytes) = self.merge(&scratch.0.join(MODEL), plan.rename).await?;
        for (name, content) in &plan.files {
            let path = scratch.0.join(name);
            if path.parent() != Some(&scratch.0) || path.file_name() != Some(name.as_ref()) {
                return Err(local("write outside the folder to", &path)(std::io::ErrorKind::InvalidInput.into()));
            }
            fs::write(&path, content).and_then(|()| File::open(&path)?.sync_all()).map_err(local("write", &path))?;
        }
        fs::rename(&scratch.0, &folder)
            .and_then(|()| File::open(parent)?.sync_all())
            .map_err(local("move the finished folder to", &folder))?;
        Ok(Pulled { folder, tensors, bytes })
    }

    /// Writes one safetensors file from all shards; gives the number of tensors and the size in bytes.
    async fn merge(&self, path: &Path, rename: &(dyn Fn(&str) -> Option<String> + Sync)) -> Result<(usize, u64)> {
        let local = |source| Error::Local { path: path.to_owned(), action: "write", source };
        let named = self.manifest().tensors().filter_map(|(_, entry)| rename(&entry.name).map(|name| (name, entry)));
        let (names, specs): (HashMap<&str, String>, Vec<TensorSpec>) = named
            .map(|(name, entry)| {
                let spec = TensorSpec { name: name.clone(), dtype: entry.dtype, shape: entry.shape.clone() };
                ((entry.name.as_str(), name), spec)
            })
            .unzip();
        let header =
            header::lay_out(specs).map_err(|reason| Error::BadShard { key: path.display().to_string(), reason })?;
        let places: HashMap<&str, u64> =
            header.entries.iter().map(|entry| (entry.name.as_str(), entry.start)).collect();
        let file = File::create_new(path).map_err(local)?;
        file.write_all_at(&header.bytes, 0).map_err(local)?;
        let file = Arc::new(file);

        for shard in &self.manifest().shards {
            // Where each wanted byte range of the shard goes in the new file.
            let moves: Vec<(std::ops::Range<u64>, u64)> = shard
                .tensors
                .iter()
                .filter_map(|entry| Some((entry.start..entry.end, places[names.get(entry.name.as_str())?.as_str()])))
                .collect();
            self.copy(shard, &moves, &file).await?.map_err(local)?;
        }
        let (tensors, total) = (header.entries.len(), header.total);
        let synced = tokio::task::spawn_blocking(move || file.sync_all()).await;
        synced.map_err(std::io::Error::other).and_then(|result| result).map_err(local)?;
        Ok((tensors, total))
    }

    /// Copies byte ranges of a shard, given in its order, to their places; the inner error is the local file's.
    async fn copy(
        &self,
        shard: &ShardDescriptor,
        moves: &[(std::ops::Range<u64>, u64)],
        file: &Arc<File>,
    ) -> Result<std::io::Result<()>> {
        let reads: Vec<_> = (0..shard.chunks.len() as u64)
            .filter(|&index| {
                let chunk = shard.chunk_range(index);
                moves.iter().any(|(range, _)| range.start < chunk.end && chunk.start < range.end)
            })
            .map(|index| async move { Ok::<_, Error>((index, self.chunk(shard, index).await?)) })
            .collect();
        let mut chunks = futures::stream::iter(reads).buffered(self.options().chunks.get());
        while let Some((index, bytes)) = chunks.try_next().await? {
            let pieces = overlaps(&shard.chunk_range(index), moves, &bytes);
            let file = Arc::clone(file);
            let written = tokio::task::spawn_blocking(move || {
                pieces.into_iter().try_for_each(|(place, piece)| file.write_all_at(&piece, place))
            });
            if let Err(error) = written.await.map_err(std::io::Error::other).and_then(|result| result) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }
}

/// Cuts out of a chunk what is wanted, each piece with its place in the new file.
fn overlaps(chunk: &std::ops::Range<u64>, moves: &[(std::ops::Range<u64>, u64)], bytes: &Bytes) -> Vec<(u64, Bytes)> {
    moves
        .iter()
        .filter_map(|(range, place)| {
            let (start, end) = (range.start.max(chunk.start), range.end.min(chunk.end));
            let piece = (start < end).then(|| (start - chunk.start) as usize..(end - chunk.start) as usize)?;
            Some((place + (start - range.start), bytes.slice(piece)))
        })
        .collect()
}

/// A folder that goes away unless it was renamed.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
