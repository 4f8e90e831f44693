//! The stack machine.

use std::collections::HashMap;

use super::fault::{PickleError, PickleFault};
use super::input::Input;
use super::literal::{self, IntLine, shorten};
use super::numpy::Global;
use super::source::{Blob, ReadAt};
use super::value::{Id, Node};

/// What a pickle was made for; it says which globals are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Plain values and numpy arrays.
    Numpy,
    /// What `torch.save` writes: plain values and tensors, whose storages are outside of the pickle.
    Torch,
}

/// Bounds on what a pickle may make the reader hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Containers within containers.
    pub depth: u32,
    /// Values pushed in all.
    pub items: u64,
    /// Entries of the memo.
    pub memo: u64,
    /// Bytes held in memory, of strings and decoded arrays.
    pub bytes: u64,
    /// Bytes of one text.
    pub text: u64,
}

impl Default for Limits {
    /// Enough for a hundred thousand utterances with their words, well below what hurts.
    fn default() -> Self {
        Self { depth: 64, items: 24_000_000, memo: 16_000_000, bytes: 1 << 30, text: 1 << 20 }
    }
}

pub(super) struct Machine<'s> {
    pub(super) input: Input<'s>,
    pub(super) nodes: Vec<Node>,
    pub(super) dialect: Dialect,
    depths: Vec<u32>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    pub(super) limits: Limits,
    pushed: u64,
    held: u64,
}

/// Runs a pickle to its `STOP`; returns all values and which of them is the result.
pub(super) fn run(source: &dyn ReadAt, limits: Limits, dialect: Dialect) -> Result<(Vec<Node>, Id), PickleError> {
    let input = Input::new(source).map_err(|fault| PickleError { offset: 0, fault })?;
    let mut machine = Machine {
        input,
        nodes: Vec::new(),
        dialect,
        depths: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        limits,
        pushed: 0,
        held: 0,
    };
    loop {
        let offset = machine.input.position();
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => return Ok((machine.nodes, root)),
            Err(fault) => return Err(PickleError { offset, fault }),
        }
    }
}

