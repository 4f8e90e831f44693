//! Feature sequences that carry a value under noise.

use super::dice::Dice;
use crate::schema::Features;

/// The shape of one modality's sequences.
pub(super) struct Signal {
    /// Values a frame.
    pub(super) dim: usize,
    /// The shortest and the longest sequence, in frames.
    pub(super) frames: (usize, usize),
    /// How strongly each of the first values follows the signal; the others are noise.
    pub(super) weights: &'static [f32],
    /// How many of a hundred samples lack this modality.
    pub(super) missing: usize,
}

impl Signal {
    /// Draws a sequence that carries `value`; `None` where the modality is missing.
    ///
    /// Part of the noise is the same in all frames, as a voice or a face is, so that no average removes it.
    pub(super) fn draw(&self, dice: &mut Dice, value: f32) -> Option<Features> {
        let missing = dice.chance(self.missing);
        let frames = dice.between(self.frames.0, self.frames.1);
        let habit: Vec<f32> = (0..self.dim).map(|_| 0.7 * dice.normal()).collect();
        let mut noise = vec![0.0_f32; self.dim];
        let mut data = Vec::with_capacity(frames * self.dim);
        for _ in 0..frames {
            for (index, noise) in noise.iter_mut().enumerate() {
                *noise = 0.5 * *noise + 0.5 * dice.normal();
                data.push(self.weights.get(index).copied().unwrap_or(0.0) * value + habit[index] + *noise);
            }
        }
        // The dice fall the same way whether the modality is missing or not.
        if missing { None } else { Features::try_new(frames, self.dim, data) }
    }
}
