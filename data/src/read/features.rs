//! From raw feature frames to sequences of true length without NaN.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Problem;
use crate::schema::Features;

/// What to do with NaN and infinite feature values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BadFeatures {
    /// Put zero in their place and count them, as the MMSA loader does.
    #[default]
    Zero,
    /// Treat the modality of that sample as missing.
    Drop,
    /// Refuse the row.
    Error,
}

impl FromStr for BadFeatures {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "zero" => Ok(Self::Zero),
            "drop" => Ok(Self::Drop),
            "error" => Ok(Self::Error),
            _ => Err(format!("unknown policy `{text}`, expected zero, drop or error")),
        }
    }
}

/// Where frames of zeros are no sound and no sight, but padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Padding {
    /// On either side; the length tells how many frames are true, if it is known.
    Ends,
    /// In front only, as in the files of `UniMSE`; silence at the end is silence.
    Front,
    /// There is none: every frame is true.
    None,
}

/// Features of one row as they are in the source.
pub(crate) struct Raw {
    pub(super) dim: usize,
    /// `frames * dim` values, row-major, padding included.
    pub(super) data: Vec<f32>,
    /// The true number of frames, if the source tells it.
    pub(super) length: Option<usize>,
    pub(super) padding: Padding,
}

/// Cleans the features of a row: `None` is a missing modality, the number counts bad values.
///
/// Without a length, frames of zeros at the sides that may be padded are padding; a sequence of nothing but zeros carries
/// nothing and counts as missing.
pub(crate) fn clean(name: &str, raw: Raw, policy: BadFeatures) -> Result<(Option<Features>, u64), Problem> {
    let Raw { dim, mut data, length, padding } = raw;
    if dim == 0 || data.is_empty() {
        return Ok((None, 0));
    }
    let frames = data.len() / dim;
    if let Some(length) = length
        && length > frames
    {
        return Err(Problem::new(format!("{name} has {frames} frames, its length is given as {length}")));
    }
    let mut bad = 0;
    for (index, value) in data.iter_mut().enumerate() {
        if !value.is_finite() {
            if policy == BadFeatures::Error {
                let place = format!("{name} frame {} value {} is {value}", index / dim, index % dim);
                return Err(Problem::with_hint(place, "replace such values with --bad-features zero, or drop"));
            }
            *value = 0.0;
            bad += 1;
        }
    }
    if bad > 0 && policy == BadFeatures::Drop {
        return Ok((None, bad));
    }
    let kept = true_frames(&data, dim, frames, length, padding);
    if kept.is_empty() || data.iter().all(|value| *value == 0.0) {
        return Ok((None, bad));
    }
    let values = data[kept.start * dim..kept.end * dim].to_vec();
    Ok((Features::try_new(kept.len(), dim, values), bad))
}

/// The frames that are not padding.
fn true_frames(
    data: &[f32],
    dim: usize,
    frames: usize,
    length: Option<usize>,
    padding: Padding,
) -> std::ops::Range<usize> {
    let is_silent = |frame: usize| data[frame * dim..(frame + 1) * dim].iter().all(|value| *value == 0.0);
    if let Some(length) = length {
        let padded_in_front = (0..frames - length).all(is_silent) && !(length..frames).all(is_silent);
        return if padded_in_front { frames - length..frames } else { 0..length };
    }
    let first = (0..frames).find(|frame| !is_silent(*frame));
    let last = (0..frames).rev().find(|frame| !is_silent(*frame));
    match padding {
        Padding::Ends => first.zip(last).map_or(0..0, |(first, last)| first..last + 1),
        Padding::Front => first.map_or(0..0, |first| first..frames),
        Padding::None => 0..frames,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(data: &[f32], length: Option<usize>, policy: BadFeatures) -> (Option<Features>, u64) {
        clean("audio", Raw { dim: 2, data: data.to_vec(), length, padding: Padding::Ends }, policy).unwrap()
    }

    fn kept(data: &[f32], length: Option<usize>) -> Option<Vec<f32>> {
        cleaned(data, length, BadFeatures::Zero).0.map(|features| features.data().to_vec())
    }

    #[test]
    fn padding_is_cut_off_on_the_side_where_it_is() {
        assert_eq!(kept(&[1., 2., 3., 4., 0., 0.], Some(2)), Some(vec![1., 2., 3., 4.]));
        assert_eq!(kept(&[0., 0., 1., 2., 3., 4.], Some(2)), Some(vec![1., 2., 3., 4.]));
        assert_eq!(kept(&[0., 0., 1., 2., 0., 0.], None), Some(vec![1., 2.]));
    }

    #[test]
    fn silence_at_the_end_is_kept_where_padding_is_in_front() {
        let raw = |padding| Raw { dim: 1, data: vec![0., 0., 1., 0., 2., 0.], length: None, padding };
        let kept = |padding| clean("audio", raw(padding), BadFeatures::Zero).unwrap().0.unwrap();
        assert_eq!(kept(Padding::Front).data(), [1., 0., 2., 0.]);
        assert_eq!(kept(Padding::Ends).data(), [1., 0., 2.]);
        assert_eq!(kept(Padding::None).frames(), 6);
    }

    #[test]
    fn a_silent_frame_inside_of_a_sequence_is_kept() {
        assert_eq!(kept(&[1., 2., 0., 0., 3., 4.], None), Some(vec![1., 2., 0., 0., 3., 4.]));
        assert_eq!(kept(&[1., 2., 0., 0.], Some(2)), Some(vec![1., 2., 0., 0.]));
    }

    #[test]
    fn nothing_but_zeros_or_no_frames_is_a_missing_modality() {
        assert_eq!(kept(&[0.; 4], None), None);
        assert_eq!(kept(&[0.; 4], Some(2)), None);
        assert_eq!(kept(&[1.; 4], Some(0)), None);
        assert_eq!(kept(&[], None), None);
    }

    #[test]
    fn bad_values_follow_the_policy_and_are_counted() {
        let data = [1., f32::NAN, f32::NEG_INFINITY, 2.];
        let (features, bad) = cleaned(&data, None, BadFeatures::Zero);
        assert_eq!((features.unwrap().data(), bad), (&[1., 0., 0., 2.][..], 2));
        assert_eq!(cleaned(&data, None, BadFeatures::Drop), (None, 2));
        let raw = Raw { dim: 2, data: data.to_vec(), length: None, padding: Padding::Ends };
        let refused = clean("audio", raw, BadFeatures::Error).unwrap_err();
        assert_eq!(refused.text, "audio frame 0 value 1 is NaN");
    }

    #[test]
    fn a_length_beyond_the_frames_is_refused() {
        let raw = Raw { dim: 2, data: vec![1.; 4], length: Some(3), padding: Padding::Ends };
        let refused = clean("audio", raw, BadFeatures::Zero).unwrap_err();
        assert_eq!(refused.text, "audio has 2 frames, its length is given as 3");
    }
}
