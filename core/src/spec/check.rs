//! Walks a tree along a JSON Schema and says everything that is wrong, each at its place.
//!
//! The schema that editors use is the one that decides here, so a file that is green in an editor is accepted by the server, but
//! for what only makes sense across fields.

use serde_json::{Map, Number, Value};

use crate::diagnostic::{Code, Diagnostic, suggest};

use super::format;
use super::node::{Content, Document, Entry, Node, Span};
use super::schema;

/// Checks the whole document; returns it as plain JSON, in which whole floats are integers where the schema wants integers.
pub(crate) fn check(document: &Document, root: &Value) -> Result<Value, Vec<Diagnostic>> {
    let mut checker = Checker::new(document, root);
    let value = checker.value(root, &document.root, None);
    if checker.found.is_empty() { Ok(value) } else { Err(checker.found) }
}

/// The walk: what was found so far and where it stands.
pub(crate) struct Checker<'a> {
    document: &'a Document,
    root: &'a Value,
    path: Vec<String>,
    pub(crate) found: Vec<Diagnostic>,
}

impl<'a> Checker<'a> {
    /// Checks values of `document` by parts of the schema `root`.
    pub(crate) fn new(document: &'a Document, root: &'a Value) -> Self {
        Self { document, root, path: Vec::new(), found: Vec::new() }
    }

    /// Begins below `path` rather than at the top, for messages.
    pub(crate) fn below(mut self, path: &str) -> Self {
        self.path.push(path.to_owned());
        self
    }

    /// Checks one value; `key` is where its key stands. The result means something only when nothing was found.
    pub(crate) fn value(&mut self, schema: &'a Value, node: &Node, key: Option<Span>) -> Value {
        let leaves = schema::leaves(self.root, schema);
        let kinds: &[&str] = match &node.content {
            Content::Null => &["null"],
            Content::Bool(_) => &["boolean"],
            Content::Integer(_) => &["integer", "number"],
            Content::Float(value) if value.fract() == 0.0 => &["number", "integer"],
            Content::Float(_) => &["number"],
            Content::Text(_) => &["string"],
            Content::List(_) => &["array"],
            Content::Map(_) => &["object"],
        };
        let fits = |leaf: &&&Value| kinds.iter().any(|kind| schema::allows(leaf, kind));
        let Some(leaf) = leaves.iter().find(fits) else {
            self.wrong_type(&leaves, node, key);
            return Value::Null;
        };
        if **leaf == Value::Bool(true) {
            return node.to_value();
        }
        match &node.content {
            Content::Null => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Integer(value) => self.integer(leaf, *value, node),
            Content::Float(value) if schema::allows(leaf, "number") => self.float(leaf, *value, node),
            // The cast saturates, and what it saturates to is out of every range.
            Content::Float(value) => self.integer(leaf, *value as i128, node),
            Content::Text(text) => self.text(&leaves, leaf, text, node),
            Content::List(items) => self.list(leaf, items, node, key),
            Content::Map(entries) => self.map(leaf, entries, key),
        }
    }

