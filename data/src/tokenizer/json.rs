//! Looks into a `tokenizer.json` before the `tokenizers` crate does.
//!
//! The crate panics where a normalizer of type `Precompiled` has no table of replaced characters or one that cannot be
//! decoded, and later, with the first text, where the table points beyond its end.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::charsmap;
use crate::error::Error;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    normalizer: Value,
}

/// Refuses a file with a broken table in its normalizer, or in one of a sequence; `name` appears in errors.
pub(crate) fn check(bytes: &[u8], name: &str) -> Result<(), Error> {
    let file: File = serde_json::from_slice(bytes).map_err(|cause| Error::Tokenizer {
        problem: format!("{name} is not a tokenizer.json: {cause}"),
        hint: "give the tokenizer.json of a model, as transformers saves it, or one made by this program".to_owned(),
    })?;
    // A sequence may hold sequences; whatever holds a table is checked, wherever it is.
    let mut open = vec![&file.normalizer];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(fields) => {
                normalizer(fields).map_err(|problem| Error::Tokenizer {
                    problem: format!("{name}: normalizer: {problem}"),
                    hint: "copy tokenizer.json again from where the model was published, as a whole".to_owned(),
                })?;
                open.extend(fields.values());
            }
            _ => {}
        }
    }
    Ok(())
}

fn normalizer(fields: &Map<String, Value>) -> Result<(), String> {
    // The crate also takes the name of a type in the form of a map.
    let named = match fields.get("type") {
        None => false,
        Some(Value::String(name)) => name == "Precompiled",
        Some(_) => return Err("its type is not a text".to_owned()),
    };
    let table = match fields.get("precompiled_charsmap") {
        Some(Value::String(table)) => table,
        Some(_) => return Err("precompiled_charsmap: it is not a text".to_owned()),
        None if named => return Err("precompiled_charsmap: it is missing".to_owned()),
        None => return Ok(()),
    };
    let table = base64::decode(table).map_err(|cause| format!("precompiled_charsmap: it is not base64: {cause}"))?;
    charsmap::check(&table).map_err(|problem| format!("precompiled_charsmap: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::super::Tokenizer;

    fn parse(normalizer: &str) -> Result<Tokenizer, String> {
        let vocabulary = r#"[["<pad>",0.0],["</s>",0.0],["<unk>",0.0],["b",-1.0]]"#;
        let text = format!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":{normalizer},
            "pre_tokenizer":null,"post_processor":null,"decoder":null,
            "model":{{"type":"Unigram","unk_id":2,"vocab":{vocabulary}}}}}"#
        );
        Tokenizer::parse(text.as_bytes(), "some.json").map_err(|error| error.to_string())
    }

    fn precompiled(table: &[u8]) -> String {
        format!(r#"{{"type":"Precompiled","precompiled_charsmap":"{}"}}"#, base64::encode(table))
    }

    /// A table that replaces `a` by the text at `at`.
    fn table(at: u32) -> Vec<u8> {
        let mut units = vec![0_u32; 256];
        units[usize::from(b'a')] = u32::from(b'a') | (1 << 8) | (1 << 10);
        units[usize::from(b'a' ^ 1)] = (1 << 31) | at;
        let units = units.into_iter().flat_map(u32::to_le_bytes);
        1024_u32.to_le_bytes().into_iter().chain(units).chain(*b"b\0").collect()
    }

    #[test]
    fn a_sound_table_replaces_alone_and_in_a_sequence() {
        let one = precompiled(&table(0));
        let inner = format!(r#"{{"type":"Sequence","normalizers":[{one}]}}"#);
        let replace = r#"{"type":"Replace","pattern":{"String":"x"},"content":"b"}"#;
        let outer = format!(r#"{{"type":"Sequence","normalizers":[{replace},{inner}]}}"#);
        for normalizer in [one, outer] {
            assert_eq!(parse(&normalizer).unwrap().encode("a").unwrap(), [3, 1]);
        }
        assert_eq!(parse("null").unwrap().encode("a").unwrap(), [2, 1]);
    }

    #[test]
    fn a_hostile_table_is_refused_before_it_is_followed() {
        for (normalizer, problem) in [
            (precompiled(&table(77)), "it points to replacement 77, of 2 bytes"),
            (precompiled(&table(0)[..300]), "its trie has 1024 bytes, of 296 that are there"),
            (precompiled(b"\xff\xff\xff\xffabcd"), "its trie has 4294967295 bytes, of 4 that are there"),
            (precompiled(b""), "it has 0 bytes"),
            (r#"{"type":"Precompiled","precompiled_charsmap":"*"}"#.to_owned(), "it is not base64"),
            (r#"{"type":"Precompiled","precompiled_charsmap":null}"#.to_owned(), "it is not a text"),
            (r#"{"type":"Precompiled"}"#.to_owned(), "it is missing"),
            (r#"{"type":{"Precompiled":null}}"#.to_owned(), "its type is not a text"),
        ] {
            for whole in [normalizer.clone(), format!(r#"{{"type":"Sequence","normalizers":[{normalizer}]}}"#)] {
                let error = parse(&whole).unwrap_err();
                assert!(error.contains("some.json: normalizer: ") && error.contains(problem), "{error}");
                assert!(error.contains("hint: copy tokenizer.json again"), "{error}");
            }
        }
    }

    #[test]
    fn a_second_normalizer_cannot_hide_the_first() {
        let text = format!(r#"{{"normalizer":{},"normalizer":null}}"#, precompiled(&table(77)));
        let error = Tokenizer::parse(text.as_bytes(), "some.json").unwrap_err().to_string();
        assert!(error.contains("duplicate field `normalizer`"), "{error}");
    }
}
