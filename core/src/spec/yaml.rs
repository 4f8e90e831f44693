//! YAML text to a tree: the only place that knows the YAML library.
//!
//! The library stops at nesting, alias and size bombs. Duplicate keys are passed through and reported by the checker in our own
//! words, together with everything else that is wrong.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Location, MessageFormatter, Options, Spanned, UserMessageFormatter};

use crate::diagnostic::{Code, Diagnostic, Diagnostics};

use super::node::{Content, Document, Entry, Node, Source, Span};

/// Larger texts are refused before they are parsed.
const MAX_BYTES: usize = 1 << 20;
/// Deeper nesting is refused; a job has four levels.
const MAX_DEPTH: usize = 32;

/// Parses one document.
pub(crate) fn parse(text: &str, source_name: &str) -> Result<Document, Diagnostics> {
    let sources = vec![Source { name: source_name.to_owned(), text: text.to_owned() }];
    if text.len() > MAX_BYTES {
        let message =
            format!("`{source_name}` is {} KiB, more than the limit of {} KiB", text.len() >> 10, MAX_BYTES >> 10);
        return Err(Diagnostic::new(Code::Limit, message).help("is this the data rather than the job file?").into());
    }
    match serde_saphyr::from_str_with_options::<Parsed>(text, options()) {
        Ok(parsed) => Ok(Document { sources, root: parsed.0 }),
        Err(error) => {
            let empty = Node { content: Content::Null, span: None };
            Err(explain(&error, &Document { sources, root: empty }).into())
        }
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: 100_000,
            max_events: 300_000,
            max_anchors: 1_000,
            max_aliases: 1_000,
            max_recorded_anchor_events: 100_000,
            max_recorded_anchor_bytes: MAX_BYTES,
            max_merge_keys: 1_000,
            max_total_scalar_bytes: 4 * MAX_BYTES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: MAX_DEPTH,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
    }
}

/// Says in our words what the library found.
fn explain(error: &Error, document: &Document) -> Diagnostic {
    let mut error = error.without_snippet();
    let span = error.location().and_then(|location| span(&location));
    while let Error::AliasError { error: inner, .. } = error {
        error = inner.without_snippet();
    }
    let limit = Diagnostic::new(Code::Limit, "the file nests or expands to more than a job file ever needs")
        .help(format!("limits: 1 MiB, {MAX_DEPTH} levels, 100,000 values after aliases are expanded"));
    let diagnostic = match error {
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasExpansionLimitExceeded { .. } => limit,
        Error::MultipleDocuments { .. } => Diagnostic::new(Code::Syntax, "the file holds more than one document")
            .help("one file is one job: remove the line `---` between them"),
        Error::Eof { .. } => Diagnostic::new(Code::Missing, "the file is empty"),
        Error::UnknownAnchor { .. } => Diagnostic::new(Code::Syntax, "an alias (`*name`) names no anchor (`&name`)"),
        other => {
            let message = UserMessageFormatter.format_message(other);
            if message.contains("recursion limit") || message.contains("depth limit") {
                limit
            } else {
                Diagnostic::new(Code::Syntax, format!("not valid YAML: {}", plain(&message)))
            }
        }
    };
    let place = document.place(span);
    if diagnostic.code == Code::Syntax
        && let Some(tab) = place.as_ref().and_then(|place| place.text.find(|c: char| c != ' '))
        && place.as_ref().is_some_and(|place| place.text[tab..].starts_with('\t'))
    {
        let place = place.map(|place| crate::diagnostic::Place { column: tab as u32 + 1, width: 1, ..place });
        return Diagnostic::new(Code::Syntax, "a tab is used for indentation, which YAML forbids")
            .at(place)
            .label("tab")
            .help("indent with spaces");
    }
    diagnostic.at(place)
}

/// Keeps a message on one line and free of control characters.
fn plain(message: &str) -> String {
    message
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .escape_debug()
        .to_string()
        .replace("\\'", "'")
        .replace("\\\"", "\"")
}

fn span(location: &Location) -> Option<Span> {
    if location.line() == 0 {
        return None;
    }
    let [line, column, width] =
        [location.line(), location.column(), location.span().len()].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    Some(Span { source: 0, line, column: column.max(1), width: width.max(1) })
}

/// A node as the YAML library hands it over.
struct Parsed(Node);

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Bare>::deserialize(deserializer)?;
        Ok(Self(Node { content: spanned.value.0, span: span(&spanned.referenced) }))
    }
}

