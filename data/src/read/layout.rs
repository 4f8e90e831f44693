//! Telling formats apart by what files contain.

use super::conversation::is_tuple;
use super::pickle::{Document, Value};
use super::plain::is_plain;
use super::table::Table;
use super::{Content, Format, Opened, iemocap, sentences, tracks};
use crate::error::Error;
use crate::schema::Split;

/// The hint for a file of which nothing is known.
pub(super) const SUPPORTED: &str = "supported are pickles of MMSA, UniMSE, MulT, MISA, MELD, DialogueRNN and COGMEN, .csd files, and CSV files; \
     `unimse data import --help` lists them";

/// What the layout of one file tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// `split -> columns` with raw words.
    Mmsa,
    /// `split -> columns` without, as `MulT` and `UniMSE` have it.
    Mult,
    /// A list of triples, the first of which starts with a tuple.
    Misa,
    /// A tuple of dicts by dialogue.
    Conversation,
    /// Features alone, by id.
    Tracks,
    /// A pickle of some other layout.
    OtherPickle,
    /// The columns of the official MELD files.
    Meld,
    /// The same with universal labels of `UniMSE`.
    UnimseMeld,
    /// `UniMSE`'s IEMOCAP.
    Iemocap,
    /// `UniMSE`'s MOSI and MOSEI.
    UnimseSentences,
    /// A table of one's own, or of sentences for a pickle without words.
    Plain,
    /// Computational sequences, or the folds for them.
    Csd,
    /// A table of some other layout.
    OtherTable,
}

/// Finds the format of files that belong together.
pub(crate) fn format_of(opened: &[Opened]) -> Result<Format, Error> {
    let layouts: Vec<Layout> = opened.iter().map(layout_of).collect();
    let has = |layout| layouts.contains(&layout);
    let formats = [
        (Layout::Csd, Format::Csd),
        (Layout::Mmsa, Format::Mmsa),
        (Layout::Conversation, Format::DialogueRnn),
        (Layout::Misa, Format::Misa),
        (Layout::Iemocap, Format::Unimse),
        (Layout::UnimseMeld, Format::Unimse),
        (Layout::UnimseSentences, Format::Unimse),
        (Layout::Mult, Format::Mult),
        (Layout::Meld, Format::Meld),
        // Without words; the reader of MELD says so.
        (Layout::Tracks, Format::Meld),
        (Layout::Plain, Format::Plain),
        // The reader of MMSA says best what an unknown pickle lacks.
        (Layout::OtherPickle, Format::Mmsa),
    ];
    let found = formats.into_iter().find(|(layout, _)| has(*layout));
    found.map(|(_, format)| format).ok_or_else(|| Error::Format {
        path: opened.iter().map(Opened::path).collect::<Vec<_>>().join(", "),
        problem: "the format is not known".to_owned(),
        hint: SUPPORTED.to_owned(),
    })
}

fn layout_of(opened: &Opened) -> Layout {
    match &opened.content {
        Content::Pickle(document) => pickle_layout(document),
        Content::Table(table) => table_layout(table),
        Content::Hdf5 | Content::Folds(_) => Layout::Csd,
    }
}

fn table_layout(table: &Table) -> Layout {
    if table.has(&["Utterance", "Dialogue_ID", "Utterance_ID"]) {
        return if table.has(&["score_label"]) { Layout::UnimseMeld } else { Layout::Meld };
    }
    if is_iemocap(table) {
        return Layout::Iemocap;
    }
    if table.has(&sentences::COLUMNS) && table.has(&sentences::UNIVERSAL) {
        return Layout::UnimseSentences;
    }
    if is_plain(table) || table.has(&sentences::COLUMNS) { Layout::Plain } else { Layout::OtherTable }
}

/// Whether a table is of `UniMSE`'s IEMOCAP.
pub(super) fn is_iemocap(table: &Table) -> bool {
    table.has(&iemocap::COLUMNS)
}

fn pickle_layout(document: &Document) -> Layout {
    let root = document.root();
    if let Some(columns) = Split::ALL.into_iter().find_map(|split| find_split(root, split)) {
        if columns.get("raw_text").or_else(|| columns.get("regression_labels")).is_some() {
            return Layout::Mmsa;
        }
        if columns.get("labels").is_some() {
            return Layout::Mult;
        }
    }
    if is_tuple(root) {
        return Layout::Conversation;
    }
    if tracks::both(root).is_some() || tracks::is_track(root) {
        return Layout::Tracks;
    }
    let first = root.item(0).filter(|first| first.items().is_some_and(|parts| parts.len() == 3));
    let is_misa = first
        .and_then(|first| first.item(0))
        .is_some_and(|content| content.items().is_some_and(|parts| parts.len() >= 4));
    if is_misa { Layout::Misa } else { Layout::OtherPickle }
}

/// The columns of a split in a dict of splits.
pub(crate) fn find_split(root: Value<'_>, split: Split) -> Option<Value<'_>> {
    let names: &[&str] = match split {
        Split::Train => &["train"],
        Split::Valid => &["valid", "dev", "val"],
        Split::Test => &["test"],
    };
    names.iter().find_map(|name| root.get(name))
}
