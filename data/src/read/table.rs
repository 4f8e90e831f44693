//! Text tables: comma- or tab-separated, with a header, in UTF-8 or Windows-1252.

use csv::ByteRecord;

use super::{Source, decode, first_bytes};
use crate::error::{Error, Problem};

/// A table larger than this is no list of utterances; the largest published one has a few megabytes.
const MAX_FILE: u64 = 256 << 20;

/// A whole table in memory.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) source: Source,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Record>,
}

/// One row of a table.
#[derive(Debug)]
pub(crate) struct Record {
    /// Where it starts in the file.
    pub(crate) line: u64,
    fields: Vec<String>,
}

impl Record {
    /// The value of a column, without white space around it.
    pub(crate) fn get(&self, column: usize) -> &str {
        self.fields.get(column).map_or("", String::as_str)
    }

    /// The value of a column that may not exist; what is empty does not exist either.
    pub(crate) fn find(&self, column: Option<usize>) -> Option<&str> {
        column.map(|column| self.get(column)).filter(|value| !value.is_empty())
    }
}

impl Table {
    pub(crate) fn read(source: &Source) -> Result<Self, Error> {
        let path = source.path.display().to_string();
        let format = |problem: String, hint: &str| Error::Format { path: path.clone(), problem, hint: hint.to_owned() };
        let bytes = first_bytes(&mut source.open()?, &source.path, MAX_FILE + 1)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(format(
                format!("it has more than {MAX_FILE} bytes"),
                "a list of utterances has a few megabytes",
            ));
        }
        let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let delimiter = if first.contains(&b'\t') { b'\t' } else { b',' };
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .flexible(true)
            .has_headers(false)
            .from_reader(bytes.as_slice());
        let mut record = ByteRecord::new();
        let mut next = |record: &mut ByteRecord| {
            reader.read_byte_record(record).map_err(|cause| format(cause.to_string(), "the file is not valid CSV"))
        };
        next(&mut record)?;
        let header: Vec<String> = record.iter().map(|name| clean_name(&decode(name)).to_owned()).collect();
        let mut rows = Vec::new();
        while next(&mut record)? {
            let line = record.position().map_or(0, csv::Position::line);
            if record.len() != header.len() {
                let problem = format!("{} fields, the header has {}", record.len(), header.len());
                return Err(Problem::with_hint(problem, "a field with commas or quotes must be quoted")
                    .at(&source.name(), format!("line {line}"))
                    .into());
            }
            let fields = record.iter().map(|field| decode(field).trim().to_owned()).collect();
            rows.push(Record { line, fields });
        }
        Ok(Self { source: source.clone(), header, rows })
    }

    /// The position of a column that may be missing.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|found| found == name)
    }

    /// Whether all these columns are there.
    pub(crate) fn has(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.find(name).is_some())
    }

    /// The position of a column that must be there.
    pub(crate) fn column(&self, name: &str, hint: &str) -> Result<usize, Error> {
        self.find(name).ok_or_else(|| Error::Format {
            path: self.source.path.display().to_string(),
            problem: format!("the column `{name}` is missing; it has `{}`", self.header.join("`, `")),
            hint: hint.to_owned(),
        })
    }
}

fn clean_name(name: &str) -> &str {
    name.trim_start_matches('\u{feff}').trim().trim_matches('"').trim()
}

/// Whether the first line of a file may be the header of a table.
pub(crate) fn is_header(line: &[u8]) -> bool {
    let is_text = |byte: &u8| *byte >= b' ' || matches!(byte, b'\t' | b'\r');
    line.iter().all(is_text) && line.iter().any(|byte| matches!(byte, b',' | b'\t'))
}
