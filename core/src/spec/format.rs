//! Rules for texts that must have a certain form, by the name that the schema gives the form.

use super::duration;
use super::job::{CheckpointName, Resume};

/// Schemes of object stores; anything else in front of `://` is a typing error.
const SCHEMES: [&str; 5] = ["file", "s3", "gs", "az", "memory"];
/// Longer names and paths are a mistake.
const MAX_NAME: usize = 63;
const MAX_LOCATION: usize = 1024;

/// Checks `text` against the form `format`; the error says what the form is. Forms unknown here belong to JSON Schema.
pub(crate) fn check(format: &str, text: &str) -> Result<(), String> {
    match format {
        "name" => name(text, MAX_NAME),
        // Leaves room for the number of a trial.
        "sweep-name" => name(text, MAX_NAME - 8),
        "location" => location(text),
        "duration" => {
            duration::parse(text).map(drop).ok_or_else(|| "write a duration such as `30s`, `10m` or `1h30m`".into())
        }
        "period" => match duration::parse(text) {
            Some(duration) if !duration.is_zero() => Ok(()),
            _ => Err("write a duration above zero, such as `30m`, `2h` or `1d`".into()),
        },
        "metric" => metric(text),
        "resume" => resume(text).map(drop),
        _ => Ok(()),
    }
}

fn name(text: &str, longest: usize) -> Result<(), String> {
    let body = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.is_empty() || text.len() > longest {
        return Err(format!("use 1 to {longest} characters"));
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err("begin with a letter or a digit".into());
    }
    match text.chars().find(|c| !body(*c)) {
        Some(_) => Err("use letters, digits, dots, hyphens and underscores".into()),
        None => Ok(()),
    }
}

fn metric(text: &str) -> Result<(), String> {
    let part = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let valid = text.len() <= 128 && text.contains('/') && text.split('/').all(part);
    if valid {
        Ok(())
    } else {
        Err("write a metric such as `valid/score`, `valid/mae` or `valid/mosi/acc2_non0`".into())
    }
}

fn location(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > MAX_LOCATION {
        return Err(format!("use 1 to {MAX_LOCATION} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err("a path holds no control characters".into());
    }
    let Some((scheme, rest)) = text.split_once("://") else { return Ok(()) };
    if !SCHEMES.contains(&scheme) {
        let hint = crate::diagnostic::suggest(scheme, SCHEMES)
            .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        return Err(format!("known schemes are file, s3, gs and az{hint}"));
    }
    // Specifications are stored and shown; a secret in one would be in the journal, the logs and on the dashboard.
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.split_once('@').is_some_and(|(user, _)| user.contains(':')) {
        return Err("keep credentials out of the URI: the workers take them from their environment".into());
    }
    Ok(())
}

/// Reads the field `resume`.
pub(crate) fn resume(text: &str) -> Result<Resume, String> {
    match text {
        "auto" => return Ok(Resume::Auto),
        "never" => return Ok(Resume::Never),
        _ => {}
    }
    if let Ok(name) = text.parse::<CheckpointName>() {
        return Ok(Resume::Checkpoint(name));
    }
    if text.contains('/') {
        return location(text).map(|()| Resume::Location(text.to_owned()));
    }
    let near = crate::diagnostic::suggest(text, ["auto", "never"])
        .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
    Err(format!("write `auto`, `never`, a checkpoint such as `j-7k2m:best`, or a URI{near}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_takes_the_good_and_refuses_the_bad() {
        let cases: [(&str, &[&str], &[&str]); 4] = [
            ("name", &["mosi-meld", "a", "Run_1.2"], &["", "-a", "a b", "a/b", "ä", &"x".repeat(64)]),
            (
                "location",
                &["data/mosi.arrow", "s3://lab/ckpt", "file:///d"],
                &["", "s4://lab", "a\u{0}b", "s3://k:secret@lab/x"],
            ),
            ("metric", &["valid/score", "valid/mosi/f1_has0"], &["score", "valid/", "/x", "valid/a b"]),
            (
                "resume",
                &["auto", "never", "s3://lab/c", "./c", "j-7k2m", "j-7k2m:best"],
                &["atuo", "yes", "s4://lab/c"],
            ),
        ];
        for (format, good, bad) in cases {
            for text in good {
                assert_eq!(check(format, text), Ok(()), "{format} {text}");
            }
            for text in bad {
                assert!(check(format, text).is_err(), "{format} {text}");
            }
        }
        assert_eq!(resume("atuo").expect_err("a typing error"), resume("atuo").expect_err("the same each time"));
        assert!(resume("atuo").is_err_and(|help| help.ends_with("did you mean `auto`?")));
    }
}
