//! From files of a public release to a store, and looking at stores.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Problem};
use crate::read::{BadFeatures, Format, Row, Source, format_of, open_all, reader_of};
use crate::schema::{ContextWindow, Provenance, SourceFile, Turns};
use crate::store::{NewStore, Store, StoreCheck, StoreWriter};

mod findings;
mod inspect;
mod report;
pub(crate) mod table;

pub use findings::{Findings, Unmatched};
pub use inspect::{Inspection, Lengths};
pub use report::{Report, SplitReport};

/// How to import.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportOptions {
    /// The dataset's name; `None` takes the store's file name.
    pub name: Option<String>,
    /// What to do with NaN and infinite feature values.
    pub bad_features: BadFeatures,
    /// Whether rows that cannot become samples are left out and listed, instead of ending the import.
    pub skip_bad: bool,
    /// The turns of context, for dialogues; whose turns and with which names is told by the two fields below.
    pub context: ContextWindow,
    /// Whose turns are context; `None` takes what was published for the dataset.
    pub turns: Option<Turns>,
    /// Whether speakers' names are in the context; `None` takes what was published for the dataset.
    pub names: Option<bool>,
    /// Whether an existing store may be replaced.
    pub force: bool,
}

impl ImportOptions {
    /// The window to use for a dataset that was published with the turns and names given here.
    pub(crate) fn window(&self, turns: Turns, names: bool) -> ContextWindow {
        ContextWindow { turns: self.turns.unwrap_or(turns), names: self.names.unwrap_or(names), ..self.context }
    }
}

/// Imports source files into a new store at `out`; `format: None` finds the format from the first file's contents.
///
/// Memory stays bounded, whatever the size of the features. The store appears complete or not at all.
pub fn import(
    sources: &[Source],
    format: Option<Format>,
    options: &ImportOptions,
    out: &Path,
) -> Result<Report, Error> {
    let first = sources.first().ok_or_else(|| Error::Format {
        path: out.display().to_string(),
        problem: "no source file is given".to_owned(),
        hint: "unimse data import SRC... --out STORE".to_owned(),
    })?;
    let opened = open_all(sources)?;
    let format = format.map_or_else(|| format_of(&opened), Ok)?;
    let mut reader = reader_of(format, opened, options)?;
    let dataset = reader.dataset();
    let files = sources.iter().map(describe_file).collect::<Result<_, _>>()?;
    let name = options.name.clone().unwrap_or_else(|| name_of(out));
    let new = NewStore {
        name,
        task: dataset.task,
        vocabularies: dataset.vocabularies,
        source: Provenance { format: format.as_str().to_owned(), files, context: dataset.context, labelling: None },
    };
    let mut writer = StoreWriter::create(out, new, options.force)?;
    let mut report = Report::new(format.as_str());
    reader.for_each(&mut |row| take_row(row, options.skip_bad, &mut writer, &mut report))?;
    report.take_findings(reader.findings(), &dataset.splits);
    if report.samples() == 0 {
        return Err(Error::Format {
            path: first.path.display().to_string(),
            problem: format!("no samples were found, {} rows were left out", report.rejected_count),
            hint: "check the file and the --format".to_owned(),
        });
    }
    report.complete(&writer.finish()?, out)?;
    tracing::info!(dataset = %report.name, samples = report.samples(), store = %out.display(), "dataset imported");
    Ok(report)
}

fn take_row(row: Row, skip_bad: bool, writer: &mut StoreWriter, report: &mut Report) -> Result<(), Error> {
    let Row { file, place, split, sample, bad_values } = row;
    let stored = sample.and_then(|sample| match writer.push(&sample) {
        Ok(()) => Ok(Ok(sample)),
        Err(Error::Invalid { problem, .. }) => Err(Problem::new(problem)),
        Err(error) => Ok(Err(error)),
    });
    match stored {
        Ok(Ok(sample)) => {
            report.count(&sample, bad_values);
            Ok(())
        }
        Ok(Err(error)) => Err(error),
        Err(problem) => {
            let bad = problem.at(&file, place);
            if !skip_bad {
                return Err(bad.into());
            }
            report.reject(split, bad);
            Ok(())
        }
    }
}

/// Says what is in a store, from its metadata and text columns alone.
pub fn inspect(path: &Path) -> Result<Inspection, Error> {
    Inspection::of(&Store::open(path)?)
}

/// Verifies every byte and every value of a store.
pub fn check(path: &Path) -> Result<StoreCheck, Error> {
    Store::check(path)
}

fn name_of(out: &Path) -> String {
    out.file_stem().map_or_else(|| "dataset".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

fn describe_file(source: &Source) -> Result<SourceFile, Error> {
    let mut file = source.open()?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer).map_err(|cause| Error::io("read", &source.path, cause))?;
        if count == 0 {
            return Ok(SourceFile { name: source.name(), bytes, blake3: hasher.finalize().to_hex().to_string() });
        }
        hasher.update(&buffer[..count]);
        bytes += count as u64;
    }
}
