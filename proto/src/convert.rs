//! Wire to core and back; the only place that knows both.
//!
//! What comes in is checked field by field and refused with the name of the field; what goes out cannot fail.

mod checkpoint;
mod job;
mod session;
mod sweep;
#[cfg(test)]
mod tests;
mod worker;

use std::fmt::Display;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A message that says less, or something else, than its type promises.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}`: {problem}")]
pub struct Malformed {
    field: &'static str,
    problem: String,
}

impl Malformed {
    fn new(field: &'static str, problem: impl Display) -> Self {
        Self { field, problem: problem.to_string() }
    }
}

/// A field that proto3 makes optional and this protocol does not.
pub(crate) fn need<T>(value: Option<T>, field: &'static str) -> Result<T, Malformed> {
    value.ok_or_else(|| Malformed::new(field, "is missing"))
}

pub(crate) fn parse<T>(text: &str, field: &'static str) -> Result<T, Malformed>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|error| Malformed::new(field, error))
}

pub(crate) fn parse_some<T>(text: Option<&String>, field: &'static str) -> Result<Option<T>, Malformed>
where
    T: FromStr,
    T::Err: Display,
{
    text.map(|text| parse(text, field)).transpose()
}

/// Reads a specification, which validates it again.
pub(crate) fn from_json<T: DeserializeOwned>(text: &str, field: &'static str) -> Result<T, Malformed> {
    serde_json::from_str(text).map_err(|error| Malformed::new(field, error))
}

pub(crate) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("specifications and parameters are plain data with text keys")
}

pub(crate) fn all<W, C: TryFrom<W, Error = Malformed>>(list: Vec<W>) -> Result<Vec<C>, Malformed> {
    list.into_iter().map(C::try_from).collect()
}

pub(crate) fn every<C, W: From<C>>(list: Vec<C>) -> Vec<W> {
    list.into_iter().map(W::from).collect()
}
