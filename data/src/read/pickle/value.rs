//! What a pickle holds, seen without copying.

use std::fmt;
use std::fs::File;
use std::path::Path;

use super::array::{Array, ArrayData, Elements, Numbers};
use super::dtype::Dtype;
use super::fault::PickleError;
use super::machine::{Dialect, Limits, run};
use super::numpy::Global;
use super::source::{Blob, ReadAt};
use super::torch::{Storage, View};
use crate::error::{Error, Problem};
use crate::read::text;

/// The number of a value in its document's arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(u32);

impl Id {
    pub(super) fn new(index: usize) -> Option<Self> {
        u32::try_from(index).ok().map(Self)
    }

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Blob),
    Bytes(Blob),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Set(Vec<Id>),
    Global(Global),
    Dtype(Dtype),
    /// An array that has been announced and not yet filled.
    Unbuilt,
    Array(Box<Array>),
    Storage(Box<Storage>),
    Tensor(Box<View>),
}

impl Node {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Text(_) => "a text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dict",
            Self::Set(_) => "a set",
            Self::Global(_) => "a function",
            Self::Dtype(_) => "a numpy type",
            Self::Unbuilt => "an unfinished array",
            Self::Array(_) => "an array",
            Self::Storage(_) => "a storage of torch",
            Self::Tensor(_) => "a tensor",
        }
    }
}

/// A pickle that has been read; its large arrays are still in the file.
pub struct Document {
    source: Box<dyn ReadAt>,
    pub(super) nodes: Vec<Node>,
    root: Id,
    text_limit: u64,
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("values", &self.nodes.len()).finish_non_exhaustive()
    }
}

impl Document {
    /// Reads the pickle of a file.
    pub fn open(path: &Path, limits: Limits) -> Result<Self, Error> {
        let file = File::open(path).map_err(|cause| Error::io("open", path, cause))?;
        Self::read(Box::new(file), limits).map_err(|cause| Error::Pickle { path: path.display().to_string(), cause })
    }

    /// Reads a pickle from any source of bytes.
    pub fn read(source: Box<dyn ReadAt>, limits: Limits) -> Result<Self, PickleError> {
        Self::of(source, limits, Dialect::Numpy)
    }

    /// Reads the pickle of a file that `torch.save` wrote; its tensors say where in other files their bytes are.
    pub(crate) fn torch(source: Box<dyn ReadAt>, limits: Limits) -> Result<Self, PickleError> {
        Self::of(source, limits, Dialect::Torch)
    }

    fn of(source: Box<dyn ReadAt>, limits: Limits, dialect: Dialect) -> Result<Self, PickleError> {
        let (nodes, root) = run(source.as_ref(), limits, dialect)?;
        Ok(Self { source, nodes, root, text_limit: limits.text })
    }

    /// A document of one value.
    pub(super) fn of_node(source: Box<dyn ReadAt>, node: Node, text_limit: u64) -> Self {
        Self { source, nodes: vec![node], root: Id(0), text_limit }
    }

    /// The value that was pickled.
    pub fn root(&self) -> Value<'_> {
        Value { document: self, id: self.root }
    }
}

/// A value of a [`Document`].
#[derive(Clone, Copy)]
pub struct Value<'d> {
    pub(super) document: &'d Document,
    pub(super) id: Id,
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

