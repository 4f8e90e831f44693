//! Samples to plain arrays, ready to become tensors.
//!
//! Datasets of one job may have features of different widths. A [`FeatureLayout`] numbers the distinct widths of a
//! modality; each number is a *group*, for which the model has one input projection. A batch holds the sequences of each
//! group in an array of their own and says which rows of the batch they belong to. In a job whose datasets agree there is
//! one group, and its rows are the samples that have the modality.

use crate::error::Error;
use crate::schema::{Features, Labels, Metadata, Sample};
use crate::tokenizer::{EOS, PAD, Tokenizer};

#[cfg(test)]
mod tests;

/// The distinct widths of features among the datasets of a job, from narrow to wide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureLayout {
    /// Widths of acoustic vectors; the position is the group.
    pub acoustic: Vec<usize>,
    /// Widths of visual vectors; the position is the group.
    pub visual: Vec<usize>,
}

impl FeatureLayout {
    /// Collects the widths of datasets, in whatever order they come.
    pub fn of<'m>(datasets: impl IntoIterator<Item = &'m Metadata>) -> Self {
        let mut layout = Self::default();
        for metadata in datasets {
            layout.acoustic.extend(metadata.acoustic_dim);
            layout.visual.extend(metadata.visual_dim);
        }
        for dims in [&mut layout.acoustic, &mut layout.visual] {
            dims.sort_unstable();
            dims.dedup();
        }
        layout
    }
}

/// How to make batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// What every input starts with.
    pub prefix: String,
    /// Tokens of an input at most, [`EOS`] included; longer ones are cut and counted.
    pub max_input: usize,
    /// The widths of features in the job.
    pub layout: FeatureLayout,
}

impl BatchOptions {
    /// The published prefix, and 512 tokens at most.
    pub fn new(layout: FeatureLayout) -> Self {
        Self { prefix: "sst2 sentence: ".to_owned(), max_input: 512, layout }
    }
}

/// A matrix of token numbers, one row a sample, padded on the right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// The number of rows, B.
    pub rows: usize,
    /// The length of the longest row, L.
    pub columns: usize,
    /// Token numbers `[B, L]`, row-major, [`PAD`] behind the end.
    pub ids: Vec<i64>,
    /// 1 for tokens and 0 for padding, `[B, L]`, row-major.
    pub mask: Vec<i64>,
}

impl Tokens {
    pub(crate) fn pad(rows: &[Vec<i64>]) -> Self {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(rows.len() * columns);
        let mut mask = Vec::with_capacity(rows.len() * columns);
        for row in rows {
            let padding = columns - row.len();
            ids.extend(row.iter().copied().chain(std::iter::repeat_n(PAD, padding)));
            mask.extend(std::iter::repeat_n(1, row.len()).chain(std::iter::repeat_n(0, padding)));
        }
        Self { rows: rows.len(), columns, ids, mask }
    }

    /// The tokens that are not padding.
    pub fn count(&self) -> usize {
        self.mask.iter().filter(|mask| **mask != 0).count()
    }
}

/// The sequences of one modality.
#[derive(Clone, Debug, PartialEq)]
pub struct Modality {
    /// Whether each sample has the modality, `[B]`; where not, it is masked.
    pub present: Vec<bool>,
    /// The group of each sample's features, `[B]`; `None` where they are missing.
    pub dim_group: Vec<Option<usize>>,
    /// The groups that have samples in this batch, by their number.
    pub groups: Vec<FeatureGroup>,
}

/// The sequences of one width.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureGroup {
    /// The group's number in the [`FeatureLayout`].
    pub group: usize,
    /// The length of each vector, D.
    pub dim: usize,
    /// Which samples of the batch these are, `[N]`, ascending.
    pub rows: Vec<i64>,
    /// The true lengths of the sequences, `[N]`, none of them zero.
    pub lengths: Vec<i64>,
    /// The length of the longest one, T.
    pub frames: usize,
    /// The values `[N, T, D]`, row-major, zeros behind the end of each sequence.
    pub data: Vec<f32>,
}

