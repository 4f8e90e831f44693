//! From the views' own JSON to the JSON that people's programs read.

use serde_json::Value;
use unimse_core::time::Timestamp;

use super::time::rfc3339;

/// Fields that hold a time as milliseconds since the epoch.
const TIMES: [&str; 8] = ["at", "submitted", "ended", "committed", "joined", "heard", "started", "since"];

/// Fields whose content has names that people chose; nothing in them is ours to change.
const OPAQUE: [&str; 5] = ["labels", "metrics", "parameters", "spec", "step_parts"];

/// Writes all times as RFC 3339.
pub(crate) fn humanise(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(humanise),
        Value::Object(fields) => {
            for (name, value) in fields {
                if OPAQUE.contains(&name.as_str()) {
                    continue;
                }
                let time = TIMES.contains(&name.as_str()).then(|| value.as_u64()).flatten();
                match time.and_then(|time| rfc3339(Timestamp(time))) {
                    Some(text) => *value = Value::String(text),
                    None => humanise(value),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_text_and_what_people_named_stays_as_it_is() {
        let mut value = json!({
            "job": { "submitted": 1_795_293_663_250_u64, "ended": null, "labels": { "at": "5" }, "metrics": { "at": 5 } },
            "history": [{ "at": 0, "what": "submitted" }],
            "step": 12,
        });
        humanise(&mut value);
        let expected = json!({
            "job": { "submitted": "2026-11-21T20:41:03.250Z", "ended": null, "labels": { "at": "5" }, "metrics": { "at": 5 } },
            "history": [{ "at": "1970-01-01T00:00:00.000Z", "what": "submitted" }],
            "step": 12,
        });
        assert_eq!(value, expected);
    }
}
