//! The utterance among its neighbours, as one string for the model.
//!
//! `UniMSE`, section 3: each turn is preceded by its speaker's name, the current one is set between `</s>` marks. The marks
//! are always both there, unlike in the published scripts, whose rules change at the ends of a dialogue.

use crate::schema::ContextWindow;

/// What separates the current turn from its context; tokenizers of T5 make it the end-of-sequence token.
pub(crate) const MARK: &str = "</s>";

/// One turn of a dialogue.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub(crate) speaker: Option<String>,
    pub(crate) text: String,
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
        words.extend(turn.speaker.as_deref());
        words.push(&turn.text);
        if index == current {
            words.push(MARK);
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(current: usize, past: usize, future: usize) -> String {
        let turns = ["zero", "one", "two", "three"].map(|text| Turn {
            speaker: Some(if text.len() == 3 { "Ann" } else { "Bo" }.to_owned()),
            text: text.to_owned(),
        });
        join(&turns.iter().collect::<Vec<_>>(), current, ContextWindow { past, future })
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
}
