//! The `variants` of a sweep: named sets of fields that change together.

use std::collections::BTreeMap;

use crate::diagnostic::{Code, Diagnostic};
use crate::spec::check::Checker;
use crate::spec::node::{Content, Node};
use crate::spec::raw_sweep::RawVariant;
use crate::spec::schema;
use crate::sweep::{Parameter, VARIANT, Variant};

use super::Reader;

impl Reader<'_> {
    /// Reads them, each value checked by the schema of the field that it replaces.
    pub(super) fn variants(&mut self, raw: Vec<RawVariant>, parameters: &BTreeMap<String, Parameter>) -> Vec<Variant> {
        let document = self.document;
        let items = match document.root.get("variants").map(|node| &node.content) {
            Some(Content::List(items)) => items.as_slice(),
            _ => &[],
        };
        let mut variants: Vec<Variant> = Vec::with_capacity(raw.len());
        for (RawVariant { name, .. }, item) in raw.into_iter().zip(items) {
            if variants.iter().any(|known| known.name == name) {
                let message = format!("two variants are named `{name}`");
                self.at(item.get("name"), Diagnostic::new(Code::Contradiction, message).label("name it differently"));
            }
            let set = self.set(item.get("set"), parameters);
            variants.push(Variant { name, set });
        }
        variants
    }

    fn set(
        &mut self,
        node: Option<&Node>,
        parameters: &BTreeMap<String, Parameter>,
    ) -> BTreeMap<String, serde_json::Value> {
        let Some(Content::Map(entries)) = node.map(|node| &node.content) else { return BTreeMap::new() };
        let mut set = BTreeMap::new();
        for entry in entries {
            let path = entry.key.as_str();
            let refused = match path {
                "name" => Some("trials are named after the sweep"),
                VARIANT => Some("a variant is not a field of the job"),
                _ if parameters.contains_key(path) => Some("it stands in `parameters` too; keep one of them"),
                _ => None,
            };
            if let Some(help) = refused {
                let diagnostic = Diagnostic::new(Code::Contradiction, format!("a variant cannot set `{path}`"));
                self.found.push(diagnostic.help(help).at(self.document.place(entry.key_span)));
                continue;
            }
            let mut checker = Checker::new(self.document, &schema::JOB);
            let target = checker.field_at(path, entry.key_span);
            let mut checker = checker.below(path);
            if let Some(target) = target {
                // `null` takes back what the job file says.
                let value = match entry.value.content {
                    Content::Null => serde_json::Value::Null,
                    _ => checker.value(target, &entry.value, entry.key_span),
                };
                set.insert(entry.key.clone(), value);
            }
            self.found.append(&mut checker.found);
        }
        set
    }

    fn at(&mut self, node: Option<&Node>, diagnostic: Diagnostic) {
        self.found.push(diagnostic.at(self.document.place(node.and_then(|node| node.span))));
    }
}