impl<'d> Value<'d> {
    fn node(self) -> &'d Node {
        &self.document.nodes[self.id.index()]
    }

    fn at(self, id: Id) -> Self {
        Self { document: self.document, id }
    }

    /// What kind of value it is, in words.
    pub fn kind(self) -> &'static str {
        self.node().kind()
    }

    /// Whether it is `None`.
    pub fn is_none(self) -> bool {
        matches!(self.node(), Node::None)
    }

    /// The entries of a dict; `None` if it is none.
    pub fn entries(self) -> Option<impl Iterator<Item = (Value<'d>, Value<'d>)>> {
        match self.node() {
            Node::Dict(entries) => Some(entries.iter().map(move |(key, value)| (self.at(*key), self.at(*value)))),
            _ => None,
        }
    }

    /// The value of a dict's key; of several the last, as in Python.
    pub fn get(self, key: &str) -> Option<Value<'d>> {
        let matching = self.entries()?.filter(|(found, _)| found.is_text(key));
        matching.last().map(|(_, value)| value)
    }

    /// The first keys of a dict that are texts, for error messages.
    pub fn keys(self) -> Vec<String> {
        let entries = self.entries().into_iter().flatten();
        entries.filter_map(|(key, _)| key.text().ok()).take(30).collect()
    }

    fn is_text(self, expected: &str) -> bool {
        match self.node() {
            Node::Text(Blob::Inline(bytes)) | Node::Bytes(Blob::Inline(bytes)) => **bytes == *expected.as_bytes(),
            _ => false,
        }
    }

    /// Reads a text; bytes are taken as UTF-8 or else as Windows-1252.
    pub(crate) fn text(self) -> Result<String, Problem> {
        let (blob, strict) = match self.node() {
            Node::Text(blob) => (blob, true),
            Node::Bytes(blob) => (blob, false),
            other => return Err(Problem::new(format!("expected a text, found {}", other.kind()))),
        };
        if blob.len() > self.document.text_limit {
            return Err(Problem::new(format!("a text of {} bytes", blob.len())));
        }
        let mut bytes = vec![0; blob.len() as usize];
        let read = blob.read(self.document.source.as_ref(), 0, &mut bytes);
        read.map_err(|cause| Problem::new(format!("cannot read a text: {cause}")))?;
        if strict {
            return String::from_utf8(bytes).map_err(|_| Problem::new("a text that is not UTF-8"));
        }
        Ok(text::decode(&bytes))
    }

    /// Reads a number; an array of one element is one too.
    pub(crate) fn number(self) -> Result<f64, Problem> {
        match self.node() {
            Node::Bool(value) => Ok(f64::from(u8::from(*value))),
            Node::Int(value) => Ok(*value as f64),
            Node::Float(value) => Ok(*value),
            // Arrays of objects are left out: one can hold itself.
            Node::Array(array) if array.rows() == 1 && matches!(array.data, ArrayData::Bytes(_)) => {
                self.column()?.number(0)
            }
            other => Err(Problem::new(format!("expected a number, found {}", other.kind()))),
        }
    }

    /// Sees a list, a tuple or an array as one value a row.
    pub(crate) fn column(self) -> Result<Column<'d>, Problem> {
        let rows = match self.node() {
            Node::List(items) | Node::Tuple(items) => Rows::Values(items),
            Node::Array(array) => match &array.data {
                ArrayData::Objects(list) => match self.at(*list).node() {
                    Node::List(items) if array.row_items() == 1 => Rows::Values(items),
                    _ => return Err(Problem::new(format!("an array of objects of shape {:?}", array.shape))),
                },
                ArrayData::Bytes(_) if array.row_items() == 1 => {
                    Rows::Elements(array.elements(self.document.source.as_ref())?)
                }
                ArrayData::Bytes(_) => {
                    return Err(Problem::new(format!("expected one value a row, found shape {:?}", array.shape)));
                }
            },
            other => return Err(Problem::new(format!("expected a list or an array, found {}", other.kind()))),
        };
        let length = match &rows {
            Rows::Values(items) => items.len(),
            Rows::Elements(elements) => elements.rows(),
        };
        Ok(Column { owner: self, rows, length })
    }

    /// The values of a list, a tuple, a set or an array of objects; `None` if it is none of them.
    pub(crate) fn items(self) -> Option<impl ExactSizeIterator<Item = Value<'d>>> {
        let items = match self.node() {
            Node::List(items) | Node::Tuple(items) | Node::Set(items) => items,
            Node::Array(array) => match &array.data {
                ArrayData::Objects(list) => match self.at(*list).node() {
                    Node::List(items) => items,
                    _ => return None,
                },
                ArrayData::Bytes(_) => return None,
            },
            _ => return None,
        };
        Some(items.iter().map(move |id| self.at(*id)))
    }

    /// The item of a list or a tuple.
    pub(crate) fn item(self, index: usize) -> Option<Value<'d>> {
        self.items()?.nth(index)
    }

    /// A text, or a number as one: the keys of dicts and parts of ids are either.
    pub(crate) fn label(self) -> Result<String, Problem> {
        match self.node() {
            Node::Int(value) => Ok(value.to_string()),
            Node::Float(value) => Ok(value.to_string()),
            _ => self.text(),
        }
    }

    /// Sees a list or an array as one value a row, each row of so many cells.
    pub(crate) fn cells(self) -> Result<Cells<'d>, Problem> {
        match self.node() {
            Node::Array(array) => {
                let width = array.row_items();
                let content = match &array.data {
                    ArrayData::Bytes(_) => Grid::Elements(array.elements(self.document.source.as_ref())?),
                    ArrayData::Objects(list) => match self.at(*list).node() {
                        Node::List(items) => Grid::Values(items),
                        other => {
                            return Err(Problem::new(format!("expected a list of objects, found {}", other.kind())));
                        }
                    },
                };
                Ok(Cells { owner: self, content, rows: array.rows(), width })
            }
            Node::List(items) | Node::Tuple(items) => {
                Ok(Cells { owner: self, content: Grid::Rows(items), rows: items.len(), width: 1 })
            }
            other => Err(Problem::new(format!("expected a list or an array, found {}", other.kind()))),
        }
    }

    /// Sees an array of numbers; `None` if it is anything else.
    pub(crate) fn numbers(self) -> Result<Option<Numbers<'d>>, Problem> {
        match self.node() {
            Node::Array(array) if matches!(array.data, ArrayData::Bytes(_)) => {
                Ok(Numbers::new(array.elements(self.document.source.as_ref())?))
            }
            _ => Ok(None),
        }
    }
}

