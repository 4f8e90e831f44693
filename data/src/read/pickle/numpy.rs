//! The closed list of globals, and what calling them makes.

use super::array::Array;
use super::dtype::{Dtype, Kind};
use super::fault::PickleFault;
use super::machine::{Dialect, Machine, unexpected};
use super::source::Blob;
use super::torch::TorchGlobal;
use super::value::{Id, Node};

/// A global that a pickle may name. None of them runs code of the pickle's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    Ndarray,
    Dtype,
    Reconstruct,
    Scalar,
    FromBuffer,
    CodecsEncode,
    OrderedDict,
    DefaultDict,
    Set,
    Bytes,
    /// A type that only says what a `defaultdict` makes; nothing is ever made of it.
    Factory,
    /// What only `torch.save` writes.
    Torch(TorchGlobal),
}

impl Global {
    /// The global of a name, if files of this kind have it.
    pub(super) fn find(dialect: Dialect, module: &str, name: &str) -> Option<Self> {
        if dialect == Dialect::Torch {
            return match (module, name) {
                ("collections", "OrderedDict") => Some(Self::OrderedDict),
                _ => TorchGlobal::find(module, name).map(Self::Torch),
            };
        }
        match (module, name) {
            ("numpy", "ndarray") => Some(Self::Ndarray),
            ("numpy", "dtype") => Some(Self::Dtype),
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Some(Self::Reconstruct),
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Some(Self::Scalar),
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Some(Self::FromBuffer),
            ("_codecs", "encode") => Some(Self::CodecsEncode),
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("collections", "defaultdict") => Some(Self::DefaultDict),
            // Protocols 0 to 3 write sets so.
            ("__builtin__" | "builtins", "set" | "frozenset") => Some(Self::Set),
            ("__builtin__" | "builtins", "list" | "dict" | "int" | "float" | "str") => Some(Self::Factory),
            // Python 3 writes empty bytes so in protocols 0 to 2.
            ("__builtin__" | "builtins", "bytes") => Some(Self::Bytes),
            _ => None,
        }
    }
}

