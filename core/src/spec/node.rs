//! A YAML document as a tree in which every key and value knows where it stands.

use serde_json::Value;

use crate::diagnostic::{Diagnostic, Place};

/// A stretch of one line of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Index into [`Document::sources`].
    pub source: usize,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// In characters.
    pub width: u32,
}

/// A value and its place; values that come from JSON have none.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub content: Content,
    pub span: Option<Span>,
}

/// What YAML's core schema knows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text, duplicates included: the checker reports those.
    Map(Vec<Entry>),
}

/// One `key: value` of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub key: String,
    pub key_span: Option<Span>,
    pub value: Node,
}

/// A text that people see in messages.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub name: String,
    pub text: String,
}

/// A tree with the texts it came from: one file, plus one per `--set`.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub sources: Vec<Source>,
    pub root: Node,
}

impl Document {
    /// Wraps a value that has no text.
    pub(crate) fn from_value(value: &Value) -> Self {
        Self { sources: Vec::new(), root: Node::from_value(value) }
    }

    /// Translates a span to what people see.
    pub(crate) fn place(&self, span: Option<Span>) -> Option<Place> {
        let span = span?;
        let source = self.sources.get(span.source)?;
        let text = source.text.lines().nth(span.line as usize - 1).unwrap_or_default();
        let room = (text.chars().count() as u32).saturating_sub(span.column - 1).max(1);
        Some(Place {
            source: source.name.clone(),
            line: span.line,
            column: span.column,
            width: span.width.clamp(1, room),
            text: text.to_owned(),
        })
    }

    /// The place of the value at `path`, or of the nearest mapping above it.
    pub(crate) fn place_of(&self, path: &[&str]) -> Option<Place> {
        let mut node = &self.root;
        let mut span = node.span;
        for segment in path {
            let Some(entry) = node.entry(segment) else { break };
            node = &entry.value;
            // A mapping is best shown by its key; a scalar by itself.
            span = if matches!(node.content, Content::Map(_) | Content::List(_)) { entry.key_span } else { node.span };
        }
        self.place(span)
    }

    /// Points `diagnostic` at the value of `path`.
    pub(crate) fn blame(&self, path: &[&str], diagnostic: Diagnostic) -> Diagnostic {
        diagnostic.at(self.place_of(path))
    }

    /// Puts `value` at `path`, making mappings on the way; `spans` are those of the path's segments.
    pub(crate) fn insert(&mut self, path: &[&str], spans: &[Option<Span>], value: Node) {
        let mut node = &mut self.root;
        let mut parent = None;
        for (depth, segment) in path.iter().enumerate() {
            let span = spans.get(depth).copied().flatten();
            node = node.child(segment, span, parent);
            parent = span;
        }
        *node = value;
    }
}

impl Node {
    /// A tree without places.
    pub(crate) fn from_value(value: &Value) -> Self {
        let content = match value {
            Value::Null => Content::Null,
            Value::Bool(value) => Content::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(integer), _) => Content::Integer(integer.into()),
                (None, Some(integer)) => Content::Integer(integer.into()),
                (None, None) => Content::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Content::Text(text.clone()),
            Value::Array(items) => Content::List(items.iter().map(Self::from_value).collect()),
            Value::Object(map) => {
                let entry = |(key, value): (&String, &Value)| Entry {
                    key: key.clone(),
                    key_span: None,
                    value: Self::from_value(value),
                };
                Content::Map(map.iter().map(entry).collect())
            }
        };
        Self { content, span: None }
    }

    /// The tree as plain JSON; a number that JSON cannot hold becomes null.
    pub(crate) fn to_value(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Integer(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => value.into(),
                (_, Ok(value)) => value.into(),
                _ => (*value as f64).into(),
            },
            Content::Float(value) => (*value).into(),
            Content::Text(text) => text.as_str().into(),
            Content::List(items) => items.iter().map(Self::to_value).collect(),
            Content::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), entry.value.to_value())).collect(),
        }
    }

    /// The entry with this key, if this is a mapping that has it.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The value of this key, unless it is null.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value).filter(|value| value.content != Content::Null)
    }

    /// The value of this key or list index, made if need be; anything that is no container gives way to a mapping at `parent`.
    fn child(&mut self, key: &str, span: Option<Span>, parent: Option<Span>) -> &mut Self {
        let is_item =
            matches!(&self.content, Content::List(items) if key.parse().is_ok_and(|at: usize| at < items.len()));
        if !is_item && !matches!(self.content, Content::Map(_)) {
            *self = Self { content: Content::Map(Vec::new()), span: parent.or(self.span) };
        }
        match &mut self.content {
            Content::List(items) => {
                let at: usize = key.parse().expect("checked just above");
                &mut items[at]
            }
            Content::Map(entries) => {
                let at = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
                    let value = Self { content: Content::Null, span };
                    entries.push(Entry { key: key.to_owned(), key_span: span, value });
                    entries.len() - 1
                });
                &mut entries[at].value
            }
            _ => unreachable!("anything else has just become a mapping"),
        }
    }

    /// Says what was found, for messages: "the number 5", "a list".
    pub(crate) fn describe(&self) -> String {
        match &self.content {
            Content::Null => "nothing".into(),
            Content::Bool(value) => format!("`{value}`"),
            Content::Integer(value) => format!("the number {value}"),
            Content::Float(value) => format!("the number {value}"),
            Content::Text(text) if text.chars().count() > 40 => "text".into(),
            Content::Text(text) => format!("the text `{}`", text.escape_debug()),
            Content::List(_) => "a list".into(),
            Content::Map(_) => "a mapping".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insertion_makes_mappings_on_the_way_and_reaches_into_lists() {
        let mut document = Document::from_value(&serde_json::json!({"a": 1, "list": [{"path": "x"}]}));
        document.insert(&["train", "schedule", "warmup"], &[], Node::from_value(&5.into()));
        document.insert(&["list", "0", "path"], &[], Node::from_value(&"y".into()));
        document.insert(&["a", "b"], &[], Node::from_value(&true.into()));
        let expected = serde_json::json!(
            {"a": {"b": true}, "list": [{"path": "y"}], "train": {"schedule": {"warmup": 5}}});
        assert_eq!(document.root, Node::from_value(&expected));
    }

    #[test]
    fn an_index_past_the_end_never_panics() {
        let mut document = Document::from_value(&serde_json::json!({"list": [1]}));
        document.insert(&["list", "7"], &[], Node::from_value(&2.into()));
        assert!(
            document.root.get("list").is_some_and(|list| list.get("7").is_some()),
            "the checker then says it is no list"
        );
    }
}
