//! The features of one modality, as pickles hold them: one padded array, or one array a sample.

use crate::error::Problem;
use crate::read::features::{BadFeatures, Padding, Raw, clean};
use crate::read::pickle::{Column, Numbers, Value};
use crate::schema::Features;

/// The features of one modality of a split.
pub(crate) struct Modality<'d> {
    name: &'static str,
    frames: Frames<'d>,
    lengths: Option<Column<'d>>,
    padding: Padding,
}

enum Frames<'d> {
    /// The file does not have this modality.
    Absent,
    /// One array for all rows, padded to the same number of frames.
    Padded { numbers: Numbers<'d>, dim: usize },
    /// One array a row, of its own number of frames.
    Ragged(Column<'d>),
}

impl<'d> Modality<'d> {
    /// Finds the features under `name` in a dict of columns: `(N, T, D)`, `(N, D)` or one array a row.
    pub(crate) fn of(table: Value<'d>, name: &'static str, padding: Padding) -> Result<Self, Problem> {
        let frames = match table.get(name) {
            Some(value) => Frames::of(name, value)?,
            None => Frames::Absent,
        };
        Ok(Self { name, frames, lengths: None, padding })
    }

    /// Takes the true lengths, one a row, from another key where it exists.
    pub(crate) fn with_lengths(mut self, table: Value<'d>, key: &str) -> Result<Self, Problem> {
        self.lengths = optional(table, key)?;
        Ok(self)
    }

    pub(crate) fn rows(&self) -> Option<usize> {
        match &self.frames {
            Frames::Absent => None,
            Frames::Padded { numbers, .. } => Some(numbers.shape()[0] as usize),
            Frames::Ragged(column) => Some(column.len()),
        }
    }

    pub(crate) fn length_rows(&self) -> Option<usize> {
        self.lengths.as_ref().map(Column::len)
    }

    /// The cleaned features of a row; `bad` grows by the NaN and infinite values met.
    pub(crate) fn features(&self, row: usize, policy: BadFeatures, bad: &mut u64) -> Result<Option<Features>, Problem> {
        let raw = match &self.frames {
            Frames::Absent => None,
            Frames::Padded { numbers, dim } => Some((*dim, numbers.row(row)?)),
            Frames::Ragged(column) => column.value(row).map_or(Ok(None), |value| frames_of(self.name, value))?,
        };
        let Some((dim, data)) = raw else { return Ok(None) };
        let raw = Raw { dim, data, length: self.length(row)?, padding: self.padding };
        let (features, count) = clean(self.name, raw, policy)?;
        *bad += count;
        Ok(features)
    }

    fn length(&self, row: usize) -> Result<Option<usize>, Problem> {
        let Some(lengths) = &self.lengths else { return Ok(None) };
        let length = lengths.number(row)?;
        if length >= 0.0 && length.fract() == 0.0 && length <= f64::from(u32::MAX) {
            return Ok(Some(length as usize));
        }
        Err(Problem::new(format!("{}_lengths is {length}", self.name)))
    }
}

impl<'d> Frames<'d> {
    fn of(name: &str, value: Value<'d>) -> Result<Self, Problem> {
        if value.is_none() {
            return Ok(Self::Absent);
        }
        match value.numbers().map_err(|problem| named(name, problem))? {
            Some(numbers) => {
                let dim = match numbers.shape() {
                    [_, dim] | [_, _, dim] => *dim as usize,
                    shape => {
                        let problem = format!("{name} has shape {shape:?}, expected (N, T, D) or (N, D)");
                        return Err(Problem::new(problem));
                    }
                };
                Ok(Self::Padded { numbers, dim })
            }
            None => Ok(Self::Ragged(value.column().map_err(|problem| named(name, problem))?)),
        }
    }
}

/// Reads the features of one sample: `(T, D)`, or `(D)` for one frame; `None` is a missing modality.
pub(crate) fn frames_of(name: &str, value: Value<'_>) -> Result<Option<(usize, Vec<f32>)>, Problem> {
    if value.is_none() {
        return Ok(None);
    }
    if let Some(numbers) = value.numbers()? {
        return match *numbers.shape() {
            [dim] | [_, dim] => Ok(Some((dim as usize, numbers.all()?))),
            ref shape => Err(Problem::new(format!("{name} has shape {shape:?}, expected (T, D) or (D)"))),
        };
    }
    let wrong = |kind: &str| Problem::new(format!("{name}: expected an array of numbers a row, found {kind}"));
    // Plain lists: of numbers, or of one array a frame.
    let items = value.items().ok_or_else(|| wrong(value.kind()))?;
    let (mut dim, mut data) = (None, Vec::new());
    for item in items {
        if let Some(frame) = item.numbers()?.filter(|frame| frame.shape().len() == 1) {
            let width = frame.shape()[0] as usize;
            if *dim.get_or_insert(width) != width {
                return Err(Problem::new(format!("{name} has frames of {width} and of other numbers of values")));
            }
            data.extend(frame.all()?);
        } else if dim.is_none() {
            data.push(item.number().map_err(|_| wrong("a list of other things"))? as f32);
        } else {
            return Err(wrong("a list of other things"));
        }
    }
    let dim = dim.unwrap_or(data.len());
    Ok(Some((dim, data)))
}

/// Reads and cleans the features of one sample.
pub(crate) fn features_of(
    name: &str,
    value: Option<Value<'_>>,
    padding: Padding,
    policy: BadFeatures,
    bad: &mut u64,
) -> Result<Option<Features>, Problem> {
    let raw = value.map_or(Ok(None), |value| frames_of(name, value))?;
    let Some((dim, data)) = raw else { return Ok(None) };
    let (features, count) = clean(name, Raw { dim, data, length: None, padding }, policy)?;
    *bad += count;
    Ok(features)
}

/// Says in which column a problem is.
pub(crate) fn named(key: &str, problem: Problem) -> Problem {
    Problem { text: format!("{key}: {}", problem.text), hint: problem.hint }
}

/// The column of a key that may be missing or `None`.
pub(crate) fn optional<'d>(table: Value<'d>, key: &str) -> Result<Option<Column<'d>>, Problem> {
    match table.get(key) {
        Some(value) if !value.is_none() => value.column().map(Some).map_err(|problem| named(key, problem)),
        _ => Ok(None),
    }
}
