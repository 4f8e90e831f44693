//! `--set path=value`: the same fields by the same names, checked the same way and blamed at the argument itself.

use crate::diagnostic::{Code, Diagnostic, Diagnostics};

use super::node::{Content, Document, Node, Source, Span};
use super::yaml;

const SOURCE: &str = "--set";

/// Puts the value of one `path=value` into the document. Whether the path exists is for the checker to say.
///
/// The value is YAML, so `3e-4` is a number and `[1, 2]` a list; nothing or `null` unsets the field.
pub(crate) fn apply(document: &mut Document, argument: &str) -> Result<(), Diagnostics> {
    let source = document.sources.len();
    document.sources.push(Source { name: SOURCE.to_owned(), text: argument.to_owned() });
    let whole = Span { source, line: 1, column: 1, width: argument.chars().count() as u32 };
    let bad = |document: &Document, message: String, span: Span| -> Diagnostics {
        let example = "write path=value, such as --set train.learning_rate=3e-4";
        Diagnostic::new(Code::BadSet, message).at(document.place(Some(span))).help(example).into()
    };
    if argument.contains(['\n', '\r']) {
        return Err(bad(document, "an argument of `--set` is a single line".into(), whole));
    }
    let Some((path, value)) = argument.split_once('=') else {
        return Err(bad(document, format!("`{}` has no `=`", argument.escape_debug()), whole));
    };
    let mut spans = Vec::new();
    let mut column = 1;
    for segment in path.split('.') {
        let width = segment.chars().count() as u32;
        let span = Span { source, line: 1, column, width };
        if segment.trim() != segment || segment.is_empty() {
            return Err(bad(document, format!("`{}` is not a dotted path", path.escape_debug()), span));
        }
        spans.push(Some(span));
        column += width + 1;
    }
    let node = self::value(value, source, column, document)?;
    let segments: Vec<&str> = path.split('.').collect();
    document.insert(&segments, &spans, node);
    Ok(())
}

fn value(text: &str, source: usize, column: u32, document: &Document) -> Result<Node, Diagnostics> {
    let span = Span { source, line: 1, column, width: text.chars().count() as u32 };
    if text.trim().is_empty() {
        return Ok(Node { content: Content::Null, span: Some(span) });
    }
    let parsed = yaml::parse(text, SOURCE).map_err(|error| {
        let message = error.first().message.replace("not valid YAML", "the value is not valid YAML");
        let diagnostic = Diagnostic::new(Code::BadSet, message).at(document.place(Some(span)));
        diagnostic.help("put quotes around text with special characters")
    })?;
    let mut node = parsed.root;
    shift(&mut node, source, column - 1);
    Ok(node)
}

/// Moves places within the value to where they stand in the argument.
fn shift(node: &mut Node, source: usize, by: u32) {
    let moved = |span: Span| Span { source, column: span.column + by, ..span };
    node.span = node.span.map(moved);
    match &mut node.content {
        Content::List(items) => items.iter_mut().for_each(|item| shift(item, source, by)),
        Content::Map(entries) => {
            for entry in entries {
                entry.key_span = entry.key_span.map(moved);
                shift(&mut entry.value, source, by);
            }
        }
        _ => {}
    }
}
