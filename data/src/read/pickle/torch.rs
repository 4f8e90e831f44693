//! What `torch.save` adds to a pickle: storages, which are named and kept elsewhere, and tensors, which are views of them.

use super::fault::PickleFault;
use super::machine::{Machine, unexpected};
use super::value::{Document, Id, Node, Value};

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TorchDtype {
    /// `torch.float64`
    F64,
    /// `torch.float32`
    F32,
    /// `torch.float16`
    F16,
    /// `torch.bfloat16`
    BF16,
    /// `torch.int64`
    I64,
    /// `torch.int32`
    I32,
    /// `torch.int16`
    I16,
    /// `torch.int8`
    I8,
    /// `torch.uint8`
    U8,
    /// `torch.bool`, a byte each
    Bool,
}

impl TorchDtype {
    fn of_storage(class: &str) -> Option<Self> {
        match class {
            "DoubleStorage" => Some(Self::F64),
            "FloatStorage" => Some(Self::F32),
            "HalfStorage" => Some(Self::F16),
            "BFloat16Storage" => Some(Self::BF16),
            "LongStorage" => Some(Self::I64),
            "IntStorage" => Some(Self::I32),
            "ShortStorage" => Some(Self::I16),
            "CharStorage" => Some(Self::I8),
            "ByteStorage" => Some(Self::U8),
            "BoolStorage" => Some(Self::Bool),
            _ => None,
        }
    }

    /// The bytes an element takes.
    pub fn item_size(self) -> u64 {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

/// A global of torch that a pickle may name; none of them runs code of the pickle's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TorchGlobal {
    RebuildTensor,
    RebuildParameter,
    /// The class of a storage, which says what its elements are.
    Storage(TorchDtype),
}

impl TorchGlobal {
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Self::RebuildParameter),
            ("torch", class) => TorchDtype::of_storage(class).map(Self::Storage),
            _ => None,
        }
    }
}

/// Elements in a file of their own.
#[derive(Debug)]
pub(super) struct Storage {
    dtype: TorchDtype,
    key: Box<str>,
    items: u64,
}

/// Which elements of a storage a tensor has.
#[derive(Debug)]
pub(super) struct View {
    storage: Id,
    offset: u64,
    shape: Vec<u64>,
    strides: Vec<u64>,
}

/// About what a storage or a view takes in memory besides its text and its axes.
const NODE: u64 = 96;

