//! Two small synthetic datasets that a tiny model can learn from: one of sentiment, one of emotion.
//!
//! They are honest in that no modality is enough: words carry one part of each label, sound another, sight a third, all
//! under noise; some samples lack sound or sight, and then that part cannot be known. The same seed gives the same bytes
//! on every machine: nothing but integers and exact float operations decide.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::import::Report;
use crate::schema::{Provenance, Sample, Split};
use crate::store::{NewStore, StoreWriter};

mod dice;
mod emotion;
mod sentiment;
mod signal;

#[cfg(test)]
mod tests;

/// How much to make, and from which seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleOptions {
    /// Decides everything.
    pub seed: u64,
    /// Training samples a dataset.
    pub train: usize,
    /// Validation samples a dataset.
    pub valid: usize,
    /// Test samples a dataset.
    pub test: usize,
    /// Whether existing stores may be replaced.
    pub force: bool,
}

impl Default for SampleOptions {
    fn default() -> Self {
        Self { seed: 42, train: 768, valid: 128, test: 128, force: false }
    }
}

impl SampleOptions {
    fn count(&self, split: Split) -> usize {
        match split {
            Split::Train => self.train,
            Split::Valid => self.valid,
            Split::Test => self.test,
        }
    }
}

/// Writes `sample-sentiment.arrow` and `sample-emotion.arrow` into a folder, which is made if needed.
pub fn write_samples(folder: &Path, options: &SampleOptions) -> Result<Vec<Report>, Error> {
    std::fs::create_dir_all(folder).map_err(|cause| Error::io("create", folder, cause))?;
    let source = Provenance { format: format!("sample, seed {}", options.seed), ..Provenance::default() };
    let sentiment =
        write(&folder.join("sample-sentiment.arrow"), sentiment::store(source.clone()), options, |split| {
            sentiment::samples(options.seed, split, options.count(split))
        })?;
    let emotion = write(&folder.join("sample-emotion.arrow"), emotion::store(source), options, |split| {
        emotion::samples(options.seed, split, options.count(split))
    })?;
    Ok(vec![sentiment, emotion])
}

fn write(
    out: &Path,
    new: NewStore,
    options: &SampleOptions,
    samples: impl Fn(Split) -> Vec<Sample>,
) -> Result<Report, Error> {
    let mut writer = StoreWriter::create(out, new, options.force)?;
    let mut report = Report::new("sample");
    for split in Split::ALL {
        for sample in samples(split) {
            writer.push(&sample)?;
            report.count(&sample, 0);
        }
    }
    report.complete(&writer.finish()?, out)?;
    Ok(report)
}
