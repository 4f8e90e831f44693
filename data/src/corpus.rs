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