/// A node without its own place.
struct Bare(Content);

impl<'de> Deserialize<'de> for Bare {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BareVisitor).map(Self)
    }
}

struct BareVisitor;

impl<'de> Visitor<'de> for BareVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Content, E> {
        Ok(Content::Integer(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Content, E> {
        Ok(i128::try_from(value).map_or(Content::Float(value as f64), Content::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Content, E> {
        Ok(Content::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Content, E> {
        Ok(Content::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(Parsed(item)) = list.next_element()? {
            items.push(item);
        }
        Ok(Content::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let Parsed(value) = map.next_value()?;
            entries.push(Entry { key: key.value, key_span: span(&key.referenced), value });
        }
        Ok(Content::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Code {
        parse(text, "t.yaml").expect_err("this text is bad").first().code
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let document = parse("name: x\ntrain:\n  seed: 42\n  list: [1, 2.5, no, ~]\n", "t.yaml").expect("valid");
        let place = document.place_of(&["train", "seed"]).expect("it has one");
        assert_eq!((place.line, place.column, place.width, place.text.as_str()), (3, 9, 2, "  seed: 42"));
        let key = document.root.entry("train").and_then(|entry| document.place(entry.key_span)).expect("it has one");
        assert_eq!((key.line, key.column, key.width), (2, 1, 5));
        let Some(Content::List(items)) =
            document.root.get("train").and_then(|t| t.get("list")).map(|l| l.content.clone())
        else {
            panic!("a list was written")
        };
        let items: Vec<_> = items.into_iter().map(|item| item.content).collect();
        let expected = [Content::Integer(1), Content::Float(2.5), Content::Text("no".into()), Content::Null];
        assert_eq!(items, expected);
    }

    #[test]
    fn numbers_read_as_people_mean_them() {
        let content = |text: &str| parse(text, "t").map(|document| document.root.content).expect("valid");
        assert_eq!(content("3e-4"), Content::Float(3e-4));
        assert_eq!(content("-7"), Content::Integer(-7));
        assert_eq!(content("18446744073709551615"), Content::Integer(u64::MAX.into()));
        assert!(matches!(content(".nan"), Content::Float(value) if value.is_nan()));
        assert_eq!(content("1e999"), Content::Float(f64::INFINITY));
        assert_eq!(content("'42'"), Content::Text("42".into()));
    }

    #[test]
    fn attacks_are_refused_quickly() {
        let levels = "abcdefghijklmnopqrstuvwx".chars().collect::<Vec<_>>();
        let mut laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for pair in levels.windows(2) {
            let (old, new) = (pair[0], pair[1]);
            let nine = vec![format!("*{old}"); 9].join(", ");
            laughs += &[new.to_string(), format!(": &{new} [{nine}]\n")].concat();
        }
        assert_eq!(code(&laughs), Code::Limit, "billion laughs");
        assert_eq!(code(&"[".repeat(20_000)), Code::Limit, "deep flow");
        let stairs: String = (0..2_000).fold(String::new(), |text, depth| text + &" ".repeat(depth % 500) + "a:\n");
        assert!(parse(&stairs, "t").is_err(), "deep block");
        assert_eq!(code(&"a".repeat(MAX_BYTES + 1)), Code::Limit, "size");
        assert_eq!(code("a: *missing"), Code::Syntax);
        assert!(parse("a: &a [*a]", "t").is_err(), "an anchor inside itself");
    }

    #[test]
    fn syntax_errors_are_ours_in_words_and_place() {
        let error = parse("train:\n\tseed: 42\n", "t.yaml").expect_err("a tab");
        let error = error.first();
        assert_eq!(error.message, "a tab is used for indentation, which YAML forbids");
        assert_eq!(error.place.as_ref().map(|place| (place.line, place.column)), Some((2, 1)));
        for text in ["a: [1, 2", "a: 'x", "a: b: c", "a: 1\n---\nb: 2\n", "a: !!int x", "@", "{a: 1}}"] {
            let error = parse(text, "t.yaml").expect_err(text);
            let shown = error.to_string();
            for leak in ["Policy", "Options", "serde", "from_multiple", "granit", "API", "Deserialize"] {
                assert!(!shown.contains(leak), "{text}: {shown}");
            }
        }
    }
}
