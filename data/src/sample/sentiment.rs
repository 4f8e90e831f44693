//! Spoken opinions about films, scored from -3 to 3.

use super::dice::Dice;
use super::signal::Signal;
use crate::schema::{Labels, Polarity, Provenance, Sample, Split, Task};
use crate::store::NewStore;

const SUBJECTS: [&str; 8] =
    ["the movie", "the story", "the acting", "the music", "the ending", "the script", "the cast", "that scene"];
const TEMPLATES: [&str; 6] = [
    "i thought SUBJECT was ADJECTIVE",
    "SUBJECT felt ADJECTIVE to me",
    "honestly SUBJECT is ADJECTIVE",
    "you know SUBJECT was ADJECTIVE overall",
    "and then SUBJECT turned out ADJECTIVE",
    "my friends said SUBJECT was ADJECTIVE",
];
/// Adjectives from -2 to 2.
const ADJECTIVES: [[&str; 4]; 5] = [
    ["awful", "terrible", "dreadful", "unbearable"],
    ["dull", "weak", "clumsy", "slow"],
    ["ordinary", "average", "long", "typical"],
    ["nice", "pleasant", "decent", "charming"],
    ["wonderful", "brilliant", "superb", "stunning"],
];
const ACOUSTIC: Signal = Signal { dim: 12, frames: (8, 40), weights: &[0.9, -0.9, 0.6, 0.4], missing: 10 };
const VISUAL: Signal = Signal { dim: 6, frames: (4, 16), weights: &[0.8, -0.6, 0.5], missing: 15 };

pub(super) fn store(source: Provenance) -> NewStore {
    NewStore { name: "sample-sentiment".to_owned(), task: Task::Sentiment, vocabularies: Vec::new(), source }
}

/// Draws the samples of a split. Score = (4 words + 3 sound + 2 sight) / 5: words from -2 to 2, "not" turns their sign.
pub(super) fn samples(seed: u64, split: Split, count: usize) -> Vec<Sample> {
    let mut dice = Dice::new(seed, 1, split);
    (0..count).map(|index| sample(&mut dice, split, index)).collect()
}

fn sample(dice: &mut Dice, split: Split, index: usize) -> Sample {
    let level = dice.below(5);
    let word = dice.choose(&ADJECTIVES[level]);
    let negated = dice.chance(10);
    let adjective = if negated { format!("not {word}") } else { word.to_owned() };
    let text = dice.choose(&TEMPLATES).replace("SUBJECT", dice.choose(&SUBJECTS)).replace("ADJECTIVE", &adjective);
    let words = (level as i32 - 2) * if negated { -1 } else { 1 };
    let (sound, sight) = (dice.below(3) as i32 - 1, dice.below(3) as i32 - 1);
    let score = (4 * words + 3 * sound + 2 * sight) as f32 / 5.0;
    let labels = Labels { polarity: Some(Polarity::from_score(score)), score: Some(score), ..Labels::default() };
    Sample {
        id: format!("film{}$_${}", index / 8, index % 8),
        split,
        text,
        context: None,
        speaker: None,
        dialogue: Some(format!("film{}", index / 8)),
        turn: Some((index % 8) as i32),
        labels,
        acoustic: ACOUSTIC.draw(dice, sound as f32),
        visual: VISUAL.draw(dice, sight as f32),
    }
}
