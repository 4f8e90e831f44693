//! Numpy arrays: their shape, and their elements row by row.

use std::borrow::Cow;
use std::io;

use super::dtype::{Dtype, Kind};
use super::fault::PickleFault;
use super::source::{Blob, ReadAt};
use super::value::Id;
use crate::error::Problem;

/// The most bytes of an array read at once, because of its order or because it is one sample's.
const MAX_AT_ONCE: u64 = 1 << 30;

#[derive(Clone, Debug)]
pub(super) struct Array {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    /// Distance between neighbours along each axis, in elements.
    strides: Vec<u64>,
    pub(super) data: ArrayData,
}

#[derive(Clone, Debug)]
pub(super) enum ArrayData {
    Bytes(Blob),
    Objects(Id),
}

impl Array {
    pub(super) fn of_bytes(dtype: Dtype, shape: Vec<u64>, fortran: bool, data: Blob) -> Result<Self, PickleFault> {
        let items = count(&shape)?;
        if dtype.item_size() == 0 && items > 0 {
            return Err(PickleFault::Shape(format!("{items} elements of no size")));
        }
        let needed = items.checked_mul(dtype.item_size());
        if needed != Some(data.len()) {
            return Err(PickleFault::Shape(format!("shape {shape:?} of {:?} has {} bytes", dtype.kind, data.len())));
        }
        let strides = if fortran { fortran_strides(&shape) } else { c_strides(&shape) };
        Ok(Self { dtype, shape, strides, data: ArrayData::Bytes(data) })
    }

    pub(super) fn of_objects(dtype: Dtype, shape: Vec<u64>, list: Id, items: usize) -> Result<Self, PickleFault> {
        if count(&shape)? != items as u64 {
            return Err(PickleFault::Shape(format!("shape {shape:?} has {items} objects")));
        }
        let strides = c_strides(&shape);
        Ok(Self { dtype, shape, strides, data: ArrayData::Objects(list) })
    }

    /// Reorders the axes without touching the data.
    pub(super) fn transposed(mut self, axes: &[u64]) -> Result<Self, PickleFault> {
        let wrong = || PickleFault::Shape(format!("axes {axes:?} for shape {:?}", self.shape));
        let mut sorted = axes.to_vec();
        sorted.sort_unstable();
        if sorted.len() != self.shape.len() || !sorted.iter().copied().eq(0..axes.len() as u64) {
            return Err(wrong());
        }
        let reorder = |values: &[u64]| axes.iter().map(|axis| values[*axis as usize]).collect();
        (self.shape, self.strides) = (reorder(&self.shape), reorder(&self.strides));
        Ok(self)
    }

    /// The length of the first axis; an array without axes is one element.
    pub(super) fn rows(&self) -> usize {
        self.shape.first().map_or(1, |rows| *rows as usize)
    }

    /// The elements in each row.
    pub(super) fn row_items(&self) -> usize {
        self.shape.iter().skip(1).product::<u64>() as usize
    }

    pub(super) fn elements<'d>(&'d self, source: &'d dyn ReadAt) -> Result<Elements<'d>, Problem> {
        let ArrayData::Bytes(blob) = &self.data else {
            return Err(Problem::new("expected an array of numbers or strings, found an array of objects"));
        };
        let in_order = self.strides == c_strides(&self.shape);
        let storage = if in_order { Storage::InOrder(blob, source) } else { Storage::Strided(whole(blob, source)?) };
        Ok(Elements { array: self, storage })
    }
}

fn whole(blob: &Blob, source: &dyn ReadAt) -> Result<Vec<u8>, Problem> {
    if blob.len() > MAX_AT_ONCE {
        let problem = format!("an array of {} bytes would have to be read at once", blob.len());
        return Err(Problem::with_hint(problem, "save it in C order, with numpy.ascontiguousarray"));
    }
    let mut bytes = vec![0; blob.len() as usize];
    blob.read(source, 0, &mut bytes).map_err(|cause| unreadable(&cause))?;
    Ok(bytes)
}

fn unreadable(cause: &io::Error) -> Problem {
    Problem::new(format!("cannot read the array: {cause}"))
}

