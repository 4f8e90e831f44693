//! Every release layout becomes the same kind of store: files in the exact public layouts, made by `make_layouts.py`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use unimse_data::Error;
use unimse_data::import::{ImportOptions, Report, check, import};
use unimse_data::read::{Format, Source, detect};
use unimse_data::schema::{ContextWindow, Polarity, Sample, Split, Task, Turns};
use unimse_data::store::Store;

mod bad_input;
mod dialogues;
mod sentiment;

fn layout(name: &str) -> Source {
    Source::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layouts").join(name))
}

/// One import of files of `layouts/`, in the order given.
struct Import {
    folder: TempDir,
    options: ImportOptions,
    sources: Vec<Source>,
}

impl Import {
    fn of(names: &[&str]) -> Self {
        let sources = names.iter().map(|name| layout(name)).collect();
        Self { folder: tempfile::tempdir().unwrap(), options: ImportOptions::default(), sources }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("set.arrow")
    }

    fn run(&self) -> Result<Report, Error> {
        let report = import(&self.sources, None, &self.options, &self.out());
        if report.is_ok() {
            assert!(check(&self.out()).unwrap().is_ok());
        }
        report
    }

    /// Imports what must be of `format`, and gives back the report and all samples.
    fn samples(&self, format: Format) -> (Report, Vec<Sample>) {
        assert_eq!(detect(&self.sources).unwrap(), format);
        let report = self.run().unwrap();
        assert_eq!(report.format, format.as_str());
        let store = Store::open(&self.out()).unwrap();
        (report, (0..store.len()).map(|row| store.sample(row).unwrap()).collect())
    }
}

fn of<'s>(samples: &'s [Sample], split: Split, id: &str) -> &'s Sample {
    let found = samples.iter().find(|sample| sample.split == split && sample.id == id);
    found.unwrap_or_else(|| panic!("no `{id}` in {:?}", samples.iter().map(|s| &s.id).collect::<Vec<_>>()))
}

fn counts(samples: &[Sample]) -> [usize; 3] {
    Split::ALL.map(|split| samples.iter().filter(|sample| sample.split == split).count())
}

fn acoustic(sample: &Sample) -> &[f32] {
    sample.acoustic.as_ref().unwrap().data()
}

fn visual(sample: &Sample) -> &[f32] {
    sample.visual.as_ref().unwrap().data()
}

/// The ids that a report lists under a heading that has these words.
fn unmatched(report: &Report, words: &str) -> Vec<String> {
    let found = report.findings.unmatched.iter().find(|unmatched| unmatched.what.contains(words));
    let found = found.unwrap_or_else(|| panic!("`{words}` is not in {report}"));
    assert_eq!(found.count as usize, found.ids.len());
    found.ids.clone()
}

fn assert_noted(report: &Report, words: &str) {
    assert!(report.to_string().contains(words), "`{words}` is not in {report}");
}
