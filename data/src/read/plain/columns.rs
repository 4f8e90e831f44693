//! Which column of a table of one's own is what.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::read::context::Turn;
use crate::read::labels::class;
use crate::read::table::{Record, Table};
use crate::schema::{Split, Vocabulary};

const HINT: &str = "a table of one's own has the columns id, text, and score or emotion";

/// The columns of a table.
pub(super) struct Columns {
    id: Option<usize>,
    clip: Option<usize>,
    text: usize,
    pub(super) split: Option<usize>,
    pub(super) score: Option<usize>,
    pub(super) polarity: Option<usize>,
    emotion: Option<usize>,
    speaker: Option<usize>,
    pub(super) dialogue: Option<usize>,
    pub(super) turn: Option<usize>,
    /// The paths of acoustic and visual features.
    pub(super) paths: [Option<usize>; 2],
}

/// Whether a table is one of these.
pub(crate) fn is_plain(table: &Table) -> bool {
    let has_id = table.has(&["id"]) || table.has(&["video_id", "clip_id"]);
    let labels = ["score", "label", "emotion", "polarity"];
    has_id && table.has(&["text"]) && labels.into_iter().any(|name| table.find(name).is_some())
}

impl Columns {
    pub(super) fn of(table: &Table) -> Result<Self, Error> {
        let any = |names: &[&str]| names.iter().find_map(|name| table.find(name));
        let pair = table.find("video_id").zip(table.find("clip_id")).filter(|_| table.find("id").is_none());
        let id = match pair {
            Some((video, _)) => video,
            None => table.column("id", HINT)?,
        };
        let label = table.find("label");
        let is_number = |column: usize| {
            let mut values = table.rows.iter().filter_map(|row| row.find(Some(column))).peekable();
            values.peek().is_some() && values.all(|value| value.parse::<f64>().is_ok())
        };
        let numbers = label.filter(|column| is_number(*column));
        let words = label.filter(|column| !is_number(*column));
        Ok(Self {
            id: Some(id),
            clip: pair.map(|(_, clip)| clip),
            text: table.column("text", HINT)?,
            split: any(&["split", "mode"]),
            score: table.find("score").or(numbers),
            polarity: any(&["polarity", "annotation"]),
            emotion: table.find("emotion").or(words),
            speaker: table.find("speaker"),
            dialogue: any(&["dialogue", "video_id"]),
            turn: any(&["turn", "clip_id"]),
            paths: [any(&["acoustic", "audio"]), any(&["visual", "vision", "video"])],
        })
    }

    pub(super) fn id(&self, row: &Record) -> String {
        let id = row.find(self.id).unwrap_or_default();
        match self.clip {
            Some(clip) => format!("{id}_{}", row.get(clip)),
            None => id.to_owned(),
        }
    }

    pub(super) fn emotion<'r>(&self, row: &'r Record) -> Option<&'r str> {
        row.find(self.emotion)
    }

    pub(super) fn turn(&self, row: &Record) -> Turn {
        Turn { speaker: row.find(self.speaker).map(str::to_owned), text: row.get(self.text).to_owned() }
    }

    /// Videos of clips are no dialogues: MOSI and MOSEI have no context.
    pub(super) fn has_dialogues(&self) -> bool {
        self.clip.is_none() && self.dialogue.is_some() && self.turn.is_some()
    }

    /// Where a row is in its dialogue; the same dialogue in two splits is two.
    pub(super) fn place(&self, row: &Record, split: Option<Split>) -> Option<(String, i64)> {
        let split = split.or_else(|| row.find(self.split)?.parse().ok())?;
        let turn = row.find(self.turn)?.parse().ok()?;
        Some((format!("{split} {}", row.find(self.dialogue)?), turn))
    }
}

/// The vocabulary that emotions are of.
pub(super) fn vocabulary_of<'e>(emotions: impl Iterator<Item = &'e str>) -> Option<Vocabulary> {
    let words: BTreeSet<String> = emotions.map(str::to_lowercase).collect();
    if words.is_empty() {
        return None;
    }
    let known = [Vocabulary::meld(), Vocabulary::iemocap()];
    let fits = |vocabulary: &Vocabulary| words.iter().all(|word| class("emotion", word, vocabulary).is_ok());
    let own = || Vocabulary { name: "emotion".to_owned(), classes: words.iter().cloned().collect() };
    Some(known.into_iter().find(fits).unwrap_or_else(own))
}
