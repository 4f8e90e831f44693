//! The utterance among its neighbours, as one string for the model.
//!
//! `UniMSE`, section 3: each turn is preceded by its speaker's name (in MELD), the current one is set between `</s>` marks;
//! in IEMOCAP only turns of the same speaker count, and there are no names. The marks are always both there, unlike in
//! the published scripts, whose rules change at the ends of a dialogue.

use std::collections::BTreeMap;

use crate::schema::{ContextWindow, Turns};

/// What separates the current turn from its context; tokenizers of T5 make it the end-of-sequence token.
pub(crate) const MARK: &str = "</s>";

/// One turn of a dialogue.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub(crate) speaker: Option<String>,
    pub(crate) text: String,
}

/// The turns of each dialogue in the order of speaking.
#[derive(Debug)]
pub(crate) struct Dialogues {
    /// Position and index of each turn, by dialogue.
    order: BTreeMap<String, Vec<(i64, usize)>>,
    /// Dialogue and position of each turn; turns without are alone.
    places: Vec<Option<(String, i64)>>,
}

impl Dialogues {
    /// Orders turns by where they are: the dialogue and the position in it, if known.
    pub(crate) fn of(places: Vec<Option<(String, i64)>>) -> Self {
        let mut order: BTreeMap<String, Vec<(i64, usize)>> = BTreeMap::new();
        for (index, place) in places.iter().enumerate() {
            if let Some((dialogue, position)) = place {
                order.entry(dialogue.clone()).or_default().push((*position, index));
            }
        }
        for turns in order.values_mut() {
            turns.sort_unstable();
        }
        Self { order, places }
    }

    /// The turn `index` among its neighbours; `turn` gives the words of each.
    pub(crate) fn context<'t>(&self, index: usize, window: ContextWindow, turn: impl Fn(usize) -> &'t Turn) -> String {
        let current = turn(index);
        let found = self.places.get(index).and_then(Option::as_ref);
        let Some((dialogue, position)) = found else { return join(&[current], 0, window) };
        let counts =
            |other: &usize| *other == index || window.turns == Turns::All || turn(*other).speaker == current.speaker;
        let turns = self.order.get(dialogue).map_or(&[][..], Vec::as_slice);
        let turns: Vec<(i64, usize)> = turns.iter().copied().filter(|(_, other)| counts(other)).collect();
        let at = turns.binary_search(&(*position, index)).unwrap_or(0);
        join(&turns.iter().map(|(_, other)| turn(*other)).collect::<Vec<_>>(), at, window)
    }

    /// How many turns of its dialogue come before a turn.
    pub(crate) fn ordinal(&self, index: usize) -> Option<usize> {
        let (dialogue, position) = self.places.get(index)?.as_ref()?;
        self.order.get(dialogue)?.binary_search(&(*position, index)).ok()
    }
}

/// Joins the turns around `current`.
pub(crate) fn join(turns: &[&Turn], current: usize, window: ContextWindow) -> String {
    let from = current.saturating_sub(window.past);
    let to = current.saturating_add(window.future).saturating_add(1).min(turns.len());
    let mut words: Vec<&str> = Vec::new();
    for (index, turn) in (from..to).map(|index| (index, turns[index])) {
        if index == current {
            words.push(MARK);
        }
        words.extend(turn.speaker.as_deref().filter(|_| window.names));
        words.push(&turn.text);
        if index == current {
            words.push(MARK);
        }
    }
    words.join(" ")
}

/// Takes the utterance out of a text that has its context around it already, as the `*-contexts*.csv` of `UniMSE` have.
pub(crate) fn utterance_of<'t>(text: &'t str, speaker: Option<&str>) -> &'t str {
    let Some((_, rest)) = text.split_once(MARK) else { return text };
    let utterance = rest.split_once(MARK).map_or(rest, |(utterance, _)| utterance).trim();
    let without = speaker.and_then(|speaker| utterance.strip_prefix(speaker));
    without.filter(|rest| rest.starts_with(' ')).map_or(utterance, str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns() -> [Turn; 4] {
        ["zero", "one", "two", "three"].map(|text| Turn {
            speaker: Some(if text.len() == 3 { "Ann" } else { "Bo" }.to_owned()),
            text: text.to_owned(),
        })
    }

    fn joined(current: usize, past: usize, future: usize) -> String {
        join(&turns().iter().collect::<Vec<_>>(), current, ContextWindow::new(past, future))
    }

    #[test]
    fn a_turn_in_the_middle_has_neighbours_on_both_sides() {
        assert_eq!(joined(1, 2, 2), "Bo zero </s> Ann one </s> Ann two Bo three");
        assert_eq!(joined(2, 1, 1), "Ann one </s> Ann two </s> Bo three");
    }

    #[test]
    fn the_first_and_the_last_turn_are_marked_like_all_others() {
        assert_eq!(joined(0, 2, 1), "</s> Bo zero </s> Ann one");
        assert_eq!(joined(3, 1, 2), "Ann two </s> Bo three </s>");
    }

    #[test]
    fn a_causal_window_never_looks_ahead() {
        assert_eq!(joined(2, 2, 0), "Bo zero Ann one </s> Ann two </s>");
        assert_eq!(joined(2, 0, 0), "</s> Ann two </s>");
    }

    #[test]
    fn the_same_speaker_alone_and_no_names_as_iemocap_is_published() {
        let turns = turns();
        let places = (0..4).map(|index| Some(("d".to_owned(), index))).collect();
        let dialogues = Dialogues::of(places);
        let window = ContextWindow { turns: Turns::Same, names: false, ..ContextWindow::new(1, 1) };
        assert_eq!(dialogues.context(0, window, |index| &turns[index]), "</s> zero </s> three");
        assert_eq!(dialogues.context(2, window, |index| &turns[index]), "one </s> two </s>");
        assert_eq!(dialogues.ordinal(2), Some(2));
    }

    #[test]
    fn published_contexts_give_back_the_utterance() {
        assert_eq!(utterance_of("Bo Hi. </s> Ann Fine. </s> Bo Good.", Some("Ann")), "Fine.");
        assert_eq!(utterance_of("</s> Well, well. </s>", None), "Well, well.");
        assert_eq!(utterance_of("Annoying.", Some("Ann")), "Annoying.");
    }
}
