//! From sequences in time to utterances of words, each with its sound and sight.

use super::sequence::{Entries, Sequence};
use crate::error::Problem;
use crate::read::BadFeatures;
use crate::read::features::{Padding, Raw, clean};
use crate::schema::Features;

/// What the SDK writes for a pause.
const PAUSE: &str = "sp";

/// One utterance.
pub(super) struct Clip {
    pub(super) id: String,
    pub(super) words: Vec<String>,
    pub(super) labels: Vec<f32>,
    /// Acoustic and visual, one vector a word.
    pub(super) features: [Option<Features>; 2],
    pub(super) bad_values: u64,
}

/// The utterances of a key of the labels: one an interval, or one alone if the key is an utterance already.
pub(super) fn clips(
    key: &str,
    words: &Sequence,
    labels: &Sequence,
    sides: &[Option<Sequence>; 2],
    policy: BadFeatures,
) -> Result<Vec<Clip>, Problem> {
    let is_aligned = key.ends_with(']');
    let segments = labels.vectors(key)?;
    let words = words.words(key)?;
    let mut tracks = [None, None];
    for (track, side) in tracks.iter_mut().zip(sides) {
        *track = side.as_ref().map(|side| side.vectors(key)).transpose()?;
    }
    let mut clips = Vec::new();
    for (number, (segment, labels)) in segments.intervals.iter().zip(segments.values).enumerate() {
        if is_aligned && number > 0 {
            break;
        }
        let is_inside = |word: &[f64; 2]| is_aligned || (segment[0]..segment[1]).contains(&word[0].midpoint(word[1]));
        let mut spoken: Vec<([f64; 2], &String)> = words
            .intervals
            .iter()
            .zip(&words.values)
            .filter(|(interval, word)| is_inside(interval) && word.as_str() != PAUSE)
            .map(|(interval, word)| (*interval, word))
            .collect();
        spoken.sort_by(|(one, _), (other, _)| one[0].total_cmp(&other[0]));
        let intervals: Vec<[f64; 2]> = spoken.iter().map(|(interval, _)| *interval).collect();
        let mut bad_values = 0;
        let mut features = [None, None];
        for ((features, track), name) in features.iter_mut().zip(&tracks).zip(["acoustic", "visual"]) {
            if let Some(track) = track {
                *features = mean_by_word(name, track, &intervals, policy, &mut bad_values)?;
            }
        }
        let id = if is_aligned { key.to_owned() } else { format!("{key}[{number}]") };
        let words = spoken.into_iter().map(|(_, word)| word.clone()).collect();
        clips.push(Clip { id, words, labels, features, bad_values });
    }
    Ok(clips)
}

/// The mean of the frames that overlap each word.
fn mean_by_word(
    name: &str,
    track: &Entries<Vec<f32>>,
    words: &[[f64; 2]],
    policy: BadFeatures,
    bad: &mut u64,
) -> Result<Option<Features>, Problem> {
    let dim = track.values.first().map_or(0, Vec::len);
    let mut data = Vec::with_capacity(words.len() * dim);
    for word in words {
        let frames: Vec<f32> = track.overlapping(*word).flat_map(|frame| frame.iter().copied()).collect();
        // Bad values are judged before the mean spreads them.
        let raw = Raw { dim, data: frames, length: None, padding: Padding::None };
        let (kept, count) = clean(name, raw, policy)?;
        *bad += count;
        let mut mean = vec![0.0_f32; dim];
        if let Some(kept) = kept {
            for frame in kept.data().chunks_exact(dim) {
                for (sum, value) in mean.iter_mut().zip(frame) {
                    *sum += value / kept.frames() as f32;
                }
            }
        }
        data.extend(mean);
    }
    let (features, _) = clean(name, Raw { dim, data, length: None, padding: Padding::None }, policy)?;
    Ok(features)
}