    /// The schema of the field at a dotted path, such as a sweep's parameter; `span` is where the path stands.
    pub(crate) fn field_at(&mut self, path: &str, span: Option<Span>) -> Option<&'a Value> {
        let mut schema = self.root;
        let mut column = 0;
        for segment in path.split('.') {
            let width = segment.chars().count() as u32;
            let Some(next) = schema::field(self.root, schema, segment) else {
                let key_span = span.map(|span| Span { column: span.column + column, width, ..span });
                let value = Node { content: Content::Null, span: None };
                let leaf = schema::leaves(self.root, schema).into_iter().find(|leaf| leaf.get("properties").is_some());
                self.unknown_field(leaf.unwrap_or(schema), &Entry { key: segment.to_owned(), key_span, value });
                self.path.clear();
                return None;
            };
            self.path.push(segment.to_owned());
            column += width + 1;
            schema = next;
        }
        self.path.clear();
        Some(schema)
    }

    fn name(&self) -> String {
        self.path.iter().fold(String::new(), |text, segment| match segment.strip_prefix('[') {
            Some(_) => text + segment,
            None if text.is_empty() => segment.clone(),
            None => text + "." + segment,
        })
    }

    fn report(&mut self, code: Code, message: String, span: Option<Span>) -> &mut Diagnostic {
        self.found.push(Diagnostic::new(code, message).at(self.document.place(span)));
        self.found.last_mut().expect("it was pushed just now")
    }

    fn wrong_type(&mut self, leaves: &[&Value], node: &Node, key: Option<Span>) {
        let name = self.name();
        let expected = expected(leaves);
        if name.is_empty() {
            let message = "the file must be a mapping of fields to values".to_owned();
            self.report(Code::WrongType, message, node.span).label = Some(format!("found {}", node.describe()));
            return;
        }
        if matches!(&node.content, Content::Float(value) if !value.is_finite()) {
            return self.not_finite(leaves, node);
        }
        let code = if node.content == Content::Null { Code::Missing } else { Code::WrongType };
        // An absent value has no width of its own, so its key is shown.
        let span = if code == Code::Missing { key } else { node.span };
        let diagnostic = self.report(code, format!("`{name}` must be {expected}"), span);
        diagnostic.label = Some(format!("found {}", node.describe()));
        let wants_text = leaves.iter().any(|leaf| schema::allows(leaf, "string"));
        if wants_text && let Content::Bool(_) | Content::Integer(_) | Content::Float(_) = &node.content {
            diagnostic.help.push("put quotes around it if the text is meant".to_owned());
        }
    }

    fn not_finite(&mut self, leaves: &[&Value], node: &Node) {
        let message = format!("`{}` must be finite", self.name());
        let expected = expected(leaves);
        let diagnostic = self.report(Code::NotFinite, message, node.span);
        diagnostic.label = Some(format!("expected {expected}"));
    }

    fn integer(&mut self, leaf: &Value, value: i128, node: &Node) -> Value {
        if !within(leaf, value as f64) {
            self.out_of_range(leaf, node);
            return Value::Null;
        }
        if !schema::allows(leaf, "integer") {
            return Number::from_f64(value as f64).map_or(Value::Null, Value::Number);
        }
        match (i64::try_from(value), u64::try_from(value)) {
            (Ok(value), _) => value.into(),
            (_, Ok(value)) => value.into(),
            _ => {
                self.out_of_range(leaf, node);
                Value::Null
            }
        }
    }

    fn float(&mut self, leaf: &Value, value: f64, node: &Node) -> Value {
        let Some(number) = Number::from_f64(value) else {
            self.not_finite(&[leaf], node);
            return Value::Null;
        };
        if !within(leaf, value) {
            self.out_of_range(leaf, node);
        }
        Value::Number(number)
    }

    fn out_of_range(&mut self, leaf: &Value, node: &Node) {
        let message = format!("`{}` must be {}", self.name(), expected(&[leaf]));
        self.report(Code::OutOfRange, message, node.span).label = Some(format!("found {}", node.describe()));
    }

    fn text(&mut self, leaves: &[&Value], leaf: &Value, text: &str, node: &Node) -> Value {
        let words: Vec<&str> = leaves.iter().flat_map(|leaf| schema::words(leaf)).collect();
        if !words.is_empty()
            && schema::words(leaf).is_empty() == leaves.iter().all(|leaf| schema::words(leaf).is_empty())
        {
            if !words.contains(&text) {
                let message = format!("unknown value `{}` for `{}`", text.escape_debug(), self.name());
                let near = suggest(text, words.iter().copied());
                let diagnostic = self.report(Code::UnknownValue, message, node.span);
                diagnostic.label = near.map(|near| format!("did you mean `{near}`?"));
                diagnostic.help.push(format!("allowed: {}", words.join(", ")));
            }
        } else if let Some(Err(reason)) =
            leaf.get("format").and_then(Value::as_str).map(|format| format::check(format, text))
        {
            let message = format!("`{}` cannot be {}", self.name(), node.describe().replacen("the text ", "", 1));
            self.report(Code::BadFormat, message, node.span).label = Some(reason);
        }
        Value::String(text.to_owned())
    }

    fn list(&mut self, leaf: &'a Value, items: &[Node], node: &Node, key: Option<Span>) -> Value {
        let bound = |name: &str| leaf.get(name).and_then(Value::as_u64);
        let size = items.len() as u64;
        if bound("minItems").is_some_and(|least| size < least) || bound("maxItems").is_some_and(|most| size > most) {
            let message = format!("`{}` must be {}", self.name(), expected(&[leaf]));
            let span = key.or(node.span);
            self.report(Code::OutOfRange, message, span).label = Some(format!("has {size}"));
        }
        let Some(schema) = leaf.get("items") else { return Value::Array(Vec::new()) };
        let check = |(at, item): (usize, &Node)| {
            self.path.push(format!("[{at}]"));
            let value = self.value(schema, item, item.span);
            self.path.pop();
            value
        };
        Value::Array(items.iter().enumerate().map(check).collect())
    }

    fn map(&mut self, leaf: &'a Value, entries: &[Entry], key: Option<Span>) -> Value {
        let mut values = Map::new();
        for (at, entry) in entries.iter().enumerate() {
            if let Some(first) = entries[..at].iter().find(|earlier| earlier.key == entry.key) {
                self.duplicate(first, entry);
                continue;
            }
            let Some(schema) = known(leaf, &entry.key) else {
                self.unknown_field(leaf, entry);
                continue;
            };
            self.path.push(entry.key.clone());
            let value = self.value(schema, &entry.value, entry.key_span);
            self.path.pop();
            if !value.is_null() {
                values.insert(entry.key.clone(), value);
            }
        }
        let required = leaf.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let required: Vec<&str> = required.collect();
        for field in &required {
            if !entries.iter().any(|entry| entry.key == *field) {
                self.missing(field, &required, key);
            }
        }
        Value::Object(values)
    }

    fn inside(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.name()) }
    }

    fn duplicate(&mut self, first: &Entry, entry: &Entry) {
        let message = format!("`{}` is given twice{}", entry.key.escape_debug(), self.inside());
        let before = self.document.place(first.key_span);
        let diagnostic = self.report(Code::Duplicate, message, entry.key_span);
        diagnostic.label = Some("remove one of them".into());
        if let Some(place) = before {
            diagnostic.help.push(format!("the first one is at {}:{}:{}", place.source, place.line, place.column));
        }
    }

    fn unknown_field(&mut self, leaf: &Value, entry: &Entry) {
        let fields = leaf.get("properties").and_then(Value::as_object);
        let allowed: Vec<&str> = fields.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        let message = format!("unknown field `{}`{}", entry.key.escape_debug(), self.inside());
        let near = suggest(&entry.key, allowed.iter().copied());
        let elsewhere = schema::find(self.root, &entry.key);
        let diagnostic = self.report(Code::UnknownField, message, entry.key_span);
        diagnostic.label = match (near, elsewhere) {
            (Some(near), _) => Some(format!("did you mean `{near}`?")),
            (None, Some(path)) => Some(format!("did you mean `{path}`?")),
            (None, None) => None,
        };
        if !allowed.is_empty() {
            diagnostic.help.push(format!("allowed: {}", allowed.join(", ")));
        }
    }

    fn missing(&mut self, field: &str, required: &[&str], key: Option<Span>) {
        let message = format!("missing field `{field}`{}", self.inside());
        let top = Some(Span { source: 0, line: 1, column: 1, width: 1 });
        let span = if self.path.is_empty() { top } else { key };
        let diagnostic = self.report(Code::Missing, message, span);
        diagnostic.label = Some(format!("add `{field}`"));
        diagnostic.help.push(format!("required: {}", required.join(", ")));
    }
}