impl Machine<'_> {
    /// Looks up a persistent id: `("storage", class, key, device, elements)`.
    pub(super) fn storage(&mut self, id: Id) -> Result<Node, PickleFault> {
        let parts = self.tuple(id)?;
        let [kind, class, key, _device, items] = parts[..] else {
            let found = format!("{} parts", parts.len());
            return Err(PickleFault::Unexpected { expected: "a storage's persistent id of 5 parts", found });
        };
        if self.short_text(kind)? != "storage" {
            return Err(PickleFault::Unsupported("a persistent id of anything but a storage".to_owned()));
        }
        let dtype = match self.node(class) {
            Node::Global(super::numpy::Global::Torch(TorchGlobal::Storage(dtype))) => *dtype,
            other => return Err(unexpected("the class of a storage", other)),
        };
        let key = self.short_text(key)?;
        let items = self.size(items)?;
        self.hold(NODE + key.len() as u64)?;
        Ok(Node::Storage(Box::new(Storage { dtype, key: key.into(), items })))
    }

    pub(super) fn call_torch(&mut self, global: TorchGlobal, arguments: &[Id]) -> Result<Id, PickleFault> {
        match (global, arguments) {
            // Whether and how it is trained makes no difference to what a tensor holds.
            (TorchGlobal::RebuildParameter, [tensor, _requires_grad, _hooks]) => match self.node(*tensor) {
                Node::Tensor(_) => Ok(*tensor),
                other => Err(unexpected("the tensor of a parameter", other)),
            },
            (TorchGlobal::RebuildTensor, [storage, offset, shape, strides, _requires_grad, _hooks, marks @ ..]) => {
                self.unmarked(marks)?;
                let view = self.view(*storage, *offset, *shape, *strides)?;
                self.allocate(Node::Tensor(Box::new(view)))
            }
            _ => Err(PickleFault::Unexpected {
                expected: "a known function of torch with its arguments",
                found: format!("{global:?} with {} arguments", arguments.len()),
            }),
        }
    }

    fn view(&mut self, storage: Id, offset: Id, shape: Id, strides: Id) -> Result<View, PickleFault> {
        if !matches!(self.node(storage), Node::Storage(_)) {
            return Err(unexpected("the storage of a tensor", self.node(storage)));
        }
        let offset = self.size(offset)?;
        let (shape, strides) = (self.shape(shape)?, self.shape(strides)?);
        if shape.len() != strides.len() {
            return Err(PickleFault::Shape(format!("shape {shape:?} with strides {strides:?}")));
        }
        self.hold(NODE + 16 * shape.len() as u64)?;
        Ok(View { storage, offset, shape, strides })
    }

    /// Refuses the marks of a lazily conjugated or negated tensor: its bytes are not its values.
    fn unmarked(&self, marks: &[Id]) -> Result<(), PickleFault> {
        match marks {
            [] => Ok(()),
            [mark] => match self.node(*mark) {
                Node::None => Ok(()),
                Node::Dict(entries) if entries.is_empty() => Ok(()),
                _ => Err(PickleFault::Unsupported("a tensor that is lazily conjugated or negated".to_owned())),
            },
            _ => Err(PickleFault::Unexpected {
                expected: "a tensor of 6 or 7 arguments",
                found: (6 + marks.len()).to_string(),
            }),
        }
    }

    fn size(&self, id: Id) -> Result<u64, PickleFault> {
        match self.node(id) {
            Node::Int(size) => u64::try_from(*size).map_err(|_| PickleFault::Shape(format!("a size of {size}"))),
            other => Err(unexpected("a size", other)),
        }
    }
}

/// A tensor of a [`Document`]: elements of a storage, of which only the name is known here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tensor<'d> {
    pub(crate) dtype: TorchDtype,
    /// The name of the storage.
    pub(crate) key: &'d str,
    /// The elements that the storage is said to have.
    pub(crate) items: u64,
    /// The first element.
    pub(crate) offset: u64,
    pub(crate) shape: &'d [u64],
    /// Distance between neighbours along each axis, in elements.
    pub(crate) strides: &'d [u64],
}

impl<'d> Value<'d> {
    /// Sees a tensor; `None` if it is anything else.
    pub(crate) fn tensor(self) -> Option<Tensor<'d>> {
        let nodes = &self.document.nodes;
        let Node::Tensor(view) = &nodes[self.id.index()] else { return None };
        let Node::Storage(storage) = &nodes[view.storage.index()] else { return None };
        let Storage { dtype, key, items } = &**storage;
        let View { offset, shape, strides, .. } = &**view;
        Some(Tensor { dtype: *dtype, key, items: *items, offset: *offset, shape, strides })
    }
}

/// Looks for tensors inside of values, at each value once however often it is shared.
pub(crate) struct Search<'d> {
    document: &'d Document,
    seen: Vec<bool>,
}

impl<'d> Search<'d> {
    pub(crate) fn new(document: &'d Document) -> Self {
        Self { document, seen: vec![false; document.nodes.len()] }
    }

    /// Whether a value is or holds a tensor that no earlier value has led to.
    pub(crate) fn finds(&mut self, value: Value<'d>) -> bool {
        let mut open = vec![value.id];
        while let Some(id) = open.pop() {
            if std::mem::replace(&mut self.seen[id.index()], true) {
                continue;
            }
            match &self.document.nodes[id.index()] {
                Node::Tensor(_) => return true,
                Node::List(items) | Node::Tuple(items) | Node::Set(items) => open.extend(items),
                Node::Dict(entries) => open.extend(entries.iter().flat_map(|(key, value)| [*key, *value])),
                _ => {}
            }
        }
        false
    }
}
