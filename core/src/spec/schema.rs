//! JSON Schema (draft-07) of job and sweep files, for editors and for the checker.

use std::sync::LazyLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::raw::RawJobSpec;
use super::raw_sweep::RawSweepSpec;

pub(crate) static JOB: LazyLock<Value> = LazyLock::new(generate::<RawJobSpec>);
pub(crate) static SWEEP: LazyLock<Value> = LazyLock::new(generate::<RawSweepSpec>);

/// Draft-07 rather than a newer one, because editors' YAML servers of the last years read nothing else.
fn generate<T: JsonSchema>() -> Value {
    SchemaSettings::draft07().into_generator().into_root_schema_for::<T>().to_value()
}

/// The JSON Schema of a job file.
pub fn schema_job() -> Value {
    JOB.clone()
}

/// The JSON Schema of a sweep file.
pub fn schema_sweep() -> Value {
    SWEEP.clone()
}

/// Follows references and alternatives down to schemas that say a type or a word.
pub(crate) fn leaves<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let target = root.pointer(name.trim_start_matches('#'));
        return target.map_or_else(Vec::new, |target| leaves(root, target));
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(alternatives) = schema.get(key).and_then(Value::as_array) {
            return alternatives.iter().flat_map(|schema| leaves(root, schema)).collect();
        }
    }
    vec![schema]
}

/// Whether a leaf allows values of this JSON type.
pub(crate) fn allows(leaf: &Value, kind: &str) -> bool {
    match leaf.get("type") {
        // The schema `true` allows anything.
        _ if *leaf == Value::Bool(true) => true,
        Some(Value::String(name)) => name == kind,
        Some(Value::Array(names)) => names.iter().any(|name| name == kind),
        // Without a type only words are left.
        _ => kind == "string" && !words(leaf).is_empty(),
    }
}

/// The words that a leaf allows, if it is an enumeration.
pub(crate) fn words(leaf: &Value) -> Vec<&str> {
    match (leaf.get("const"), leaf.get("enum")) {
        (Some(Value::String(word)), _) => vec![word],
        (_, Some(Value::Array(words))) => words.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The schema of the field `name` of an object, if there is one.
pub(crate) fn field<'a>(root: &'a Value, schema: &'a Value, name: &str) -> Option<&'a Value> {
    leaves(root, schema).into_iter().find_map(|leaf| {
        let items = || leaf.get("items").filter(|_| name.parse::<usize>().is_ok());
        let open = || leaf.get("additionalProperties").filter(|schema| schema.is_object());
        leaf.get("properties").and_then(|fields| fields.get(name)).or_else(items).or_else(open)
    })
}

/// Where in the file a field of this name exists, such as `train.learning_rate`.
pub(crate) fn find(root: &Value, name: &str) -> Option<String> {
    fn search(root: &Value, schema: &Value, name: &str, path: &str) -> Option<String> {
        for leaf in leaves(root, schema) {
            let Some(fields) = leaf.get("properties").and_then(Value::as_object) else { continue };
            if fields.contains_key(name) {
                return Some(format!("{path}{name}"));
            }
            let deeper = |(key, field): (&String, &Value)| search(root, field, name, &format!("{path}{key}."));
            if let Some(found) = fields.iter().find_map(deeper) {
                return Some(found);
            }
        }
        None
    }
    search(root, root, name, "")
}