/// The schema of an object's field, or of any field of a free mapping.
fn known<'a>(leaf: &'a Value, name: &str) -> Option<&'a Value> {
    let open = || leaf.get("additionalProperties").filter(|schema| **schema != Value::Bool(false));
    leaf.get("properties").and_then(|fields| fields.get(name)).or_else(open)
}

fn within(leaf: &Value, value: f64) -> bool {
    let bound = |name: &str| leaf.get(name).and_then(Value::as_f64);
    bound("minimum").is_none_or(|least| value >= least)
        && bound("maximum").is_none_or(|most| value <= most)
        && bound("exclusiveMinimum").is_none_or(|least| value > least)
        && bound("exclusiveMaximum").is_none_or(|most| value < most)
}

/// Says what the alternatives expect: "a whole number from 1 to 256".
fn expected(leaves: &[&Value]) -> String {
    let mut words: Vec<&str> = Vec::new();
    let mut phrases: Vec<String> = Vec::new();
    for leaf in leaves {
        if schema::words(leaf).is_empty() {
            phrases.extend(phrase(leaf));
        } else {
            words.extend(schema::words(leaf));
        }
    }
    if !words.is_empty() {
        phrases.insert(0, format!("one of {}", words.join(", ")));
    }
    phrases.join(" or ")
}

fn phrase(leaf: &Value) -> Option<String> {
    let number = |noun: &str| format!("{noun}{}", range(leaf));
    let text = match leaf.get("format").and_then(Value::as_str) {
        Some("duration" | "period") => "a duration such as `30s`, `10m` or `2h`",
        Some("location") => "a path or a URI",
        Some("metric") => "the name of a metric",
        Some("name") => "a name",
        _ => "text",
    };
    let kinds = [
        ("integer", number("a whole number")),
        ("number", number("a number")),
        ("boolean", "`true` or `false`".to_owned()),
        ("string", text.to_owned()),
        ("array", items(leaf)),
        ("object", "a mapping".to_owned()),
    ];
    kinds.into_iter().find(|(kind, _)| schema::allows(leaf, kind)).map(|(_, phrase)| phrase)
}

fn items(leaf: &Value) -> String {
    let bound = |name: &str| leaf.get(name).and_then(Value::as_u64);
    match (bound("minItems"), bound("maxItems")) {
        (Some(least), Some(most)) => format!("a list of {least} to {most}"),
        (Some(least), None) => format!("a list of at least {least}"),
        (None, Some(most)) => format!("a list of at most {most}"),
        (None, None) => "a list".into(),
    }
}

fn range(leaf: &Value) -> String {
    let bound = |name: &str| leaf.get(name).map(ToString::to_string);
    let low = bound("exclusiveMinimum")
        .map(|low| (" above ", low))
        .or_else(|| bound("minimum").map(|low| (" of at least ", low)));
    let high = bound("exclusiveMaximum")
        .map(|high| (" below ", high))
        .or_else(|| bound("maximum").map(|high| (" of at most ", high)));
    match (low, high) {
        (Some((" of at least ", low)), Some((" of at most ", high))) => format!(" from {low} to {high}"),
        (Some((least, low)), Some((most, high))) => format!("{least}{low} and{}{high}", most.replace(" of", "")),
        (Some((least, low)), None) => format!("{least}{low}"),
        (None, Some((most, high))) => format!("{most}{high}"),
        (None, None) => String::new(),
    }
}