fn count(shape: &[u64]) -> Result<u64, PickleFault> {
    // An array that is empty along one axis must not be endless along another.
    let bound = shape.iter().try_fold(1u64, |product, axis| product.checked_mul((*axis).max(1)));
    bound.filter(|bound| *bound < 1 << 48).ok_or_else(|| PickleFault::Shape(format!("impossible shape {shape:?}")))?;
    Ok(shape.iter().product())
}

fn c_strides(shape: &[u64]) -> Vec<u64> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    strides
}

fn fortran_strides(shape: &[u64]) -> Vec<u64> {
    let mut strides = vec![1; shape.len()];
    for axis in 1..shape.len() {
        strides[axis] = strides[axis - 1] * shape[axis - 1].max(1);
    }
    strides
}

/// The elements of an array that holds bytes.
pub(super) struct Elements<'d> {
    array: &'d Array,
    storage: Storage<'d>,
}

enum Storage<'d> {
    InOrder(&'d Blob, &'d dyn ReadAt),
    Strided(Vec<u8>),
}

impl Elements<'_> {
    /// The bytes of a row's elements, in C order.
    pub(super) fn row(&self, row: usize) -> Result<Cow<'_, [u8]>, Problem> {
        let size = self.array.dtype.item_size() as usize;
        let items = self.array.row_items();
        let length = items * size;
        match &self.storage {
            Storage::InOrder(blob, source) => {
                let mut bytes = vec![0; length];
                let read = blob.read(*source, (row * length) as u64, &mut bytes);
                read.map_err(|cause| unreadable(&cause))?;
                Ok(Cow::Owned(bytes))
            }
            Storage::Strided(all) => {
                let mut bytes = Vec::with_capacity(length);
                for item in 0..items {
                    let at = self.offset(row, item) * size;
                    bytes.extend_from_slice(&all[at..at + size]);
                }
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// The bytes of all elements, in C order.
    pub(super) fn all(&self) -> Result<Vec<u8>, Problem> {
        match &self.storage {
            Storage::InOrder(blob, source) => whole(blob, *source),
            Storage::Strided(_) => {
                Ok((0..self.rows()).map(|row| self.row(row)).collect::<Result<Vec<_>, _>>()?.concat())
            }
        }
    }

    /// Where the `item`th element of a row, counted in C order, is stored.
    fn offset(&self, row: usize, item: usize) -> usize {
        let mut rest = item as u64;
        let mut offset = 0;
        for axis in (1..self.array.shape.len()).rev() {
            offset += rest % self.array.shape[axis] * self.array.strides[axis];
            rest /= self.array.shape[axis];
        }
        let first = self.array.strides.first().copied().unwrap_or(0);
        (offset + row as u64 * first) as usize
    }

    pub(super) fn dtype(&self) -> Dtype {
        self.array.dtype
    }

    pub(super) fn rows(&self) -> usize {
        self.array.rows()
    }
}

/// An array of numbers, read a row of the first axis at a time.
pub struct Numbers<'d> {
    elements: Elements<'d>,
}

impl std::fmt::Debug for Numbers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Numbers{:?}", self.shape())
    }
}

impl<'d> Numbers<'d> {
    pub(super) fn new(elements: Elements<'d>) -> Option<Self> {
        elements.dtype().is_number().then_some(Self { elements })
    }

    /// The lengths of the axes.
    pub fn shape(&self) -> &[u64] {
        &self.elements.array.shape
    }

    /// Reads a row as single precision, in C order; what does not fit becomes infinite.
    pub(crate) fn row(&self, row: usize) -> Result<Vec<f32>, Problem> {
        Ok(self.decode(&self.elements.row(row)?))
    }

    /// Reads all rows at once, for arrays of one sample.
    pub(crate) fn all(&self) -> Result<Vec<f32>, Problem> {
        Ok(self.decode(&self.elements.all()?))
    }

    fn decode(&self, bytes: &[u8]) -> Vec<f32> {
        let dtype = self.elements.dtype();
        if dtype.kind == Kind::Float(4) && !dtype.big_endian {
            return bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        }
        let size = (dtype.item_size() as usize).max(1);
        bytes.chunks_exact(size).filter_map(|value| dtype.number(value)).map(|value| value as f32).collect()
    }
}