impl Machine<'_> {
    /// Evaluates `callable(*arguments)` for the callables of the list.
    pub(super) fn call(&mut self, callable: Id, arguments: Id) -> Result<Id, PickleFault> {
        let Node::Global(global) = *self.node(callable) else {
            return Err(unexpected("a known function", self.node(callable)));
        };
        let arguments = self.tuple(arguments)?;
        if let Global::Torch(global) = global {
            return self.call_torch(global, &arguments);
        }
        let made = match (global, arguments.as_slice()) {
            (Global::Dtype, [code, ..]) => Node::Dtype(Dtype::parse(&self.short_text(*code)?)?),
            (Global::Reconstruct, [class, ..]) => match self.node(*class) {
                Node::Global(Global::Ndarray) => Node::Unbuilt,
                other => return Err(unexpected("numpy.ndarray", other)),
            },
            (Global::Scalar, [dtype, bytes]) => self.scalar(*dtype, *bytes)?,
            (Global::FromBuffer, [bytes, dtype, shape, order]) => {
                self.array_of_buffer(*bytes, *dtype, *shape, *order, None)?
            }
            (Global::FromBuffer, [bytes, dtype, shape, order, axes]) => {
                self.array_of_buffer(*bytes, *dtype, *shape, *order, Some(*axes))?
            }
            (Global::CodecsEncode, [text, codec]) => self.encode_latin1(*text, *codec)?,
            (Global::OrderedDict | Global::DefaultDict, []) | (Global::DefaultDict, [_]) => Node::Dict(Vec::new()),
            (Global::OrderedDict, [pairs]) => self.dict_of(*pairs)?,
            (Global::Set, []) => Node::Set(Vec::new()),
            (Global::Set, [items]) => match self.node(*items) {
                Node::List(items) | Node::Tuple(items) => {
                    let items = items.clone();
                    // Each call copies the list, which a small file may ask for many times.
                    self.hold(items.len() as u64 * 4)?;
                    Node::Set(items)
                }
                other => return Err(unexpected("a list", other)),
            },
            (Global::Bytes, []) => Node::Bytes(Blob::Inline(Box::default())),
            _ => {
                let expected = "a known function with its arguments";
                return Err(PickleFault::Unexpected {
                    expected,
                    found: format!("{global:?} with {} arguments", arguments.len()),
                });
            }
        };
        let contents: Vec<Id> = match &made {
            Node::Dict(pairs) => pairs.iter().flat_map(|(key, value)| [*key, *value]).collect(),
            Node::Set(items) => items.clone(),
            _ => Vec::new(),
        };
        let id = self.allocate(made)?;
        self.deepen(id, &contents)?;
        Ok(id)
    }

    /// Evaluates `target.__setstate__(state)` for arrays and their types.
    pub(super) fn build(&mut self, target: Id, state: Id) -> Result<(), PickleFault> {
        match self.node(target) {
            Node::Unbuilt => self.build_array(target, state),
            Node::Dtype(dtype) => {
                let dtype = *dtype;
                let state = self.tuple(state)?;
                *self.node_mut(target) = Node::Dtype(self.dtype_of_state(dtype, &state)?);
                Ok(())
            }
            // `state_dict()` hangs the versions of its modules on the dict, as an attribute: nothing that is stored.
            Node::Dict(_) if self.dialect == Dialect::Torch => match self.node(state) {
                Node::Dict(_) => Ok(()),
                other => Err(unexpected("the attributes of a dict", other)),
            },
            other => Err(unexpected("an array or a numpy type to fill", other)),
        }
    }

    fn build_array(&mut self, target: Id, state: Id) -> Result<(), PickleFault> {
        let parts = self.tuple(state)?;
        let [_version, shape, dtype, fortran, data] = parts[..] else {
            return Err(PickleFault::Unexpected {
                expected: "an array's state of 5 parts",
                found: format!("{} parts", parts.len()),
            });
        };
        let shape = self.shape(shape)?;
        let dtype = self.dtype(dtype)?;
        let fortran = match self.node(fortran) {
            Node::Bool(value) => *value,
            Node::Int(value) => *value != 0,
            other => return Err(unexpected("the array's order", other)),
        };
        let array = match (dtype.kind, self.node(data)) {
            (Kind::Object, Node::List(items)) => {
                let items = items.len();
                // Objects are listed in C order, whatever the order in memory was.
                self.deepen(target, &[data])?;
                Array::of_objects(dtype, shape, data, items)?
            }
            (Kind::Object, other) => return Err(unexpected("a list of objects", other)),
            (_, Node::Bytes(bytes)) => {
                let bytes = bytes.clone();
                self.hold_copy(&bytes)?;
                Array::of_bytes(dtype, shape, fortran, bytes)?
            }
            (_, other) => return Err(unexpected("an array's bytes", other)),
        };
        *self.node_mut(target) = Node::Array(Box::new(array));
        Ok(())
    }

    fn array_of_buffer(
        &mut self,
        bytes: Id,
        dtype: Id,
        shape: Id,
        order: Id,
        axes: Option<Id>,
    ) -> Result<Node, PickleFault> {
        let dtype = self.dtype(dtype)?;
        let shape = self.shape(shape)?;
        let Node::Bytes(data) = self.node(bytes) else {
            return Err(unexpected("an array's bytes", self.node(bytes)));
        };
        let data = data.clone();
        self.hold_copy(&data)?;
        let order = self.short_text(order)?;
        if dtype.kind == Kind::Object {
            return Err(PickleFault::Dtype("O in a buffer".to_owned()));
        }
        let array = match (order.as_str(), axes) {
            ("C", _) | ("K", None) => Array::of_bytes(dtype, shape, false, data)?,
            ("F", _) => Array::of_bytes(dtype, shape, true, data)?,
            ("K", Some(axes)) => match self.node(axes) {
                Node::None => Array::of_bytes(dtype, shape, false, data)?,
                _ => Array::of_bytes(dtype, shape, false, data)?.transposed(&self.shape(axes)?)?,
            },
            _ => return Err(PickleFault::Shape(format!("unknown array order `{}`", order.escape_debug()))),
        };
        Ok(Node::Array(Box::new(array)))
    }

    fn scalar(&self, dtype: Id, bytes: Id) -> Result<Node, PickleFault> {
        let dtype = self.dtype(dtype)?;
        let Node::Bytes(Blob::Inline(bytes)) = self.node(bytes) else {
            return Err(unexpected("the bytes of a number", self.node(bytes)));
        };
        if bytes.len() as u64 != dtype.item_size() {
            return Err(PickleFault::Shape(format!("{} bytes for one {:?}", bytes.len(), dtype.kind)));
        }
        let number = dtype.number(bytes);
        match (dtype.kind, number) {
            (Kind::Bool, Some(value)) => Ok(Node::Bool(value != 0.0)),
            (Kind::Int(_) | Kind::Uint(_), Some(value)) => Ok(Node::Int(value as i64)),
            (_, Some(value)) => Ok(Node::Float(value)),
            (_, None) => {
                let text = dtype.text(bytes).ok_or(PickleFault::BadText)?;
                Ok(Node::Text(Blob::Inline(text.into_bytes().into())))
            }
        }
    }

    /// `_codecs.encode(text, "latin1")`: how protocols 0 to 2 write bytes.
    fn encode_latin1(&mut self, text: Id, codec: Id) -> Result<Node, PickleFault> {
        let codec = self.short_text(codec)?;
        if !matches!(codec.as_str(), "latin1" | "latin-1" | "iso-8859-1") {
            return Err(PickleFault::Unsupported(format!("the codec `{}`", codec.escape_debug())));
        }
        let Node::Text(blob) = self.node(text) else { return Err(unexpected("a text", self.node(text))) };
        let blob = blob.clone();
        self.hold(blob.len())?;
        let mut utf8 = vec![0; blob.len() as usize];
        let read = blob.read(self.input.source(), 0, &mut utf8);
        read.map_err(|cause| PickleFault::Io(cause.to_string()))?;
        let text = std::str::from_utf8(&utf8).map_err(|_| PickleFault::BadText)?;
        let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        Ok(Node::Bytes(Blob::Inline(bytes.ok_or(PickleFault::BadText)?.into())))
    }

    fn dict_of(&mut self, pairs: Id) -> Result<Node, PickleFault> {
        let Node::List(items) = self.node(pairs) else { return Err(unexpected("a list", self.node(pairs))) };
        // Each call copies the pairs, as with sets.
        self.hold(items.len() as u64 * 8)?;
        let Node::List(pairs) = self.node(pairs) else { return Err(unexpected("a list", self.node(pairs))) };
        let mut entries = Vec::with_capacity(pairs.len());
        for pair in pairs {
            match self.node(*pair) {
                Node::Tuple(pair) | Node::List(pair) if pair.len() == 2 => entries.push((pair[0], pair[1])),
                other => return Err(unexpected("a pair", other)),
            }
        }
        Ok(Node::Dict(entries))
    }

    fn dtype_of_state(&self, mut dtype: Dtype, state: &[Id]) -> Result<Dtype, PickleFault> {
        let [_version, order, subtype, names, fields, size, ..] = state else {
            return Err(PickleFault::Dtype(format!("a state of {} parts", state.len())));
        };
        let plain = [subtype, names, fields].into_iter().all(|part| matches!(self.node(*part), Node::None));
        if !plain {
            return Err(PickleFault::Dtype("a structured type".to_owned()));
        }
        dtype.big_endian = self.short_text(*order)? == ">";
        if let Node::Int(size) = self.node(*size) {
            dtype.set_item_size(*size);
        }
        Ok(dtype)
    }

    fn dtype(&self, id: Id) -> Result<Dtype, PickleFault> {
        match self.node(id) {
            Node::Dtype(dtype) => Ok(*dtype),
            other => Err(unexpected("a numpy type", other)),
        }
    }

    pub(super) fn tuple(&self, id: Id) -> Result<Vec<Id>, PickleFault> {
        match self.node(id) {
            // Functions and states have a handful of parts; a longer tuple is none of them.
            Node::Tuple(items) if items.len() <= 32 => Ok(items.clone()),
            other => Err(unexpected("a short tuple", other)),
        }
    }

    pub(super) fn shape(&self, id: Id) -> Result<Vec<u64>, PickleFault> {
        let axis = |id: &Id| match self.node(*id) {
            Node::Int(length) => {
                u64::try_from(*length).map_err(|_| PickleFault::Shape(format!("an axis of length {length}")))
            }
            other => Err(unexpected("the length of an axis", other)),
        };
        self.tuple(id)?.iter().map(axis).collect()
    }

    /// Accounts for a second copy of bytes in memory; those in the file cost nothing.
    fn hold_copy(&mut self, blob: &Blob) -> Result<(), PickleFault> {
        match blob {
            Blob::Inline(bytes) => {
                let length = bytes.len() as u64;
                self.hold(length)
            }
            Blob::Range { .. } => Ok(()),
        }
    }
}