impl Machine<'_> {
    /// Executes one opcode; the result of `STOP` is the value.
    fn step(&mut self) -> Result<Option<Id>, PickleFault> {
        let opcode = self.input.byte()?;
        match opcode {
            b'.' => return self.pop().map(Some),
            b'(' => {
                self.marks.push(self.stack.len());
                self.count()?;
            }
            b'0' => {
                if self.pop().is_err() {
                    self.pop_mark()?;
                }
            }
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push_id(top)?;
            }
            b'N' => self.push(Node::None)?,
            0x88 => self.push(Node::Bool(true))?,
            0x89 => self.push(Node::Bool(false))?,
            b'J' | b'K' | b'M' | b'I' | b'L' | 0x8a | 0x8b => self.integer(opcode)?,
            b'F' => {
                let line = self.input.line(256)?;
                self.push(Node::Float(literal::float(&line)?))?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.input.array()?);
                self.push(Node::Float(value))?;
            }
            b'S' | b'T' | b'U' | b'V' | b'X' | b'B' | b'C' | 0x8c..=0x8e | 0x96 => self.string(opcode)?,
            b']' => self.push(Node::List(Vec::new()))?,
            b'}' => self.push(Node::Dict(Vec::new()))?,
            0x8f => self.push(Node::Set(Vec::new()))?,
            b')' => self.push(Node::Tuple(Vec::new()))?,
            b'l' | b't' | b'd' | 0x91 => self.collect(opcode)?,
            0x85..=0x87 => {
                let from = self.below(usize::from(opcode - 0x84))?;
                let items = self.stack.split_off(from);
                self.push_container(Node::Tuple, items)?;
            }
            b'a' => {
                let from = self.below(1)?;
                let items = self.stack.split_off(from);
                self.extend_list(items)?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend_list(items)?;
            }
            b's' => {
                let from = self.below(2)?;
                let items = self.stack.split_off(from);
                self.extend_dict(&items)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend_dict(&items)?;
            }
            0x90 => {
                let items = self.pop_mark()?;
                let set = self.top()?;
                self.deepen(set, &items)?;
                match self.node_mut(set) {
                    Node::Set(entries) => entries.extend(items),
                    other => return Err(unexpected("a set", other)),
                }
            }
            b'p' | b'q' | b'r' | 0x94 => self.memoize(opcode)?,
            b'g' | b'h' | b'j' => self.recall(opcode)?,
            b'c' | 0x93 | b'i' => self.global(opcode)?,
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let callable = self.pop()?;
                let made = self.call(callable, arguments)?;
                self.push_id(made)?;
            }
            b'b' => {
                let state = self.pop()?;
                let target = self.top()?;
                self.build(target, state)?;
            }
            b'Q' if self.dialect == Dialect::Torch => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage)?;
            }
            0x80 => {
                let [protocol] = self.input.array()?;
                if protocol > 5 {
                    return Err(PickleFault::Unsupported(format!("protocol {protocol}")));
                }
            }
            // Frames only announce how much to read ahead, but a frame longer than the file is a file cut short.
            0x95 => {
                let length = u64::from_le_bytes(self.input.array()?);
                self.input.claim(length)?;
            }
            _ => return Err(refused(opcode)),
        }
        Ok(None)
    }

    fn integer(&mut self, opcode: u8) -> Result<(), PickleFault> {
        let value = match opcode {
            b'J' => i64::from(i32::from_le_bytes(self.input.array()?)),
            b'K' => i64::from(self.input.byte()?),
            b'M' => i64::from(u16::from_le_bytes(self.input.array()?)),
            b'I' => match literal::int_line(&self.input.line(256)?)? {
                IntLine::Bool(value) => return self.push(Node::Bool(value)),
                IntLine::Int(value) => value,
            },
            b'L' => literal::integer(&self.input.line(256)?)?,
            _ => {
                let length = match opcode {
                    0x8a => i64::from(self.input.byte()?),
                    _ => i64::from(i32::from_le_bytes(self.input.array()?)),
                };
                let fits = u64::try_from(length).ok().filter(|length| *length <= 255);
                let length = fits.ok_or_else(|| PickleFault::BadNumber(format!("an integer of {length} bytes")))?;
                literal::long(&self.input.bytes(length)?)?
            }
        };
        self.push(Node::Int(value))
    }

    fn string(&mut self, opcode: u8) -> Result<(), PickleFault> {
        let length = match opcode {
            b'U' | b'C' | 0x8c => u64::from(self.input.byte()?),
            b'T' => {
                let length = i32::from_le_bytes(self.input.array()?);
                u64::try_from(length).map_err(|_| PickleFault::BadNumber(format!("a length of {length}")))?
            }
            b'X' | b'B' => u64::from(u32::from_le_bytes(self.input.array()?)),
            0x8d | 0x8e | 0x96 => u64::from_le_bytes(self.input.array()?),
            _ => return self.string_line(opcode),
        };
        let blob = self.input.blob(length)?;
        if let Blob::Inline(bytes) = &blob {
            self.hold(bytes.len() as u64)?;
        }
        match (opcode, &blob) {
            (b'X' | 0x8c | 0x8d, Blob::Inline(bytes)) => {
                std::str::from_utf8(bytes).map_err(|_| PickleFault::BadText)?;
                self.push(Node::Text(blob))
            }
            // A long text is checked when it is read.
            (b'X' | 0x8c | 0x8d, Blob::Range { .. }) => self.push(Node::Text(blob)),
            _ => self.push(Node::Bytes(blob)),
        }
    }

    fn string_line(&mut self, opcode: u8) -> Result<(), PickleFault> {
        let line = self.input.line(self.limits.bytes)?;
        self.hold(line.len() as u64)?;
        if opcode == b'S' {
            let bytes = literal::quoted(&line)?;
            return self.push(Node::Bytes(Blob::Inline(bytes.into())));
        }
        let text = literal::raw_unicode(&line)?;
        self.push(Node::Text(Blob::Inline(text.into_bytes().into())))
    }

    fn collect(&mut self, opcode: u8) -> Result<(), PickleFault> {
        let items = self.pop_mark()?;
        match opcode {
            b'l' => self.push_container(Node::List, items),
            b't' => self.push_container(Node::Tuple, items),
            0x91 => self.push_container(Node::Set, items),
            _ => {
                self.push(Node::Dict(Vec::new()))?;
                self.extend_dict(&items)
            }
        }
    }

    fn push_container(&mut self, make: fn(Vec<Id>) -> Node, items: Vec<Id>) -> Result<(), PickleFault> {
        let depth = self.depth_over(&items)?;
        let id = self.allocate(make(items))?;
        self.depths[id.index()] = depth;
        self.push_id(id)
    }

    fn extend_list(&mut self, items: Vec<Id>) -> Result<(), PickleFault> {
        let list = self.top()?;
        self.deepen(list, &items)?;
        match self.node_mut(list) {
            Node::List(entries) => entries.extend(items),
            other => return Err(unexpected("a list", other)),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Id]) -> Result<(), PickleFault> {
        let dict = self.top()?;
        self.deepen(dict, items)?;
        let (pairs, rest) = items.as_chunks::<2>();
        match self.node_mut(dict) {
            Node::Dict(entries) => entries.extend(pairs.iter().map(|[key, value]| (*key, *value))),
            other => return Err(unexpected("a dict", other)),
        }
        if rest.is_empty() { Ok(()) } else { Err(PickleFault::EmptyStack) }
    }

    fn memoize(&mut self, opcode: u8) -> Result<(), PickleFault> {
        let index = match opcode {
            b'p' => literal::index(&self.input.line(32)?)?,
            b'q' => u64::from(self.input.byte()?),
            b'r' => u64::from(u32::from_le_bytes(self.input.array()?)),
            _ => self.memo.len() as u64,
        };
        let top = self.top()?;
        self.memo.insert(index, top);
        if self.memo.len() as u64 > self.limits.memo {
            return Err(PickleFault::Limit { what: "memo entries", limit: self.limits.memo });
        }
        Ok(())
    }

    fn recall(&mut self, opcode: u8) -> Result<(), PickleFault> {
        let index = match opcode {
            b'g' => literal::index(&self.input.line(32)?)?,
            b'h' => u64::from(self.input.byte()?),
            _ => u64::from(u32::from_le_bytes(self.input.array()?)),
        };
        let id = *self.memo.get(&index).ok_or(PickleFault::NoMemo(index))?;
        self.push_id(id)
    }

    fn global(&mut self, opcode: u8) -> Result<(), PickleFault> {
        let (module, name) = if opcode == 0x93 {
            let name = self.pop()?;
            let module = self.pop()?;
            (self.short_text(module)?, self.short_text(name)?)
        } else {
            let line = |input: &mut Input<'_>| input.line(4096).map(|line| String::from_utf8_lossy(&line).into_owned());
            (line(&mut self.input)?, line(&mut self.input)?)
        };
        // `INST` calls what it names, and none of the allowed globals is written so.
        let global = Global::find(self.dialect, &module, &name).filter(|_| opcode != b'i');
        let global = global.ok_or_else(|| PickleFault::Global { module: shorten(&module), name: shorten(&name) })?;
        self.push(Node::Global(global))
    }

    /// The text of a value that must be a short text.
    pub(super) fn short_text(&self, id: Id) -> Result<String, PickleFault> {
        match self.node(id) {
            Node::Text(Blob::Inline(bytes)) | Node::Bytes(Blob::Inline(bytes)) => {
                std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| PickleFault::BadText)
            }
            other => Err(unexpected("a short text", other)),
        }
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id.index()]
    }

    pub(super) fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// Accounts for bytes that stay in memory.
    pub(super) fn hold(&mut self, bytes: u64) -> Result<(), PickleFault> {
        self.held = self.held.saturating_add(bytes);
        if self.held > self.limits.bytes {
            return Err(PickleFault::Limit { what: "bytes of strings in memory", limit: self.limits.bytes });
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), PickleFault> {
        self.pushed += 1;
        if self.pushed > self.limits.items {
            return Err(PickleFault::Limit { what: "values", limit: self.limits.items });
        }
        Ok(())
    }

    /// Gives a value its number without pushing it.
    pub(super) fn allocate(&mut self, node: Node) -> Result<Id, PickleFault> {
        let too_many = || PickleFault::Limit { what: "values", limit: u64::from(u32::MAX) };
        let id = Id::new(self.nodes.len()).ok_or_else(too_many)?;
        self.nodes.push(node);
        self.depths.push(0);
        Ok(id)
    }

    fn push(&mut self, node: Node) -> Result<(), PickleFault> {
        let id = self.allocate(node)?;
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Result<(), PickleFault> {
        self.count()?;
        self.stack.push(id);
        Ok(())
    }

    /// Where the top `count` values start, none of which is below the last mark.
    fn below(&self, count: usize) -> Result<usize, PickleFault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let from = self.stack.len().checked_sub(count).filter(|from| *from >= floor);
        from.ok_or(PickleFault::EmptyStack)
    }

    fn pop(&mut self) -> Result<Id, PickleFault> {
        self.below(1)?;
        self.stack.pop().ok_or(PickleFault::EmptyStack)
    }

    fn top(&self) -> Result<Id, PickleFault> {
        let at = self.below(1)?;
        self.stack.get(at).copied().ok_or(PickleFault::EmptyStack)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, PickleFault> {
        let mark = self.marks.pop().ok_or(PickleFault::EmptyStack)?;
        Ok(self.stack.split_off(mark))
    }

    /// The depth of a container of these values.
    pub(super) fn depth_over(&self, items: &[Id]) -> Result<u32, PickleFault> {
        let depth = 1 + items.iter().map(|id| self.depths[id.index()]).max().unwrap_or(0);
        if depth > self.limits.depth {
            return Err(PickleFault::Limit { what: "levels of nesting", limit: u64::from(self.limits.depth) });
        }
        Ok(depth)
    }

    /// Notes that `container` now holds `items` too.
    pub(super) fn deepen(&mut self, container: Id, items: &[Id]) -> Result<(), PickleFault> {
        let depth = self.depth_over(items)?;
        let known = &mut self.depths[container.index()];
        *known = depth.max(*known);
        Ok(())
    }
}

pub(super) fn unexpected(expected: &'static str, found: &Node) -> PickleFault {
    PickleFault::Unexpected { expected, found: found.kind().to_owned() }
}

/// Names the opcodes that are known and refused.
fn refused(opcode: u8) -> PickleFault {
    let what = match opcode {
        b'P' | b'Q' => "a persistent id",
        b'o' => "the opcode OBJ",
        0x82..=0x84 => "an extension code",
        0x92 => "the opcode NEWOBJ_EX",
        0x97 | 0x98 => "an out-of-band buffer",
        _ => return PickleFault::UnknownOpcode(opcode),
    };
    PickleFault::Unsupported(what.to_owned())
}
