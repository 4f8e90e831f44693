//! Several stores seen as one set of samples with one numbering.

use std::path::Path;
use std::sync::Arc;

use crate::batch::FeatureLayout;
use crate::error::Error;
use crate::schema::{Labels, Sample, Split, Vocabulary};
use crate::store::Store;

/// One split of several datasets, concatenated in the order of the job. Sample `i` is always the same one.
#[derive(Clone, Debug)]
pub struct Corpus {
    split: Split,
    stores: Vec<Arc<Store>>,
    /// The index of each dataset's first sample, and at the end the number of all samples.
    starts: Vec<usize>,
    layout: FeatureLayout,
    vocabularies: Vec<Vocabulary>,
}

impl Corpus {
    /// Opens stores and joins their samples of one split.
    pub fn open<P: AsRef<Path>>(paths: &[P], split: Split) -> Result<Self, Error> {
        let stores = paths.iter().map(|path| Store::open(path.as_ref()).map(Arc::new)).collect::<Result<_, _>>()?;
        Self::join(stores, split)
    }

    /// Joins stores that are open already.
    pub fn join(stores: Vec<Arc<Store>>, split: Split) -> Result<Self, Error> {
        let mut starts = vec![0];
        let mut vocabularies: Vec<Vocabulary> = Vec::new();
        for (index, store) in stores.iter().enumerate() {
            let metadata = store.metadata();
            let name = &metadata.name;
            if let Some(earlier) = stores[..index].iter().find(|earlier| earlier.metadata().name == *name) {
                return Err(Error::Corpus {
                    problem: format!(
                        "two datasets are named `{name}`: {} and {}",
                        earlier.path().display(),
                        store.path().display()
                    ),
                    hint: "import one of them again with another --name".to_owned(),
                });
            }
            if store.rows(split).is_empty() {
                return Err(Error::Corpus {
                    problem: format!("{} (`{name}`) has no samples of split `{split}`", store.path().display()),
                    hint: "leave it out of this list, or import the split too".to_owned(),
                });
            }
            starts.push(starts[index] + store.rows(split).len());
            for vocabulary in &metadata.vocabularies {
                match vocabularies.iter().find(|known| known.name == vocabulary.name) {
                    None => vocabularies.push(vocabulary.clone()),
                    Some(known) if known == vocabulary => {}
                    Some(_) => {
                        return Err(Error::Corpus {
                            problem: format!("`{name}` has another vocabulary `{}`", vocabulary.name),
                            hint: "import the datasets again with the same version of this program".to_owned(),
                        });
                    }
                }
            }
        }
        let layout = FeatureLayout::of(stores.iter().map(|store| store.metadata()));
        Ok(Self { split, stores, starts, layout, vocabularies })
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Whether there are no samples, as in a corpus of no stores.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The split that the samples are of.
    pub fn split(&self) -> Split {
        self.split
    }

    /// The datasets, in the order of the job.
    pub fn stores(&self) -> &[Arc<Store>] {
        &self.stores
    }

    /// The widths of features that occur.
    pub fn layout(&self) -> &FeatureLayout {
        &self.layout
    }

    /// The emotion vocabularies of all datasets, in the order of the job.
    pub fn vocabularies(&self) -> &[Vocabulary] {
        &self.vocabularies
    }

    /// The number of the dataset and the row in its store of a sample.
    ///
    /// # Panics
    /// This and the other readers of a sample panic if `index` is not below [`Corpus::len`].
    pub fn locate(&self, index: usize) -> (usize, usize) {
        assert!(index < self.len(), "sample {index} of {}", self.len());
        let dataset = self.starts.partition_point(|start| *start <= index) - 1;
        (dataset, self.stores[dataset].rows(self.split)[index - self.starts[dataset]])
    }

    /// The indexes of a dataset's samples.
    pub fn range_of(&self, dataset: usize) -> std::ops::Range<usize> {
        self.starts[dataset]..self.starts[dataset + 1]
    }

    /// Reads a sample with its features.
    pub fn sample(&self, index: usize) -> Result<Sample, Error> {
        let (dataset, row) = self.locate(index);
        self.stores[dataset].sample(row)
    }

    /// The labels of a sample, without reading its features.
    pub fn labels(&self, index: usize) -> Labels {
        let (dataset, row) = self.locate(index);
        self.stores[dataset].labels(row)
    }

    /// The name of a sample for all times: `dataset/id`, unique within the split.
    pub fn sample_id(&self, index: usize) -> String {
        let (dataset, row) = self.locate(index);
        let store = &self.stores[dataset];
        format!("{}/{}", store.metadata().name, store.id(row))
    }

    /// All texts that the model will read, for training a tokenizer.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let rows = self.stores.iter().flat_map(|store| store.rows(self.split).iter().map(move |row| (store, *row)));
        rows.map(|(store, row)| store.source_text(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{SampleOptions, write_samples};

    fn stores() -> (tempfile::TempDir, Vec<std::path::PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let options = SampleOptions { train: 30, valid: 10, test: 0, ..SampleOptions::default() };
        let reports = write_samples(folder.path(), &options).unwrap();
        (folder, reports.into_iter().map(|report| report.store).collect())
    }

    #[test]
    fn samples_are_numbered_through_all_datasets() {
        let (_folder, paths) = stores();
        let corpus = Corpus::open(&paths, Split::Valid).unwrap();
        assert_eq!(corpus.len(), 20);
        assert_eq!((corpus.range_of(0), corpus.range_of(1)), (0..10, 10..20));
        // Rows of a store count all splits, samples of a corpus only its own.
        assert_eq!((corpus.locate(0), corpus.locate(9), corpus.locate(10)), ((0, 30), (0, 39), (1, 30)));
        assert_eq!(corpus.sample_id(10), "sample-emotion/dia0_utt0");
        let ids: std::collections::BTreeSet<String> = (0..20).map(|index| corpus.sample_id(index)).collect();
        assert_eq!(ids.len(), 20);
        for index in 0..20 {
            let sample = corpus.sample(index).unwrap();
            assert_eq!((sample.split, &sample.labels), (Split::Valid, &corpus.labels(index)));
        }
        assert_eq!(corpus.layout(), &FeatureLayout { acoustic: vec![10, 12], visual: vec![6, 8] });
        assert_eq!(corpus.vocabularies(), [Vocabulary::meld()]);
        assert_eq!(corpus.texts().count(), 20);
        assert!(corpus.texts().nth(12).unwrap().contains("</s>"));
    }

    #[test]
    fn datasets_that_do_not_fit_are_refused() {
        let (_folder, paths) = stores();
        let refused = |paths: &[&std::path::PathBuf], split| Corpus::open(paths, split).unwrap_err().to_string();
        let twice = refused(&[&paths[0], &paths[0]], Split::Train);
        assert!(twice.starts_with("two datasets are named `sample-sentiment`: "), "{twice}");
        let empty = refused(&[&paths[1]], Split::Test);
        assert!(empty.contains("(`sample-emotion`) has no samples of split `test`"), "{empty}");
    }
}
