//! Errors in what people wrote, shown at the place where they wrote it.
//!
//! Every error carries a stable code, the file, line and column, the line itself with a caret, and what to do about it. The
//! text follows rustc's layout, which editors and people already know how to read.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of mistake it is; the code is stable and listed in the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Code {
    /// The text is not YAML.
    #[serde(rename = "E0101")]
    Syntax,
    /// The text is too large, too deep or expands to too much.
    #[serde(rename = "E0102")]
    Limit,
    /// A field that does not exist.
    #[serde(rename = "E0103")]
    UnknownField,
    /// Text where a number is needed, a list where a mapping is needed, and so on.
    #[serde(rename = "E0104")]
    WrongType,
    /// A number outside the range that makes sense.
    #[serde(rename = "E0105")]
    OutOfRange,
    /// A field without a default was left out.
    #[serde(rename = "E0106")]
    Missing,
    /// The same field was written twice.
    #[serde(rename = "E0107")]
    Duplicate,
    /// A word that is not one of those allowed.
    #[serde(rename = "E0108")]
    UnknownValue,
    /// Text that does not have the form it needs: a name, a duration, a path, a checkpoint.
    #[serde(rename = "E0109")]
    BadFormat,
    /// Two fields that are fine alone and wrong together.
    #[serde(rename = "E0110")]
    Contradiction,
    /// Not a number, or infinite.
    #[serde(rename = "E0111")]
    NotFinite,
    /// An argument of `--set` that is not `path=value`.
    #[serde(rename = "E0112")]
    BadSet,
    /// Something planned that this version cannot do.
    #[serde(rename = "E0113")]
    NotYet,
    /// A sweep with more trials than anybody can want.
    #[serde(rename = "E0114")]
    TooMany,
    /// A file that another one names and that could not be read.
    #[serde(rename = "E0115")]
    Unresolved,
}

impl Code {
    /// All codes, in order.
    pub const ALL: [Self; 15] = [
        Self::Syntax,
        Self::Limit,
        Self::UnknownField,
        Self::WrongType,
        Self::OutOfRange,
        Self::Missing,
        Self::Duplicate,
        Self::UnknownValue,
        Self::BadFormat,
        Self::Contradiction,
        Self::NotFinite,
        Self::BadSet,
        Self::NotYet,
        Self::TooMany,
        Self::Unresolved,
    ];

    /// The code as people quote it, such as `E0103`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "E0101",
            Self::Limit => "E0102",
            Self::UnknownField => "E0103",
            Self::WrongType => "E0104",
            Self::OutOfRange => "E0105",
            Self::Missing => "E0106",
            Self::Duplicate => "E0107",
            Self::UnknownValue => "E0108",
            Self::BadFormat => "E0109",
            Self::Contradiction => "E0110",
            Self::NotFinite => "E0111",
            Self::BadSet => "E0112",
            Self::NotYet => "E0113",
            Self::TooMany => "E0114",
            Self::Unresolved => "E0115",
        }
    }

    /// One or two sentences for `unimse explain CODE` and the book.
    pub fn explain(self) -> &'static str {
        match self {
            Self::Syntax => {
                "The file is not valid YAML. The caret is where the parser gave up; the mistake may be a line above."
            }
            Self::Limit => {
                "The file is larger than 1 MiB, nested deeper than 32 levels, or expands to far more than it \
                 says. Job files are small; this protects the coordinator."
            }
            Self::UnknownField => {
                "The field does not exist. Nothing is ever ignored silently, so a typing error cannot change \
                 what a job does."
            }
            Self::WrongType => "The value has another type than the field needs, such as text in place of a number.",
            Self::OutOfRange => "The number lies outside the range in which the field makes sense.",
            Self::Missing => "The field has no default and must be given.",
            Self::Duplicate => "The same field occurs twice in one mapping; which one counts would be a guess.",
            Self::UnknownValue => "The word is not one of those that the field knows.",
            Self::BadFormat => "The text does not have the form that the field needs.",
            Self::Contradiction => "Each of the fields is fine alone, together they cannot be meant.",
            Self::NotFinite => "The number is not finite (NaN or infinity, or too large to be represented).",
            Self::BadSet => "An argument of `--set` has the form path=value, such as train.learning_rate=3e-4.",
            Self::NotYet => "The feature is planned and has a name already, but this version cannot do it.",
            Self::TooMany => {
                "The sweep would have more trials than the limit; it is refused before anything is expanded."
            }
            Self::Unresolved => "A file named in the text could not be read.",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Code {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|code| code.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| format!("`{text}` is not an error code (they look like E0103)"))
    }
}

/// Where something stands in a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Name of the text: a file as the user typed it, or `--set`.
    pub source: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Characters that the caret underlines, at least 1.
    pub width: u32,
    /// The whole line.
    pub text: String,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    pub code: Code,
    /// What is wrong, in lower case and without a full stop.
    pub message: String,
    /// Where it is wrong; absent when the text as a whole is meant.
    pub place: Option<Place>,
    /// A few words beside the caret.
    pub label: Option<String>,
    /// What to do about it, one line each.
    pub help: Vec<String>,
}