/// A list or an array as some cells a row, such as ids of shape `(N, 3)`.
pub(crate) struct Cells<'d> {
    owner: Value<'d>,
    content: Grid<'d>,
    rows: usize,
    width: usize,
}

enum Grid<'d> {
    /// All cells, row by row.
    Values(&'d [Id]),
    Elements(Elements<'d>),
    /// One value a row, which may have cells of its own.
    Rows(&'d [Id]),
}

impl Cells<'_> {
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The cells of a row as texts; numbers are written out.
    pub(crate) fn row(&self, row: usize) -> Result<Vec<String>, Problem> {
        let missing = || missing(row);
        match &self.content {
            Grid::Elements(elements) => {
                if row >= self.rows {
                    return Err(missing());
                }
                let bytes = elements.row(row)?;
                let dtype = elements.dtype();
                let size = (dtype.item_size() as usize).max(1);
                let cell = |cell: &[u8]| dtype.text(cell).or_else(|| Some(dtype.number(cell)?.to_string()));
                let cells = bytes.chunks_exact(size).map(cell).collect::<Option<_>>();
                cells.ok_or_else(|| Problem::new(format!("expected texts, found {:?}", dtype.kind)))
            }
            Grid::Values(items) => {
                let cells = items.get(row * self.width..(row + 1) * self.width).ok_or_else(missing)?;
                cells.iter().map(|id| self.owner.at(*id).label()).collect()
            }
            Grid::Rows(items) => {
                let value = self.owner.at(*items.get(row).ok_or_else(missing)?);
                if let Some(cells) = value.items() {
                    return cells.map(Value::label).collect();
                }
                match value.node() {
                    // A row that is an array of its own: its elements are the cells.
                    Node::Array(_) => {
                        let cells = value.cells()?;
                        (0..cells.rows()).map(|cell| Ok(cells.row(cell)?.concat())).collect()
                    }
                    _ => Ok(vec![value.label()?]),
                }
            }
        }
    }
}

/// A list or an array as one value a row.
pub struct Column<'d> {
    owner: Value<'d>,
    rows: Rows<'d>,
    length: usize,
}

enum Rows<'d> {
    Values(&'d [Id]),
    Elements(Elements<'d>),
}

impl fmt::Debug for Column<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Column[{}]", self.length)
    }
}

impl<'d> Column<'d> {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The value of a row, if rows are values of their own.
    pub fn value(&self, row: usize) -> Option<Value<'d>> {
        match &self.rows {
            Rows::Values(items) => items.get(row).map(|id| self.owner.at(*id)),
            Rows::Elements(_) => None,
        }
    }

    pub(crate) fn text(&self, row: usize) -> Result<String, Problem> {
        match &self.rows {
            Rows::Values(_) => self.value(row).ok_or_else(|| missing(row))?.text(),
            Rows::Elements(elements) => {
                let bytes = self.element(elements, row)?;
                let dtype = elements.dtype();
                dtype.text(&bytes).ok_or_else(|| Problem::new(format!("expected a text, found {:?}", dtype.kind)))
            }
        }
    }

    pub(crate) fn number(&self, row: usize) -> Result<f64, Problem> {
        match &self.rows {
            Rows::Values(_) => self.value(row).ok_or_else(|| missing(row))?.number(),
            Rows::Elements(elements) => {
                let bytes = self.element(elements, row)?;
                let dtype = elements.dtype();
                dtype.number(&bytes).ok_or_else(|| Problem::new(format!("expected a number, found {:?}", dtype.kind)))
            }
        }
    }

    fn element(&self, elements: &Elements<'d>, row: usize) -> Result<Vec<u8>, Problem> {
        if row >= self.length {
            return Err(missing(row));
        }
        Ok(elements.row(row)?.into_owned())
    }
}

fn missing(row: usize) -> Problem {
    Problem::new(format!("there is no row {row}"))
}