/// A batch of B samples as plain arrays.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The samples' ids as in their source files, `[B]`.
    pub ids: Vec<String>,
    /// What the encoder reads: prefix, text, [`EOS`].
    pub input: Tokens,
    /// What the decoder must say: target, [`EOS`].
    pub target: Tokens,
    /// The targets in words, `[B]`.
    pub targets: Vec<String>,
    /// The sound.
    pub acoustic: Modality,
    /// The sight.
    pub visual: Modality,
    /// How many inputs were cut to the longest allowed length.
    pub truncated: usize,
}

/// Makes a batch of samples; `target` writes the labels of each as the model must say them.
///
/// Fails if a sample's features have a width that the layout does not know; a modality of which it knows none is left out.
pub fn collate(
    samples: &[&Sample],
    tokenizer: &Tokenizer,
    options: &BatchOptions,
    target: &dyn Fn(&Labels) -> String,
) -> Result<Batch, Error> {
    let mut inputs = Vec::with_capacity(samples.len());
    let mut truncated = 0;
    for sample in samples {
        let mut ids = tokenizer.encode(&format!("{}{}", options.prefix, sample.source_text()))?;
        if ids.len() > options.max_input {
            ids.truncate(options.max_input.saturating_sub(1));
            ids.push(EOS);
            truncated += 1;
        }
        inputs.push(ids);
    }
    let targets: Vec<String> = samples.iter().map(|sample| target(&sample.labels)).collect();
    let target_ids = targets.iter().map(|target| tokenizer.encode(target)).collect::<Result<Vec<_>, _>>()?;
    let acoustic: Vec<_> = samples.iter().map(|sample| sample.acoustic.as_ref()).collect();
    let visual: Vec<_> = samples.iter().map(|sample| sample.visual.as_ref()).collect();
    Ok(Batch {
        ids: samples.iter().map(|sample| sample.id.clone()).collect(),
        input: Tokens::pad(&inputs),
        target: Tokens::pad(&target_ids),
        targets,
        acoustic: gather("acoustic", &acoustic, &options.layout.acoustic)?,
        visual: gather("visual", &visual, &options.layout.visual)?,
        truncated,
    })
}

fn gather(name: &str, features: &[Option<&Features>], dims: &[usize]) -> Result<Modality, Error> {
    let mut dim_group = Vec::with_capacity(features.len());
    for features in features {
        dim_group.push(match features {
            None => None,
            // The model was built without this modality.
            Some(_) if dims.is_empty() => None,
            Some(features) => Some(dims.binary_search(&features.dim()).map_err(|_| Error::Corpus {
                problem: format!("{name} features have {} values a frame, the job has {dims:?}", features.dim()),
                hint: "evaluate with datasets whose features are those of the training".to_owned(),
            })?),
        });
    }
    let mut groups = Vec::new();
    for (group, &dim) in dims.iter().enumerate() {
        let members = features.iter().enumerate().filter(|(row, _)| dim_group[*row] == Some(group));
        let members: Vec<(usize, &Features)> =
            members.filter_map(|(row, features)| Some((row, (*features)?))).collect();
        if !members.is_empty() {
            groups.push(pad_group(group, dim, &members));
        }
    }
    Ok(Modality { present: dim_group.iter().map(Option::is_some).collect(), dim_group, groups })
}

fn pad_group(group: usize, dim: usize, members: &[(usize, &Features)]) -> FeatureGroup {
    let frames = members.iter().map(|(_, features)| features.frames()).max().unwrap_or(0);
    let mut data = vec![0.0; members.len() * frames * dim];
    for (slot, (_, features)) in data.chunks_exact_mut(frames * dim).zip(members) {
        slot[..features.data().len()].copy_from_slice(features.data());
    }
    FeatureGroup {
        group,
        dim,
        rows: members.iter().map(|(row, _)| *row as i64).collect(),
        lengths: members.iter().map(|(_, features)| features.frames() as i64).collect(),
        frames,
        data,
    }
}
