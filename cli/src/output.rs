//! The two ways out: results go to stdout, talk goes to stderr.

use std::io::{self, Write};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::render::json::humanise;

/// Version of all JSON that commands print; it grows when a field changes its meaning or goes away.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// Writes a result; colour is taken out where it does not belong.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = anstream::stdout().lock();
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    out.write_all(text.as_bytes()).and_then(|()| out.write_all(newline.as_bytes())).and_then(|()| out.flush()).map_err(
        |error| if error.kind() == io::ErrorKind::BrokenPipe { Error::PipeClosed } else { Error::Output(error) },
    )
}

/// Says something to the person who is watching. A closed stderr is nobody's loss.
pub(crate) fn say(text: &str) {
    let mut err = anstream::stderr().lock();
    let _ = writeln!(err, "{text}");
}

/// Named parts in their order, with the version in front.
struct Document<'a>(&'a [(&'a str, Value)]);

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len() + 1))?;
        map.serialize_entry("schema_version", &SCHEMA_VERSION)?;
        for (name, value) in self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Makes a document of named parts, with the version in front.
pub(crate) fn document(parts: &[(&str, Value)]) -> String {
    let mut text = serde_json::to_string_pretty(&Document(parts)).expect("a JSON value can be written");
    text.push('\n');
    text
}

/// Makes the same in one line, for JSON lines.
pub(crate) fn line(parts: &[(&str, Value)]) -> String {
    let mut text = serde_json::to_string(&Document(parts)).expect("a JSON value can be written");
    text.push('\n');
    text
}

/// Turns a view into JSON for people's programs: times as RFC 3339.
pub(crate) fn value(view: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(view).expect("views are plain data");
    humanise(&mut value);
    value
}

/// Prints one document of one part.
pub(crate) fn print_json(name: &str, view: &impl Serialize) -> Result<()> {
    print(&document(&[(name, value(view))]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_document_begins_with_the_version() {
        let text = document(&[("jobs", json!([]))]);
        assert_eq!(text, "{\n  \"schema_version\": 1,\n  \"jobs\": []\n}\n");
    }
}