impl Diagnostic {
    /// Describes a mistake without a place.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), place: None, label: None, help: Vec::new() }
    }

    /// Points at `place`.
    #[must_use]
    pub fn at(mut self, place: Option<Place>) -> Self {
        self.place = place;
        self
    }

    /// Adds words beside the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Adds a line of help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }
}

/// Longer lines are shown as a window around the caret.
const WINDOW: usize = 120;

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.code, self.message)?;
        let mut margin = 1;
        if let Some(place) = &self.place {
            let number = place.line.to_string();
            margin = number.len();
            let (shown, before) = window(&place.text, place.column as usize - 1);
            // A tab stays a tab in the line of the caret, so that both lines are equally wide whatever a tab is worth.
            let lead: String = shown.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let room = shown.chars().count().saturating_sub(before).max(1);
            let carets = "^".repeat((place.width as usize).clamp(1, room));
            write!(f, "\n{:margin$}--> {}:{}:{}", "", place.source, place.line, place.column)?;
            write!(f, "\n{:margin$} |\n{number} | {}\n{:margin$} | {lead}{carets}", "", shown.trim_end(), "")?;
            if let Some(label) = &self.label {
                write!(f, " {label}")?;
            }
        } else if let Some(label) = &self.label {
            write!(f, ": {label}")?;
        }
        for help in &self.help {
            write!(f, "\n{:margin$} = help: {help}", "")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// Cuts a line to what fits around `column` (from 0), and says how many characters stand before it.
///
/// Control characters would let a file write to the reader's terminal, so they are replaced.
fn window(line: &str, column: usize) -> (String, usize) {
    let clean = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
    let start = column.saturating_sub(WINDOW / 2);
    let start = if line.chars().count() <= WINDOW { 0 } else { start };
    let mut shown: String = line.chars().skip(start).take(WINDOW).map(clean).collect();
    let mut before = column - start;
    if start > 0 {
        shown.insert(0, '…');
        before += 1;
    }
    if line.chars().count() > start + WINDOW {
        shown.push('…');
    }
    let length = shown.chars().count();
    (shown, before.min(length))
}

/// All mistakes found in one go, at least one, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Sorts what was found by place; `Ok` when nothing was.
    pub fn check(mut found: Vec<Diagnostic>) -> Result<(), Self> {
        if found.is_empty() {
            return Ok(());
        }
        found.sort_by_key(|diagnostic| diagnostic.place.as_ref().map(|place| (place.line, place.column)));
        Err(Self(found))
    }

    /// The mistakes, in the order of the text.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// The first mistake.
    pub fn first(&self) -> &Diagnostic {
        &self.0[0]
    }

    /// Whether a mistake of this kind is among them.
    pub fn has(&self, code: Code) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.code == code)
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, diagnostic) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Finds the allowed word that was probably meant.
pub(crate) fn suggest<'a>(word: &str, allowed: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let scored = allowed.into_iter().filter_map(|candidate| {
        let score = strsim::jaro_winkler(&lower, candidate);
        let close = strsim::damerau_levenshtein(&lower, candidate) <= candidate.len().div_ceil(4).max(1);
        (close || score > 0.88).then_some((candidate, score))
    });
    scored.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(candidate, _)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: u32, column: u32, width: u32, text: &str) -> Place {
        Place { source: "job.yaml".into(), line, column, width, text: text.into() }
    }

    #[test]
    fn it_reads_like_a_compiler_message() {
        let diagnostic = Diagnostic::new(Code::UnknownField, "unknown field `min_slot` in `resources`")
            .at(Some(place(14, 3, 8, "  min_slot: 2")))
            .label("did you mean `min_slots`?")
            .help("allowed: slots, min_slots");
        let expected = "\
error[E0103]: unknown field `min_slot` in `resources`
  --> job.yaml:14:3
   |
14 |   min_slot: 2
   |   ^^^^^^^^ did you mean `min_slots`?
   = help: allowed: slots, min_slots";
        assert_eq!(diagnostic.to_string(), expected);
    }

    #[test]
    fn a_caret_never_leaves_the_line_and_control_characters_never_reach_the_terminal() {
        let text = format!("a: \u{1b}[31m{}", "x".repeat(5000));
        let diagnostic = Diagnostic::new(Code::Syntax, "bad").at(Some(place(1, 4, 9999, &text)));
        let shown = diagnostic.to_string();
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
        assert!(shown.lines().all(|line| line.chars().count() < WINDOW + 10), "{shown}");
        let far = Diagnostic::new(Code::Syntax, "bad").at(Some(place(1, 4000, 3, &text))).to_string();
        assert!(far.contains("…") && far.ends_with("^^^"), "{far}");
    }

    #[test]
    fn suggestions_are_near_misses_only() {
        let allowed = ["slots", "min_slots", "priority", "queue"];
        assert_eq!(suggest("min_slot", allowed), Some("min_slots"));
        assert_eq!(suggest("prioritty", allowed), Some("priority"));
        assert_eq!(suggest("Queue", allowed), Some("queue"));
        assert_eq!(suggest("colour", allowed), None);
    }

    #[test]
    fn every_code_is_unique_and_reads_back() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse(), Ok(code));
            assert_eq!(serde_json::to_value(code).expect("a code is a string"), code.as_str());
            assert!(!code.explain().is_empty());
        }
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }
}
