//! Ids of utterances, which every release writes in its own way.

/// Splits an id of the CMU datasets into video and clip: `video$_$3`, `video[3]` or `video_3`.
pub(crate) fn video_and_clip(id: &str) -> Option<(&str, &str)> {
    let parts = id.split_once("$_$");
    let parts = parts.or_else(|| id.strip_suffix(']')?.rsplit_once('['));
    let parts = parts.or_else(|| id.rsplit_once('_'))?;
    let is_clip = |clip: &str| !clip.is_empty() && clip.bytes().all(|byte| byte.is_ascii_digit());
    (!parts.0.is_empty() && is_clip(parts.1)).then_some(parts)
}

/// The number of a dialogue and of an utterance of MELD: `dia0_utt3` or `0_3`.
pub(crate) fn meld_numbers(id: &str) -> Option<(u32, i32)> {
    let (dialogue, utterance) = id.split_once('_')?;
    let dialogue = dialogue.strip_prefix("dia").unwrap_or(dialogue);
    let utterance = utterance.strip_prefix("utt").unwrap_or(utterance);
    let utterance: u32 = utterance.parse().ok()?;
    Some((dialogue.parse().ok()?, i32::try_from(utterance).ok()?))
}

/// What an id of IEMOCAP tells: `Ses01F_impro01_F003` is the dialogue `Ses01F_impro01`, its speaker `F`, and number 3.
pub(crate) fn iemocap_parts(id: &str) -> Option<(&str, &str, i32)> {
    let (dialogue, turn) = id.rsplit_once('_')?;
    let is_known = dialogue.starts_with("Ses") && (turn.starts_with('F') || turn.starts_with('M'));
    let (speaker, number) = is_known.then(|| turn.split_at(1))?;
    // A few numbers are like `MX04`.
    Some((dialogue, speaker, number.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_all_releases_are_taken_apart() {
        for id in ["_dI--eQ_6qVU$_$12", "_dI--eQ_6qVU[12]", "_dI--eQ_6qVU_12"] {
            assert_eq!(video_and_clip(id), Some(("_dI--eQ_6qVU", "12")), "{id}");
        }
        assert_eq!(video_and_clip("_dI--eQ6qVU"), None);
        assert_eq!(meld_numbers("dia12_utt0"), Some((12, 0)));
        assert_eq!(meld_numbers("12_3"), Some((12, 3)));
        assert_eq!(meld_numbers("12"), None);
        assert_eq!(iemocap_parts("Ses01F_impro01_F003"), Some(("Ses01F_impro01", "F", 3)));
        assert_eq!(iemocap_parts("Ses05M_script03_2_MX04"), Some(("Ses05M_script03_2", "M", 4)));
        assert_eq!(iemocap_parts("-1"), None);
    }
}
