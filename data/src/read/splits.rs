//! Which split a file holds, for releases with one file a split.

use super::Source;
use crate::error::Error;
use crate::schema::Split;

/// The split that the user or the file's name tells.
pub(crate) fn split_of(source: &Source) -> Result<Split, Error> {
    source.split.or_else(|| split_of_name(&source.name())).ok_or_else(|| Error::Format {
        path: source.path.display().to_string(),
        problem: "the file's name does not tell its split".to_owned(),
        hint: format!("write train={0}, valid={0} or test={0}", source.path.display()),
    })
}

pub(crate) fn split_of_name(name: &str) -> Option<Split> {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric());
    words.into_iter().find_map(|word| word.parse().ok())
}

/// Gives each file its split, in the order of splits; two files of one split are an error.
pub(crate) fn one_a_split<T>(files: Vec<T>, source: impl Fn(&T) -> &Source) -> Result<Vec<(Split, T)>, Error> {
    let mut known: Vec<(Split, T)> = Vec::new();
    for file in files {
        let split = split_of(source(&file))?;
        if let Some((_, earlier)) = known.iter().find(|(known, _)| *known == split) {
            return Err(Error::Format {
                path: source(&file).path.display().to_string(),
                problem: format!("split `{split}` is in {} already", source(earlier).path.display()),
                hint: "give one file a split".to_owned(),
            });
        }
        known.push((split, file));
    }
    known.sort_by_key(|(split, _)| *split);
    Ok(known)
}
