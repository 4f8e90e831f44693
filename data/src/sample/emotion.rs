//! Dialogues between friends, each turn with one of MELD's seven emotions.

use std::collections::BTreeMap;

use super::dice::Dice;
use super::signal::Signal;
use crate::read::context::{Turn, join};
use crate::schema::{ContextWindow, Labels, Polarity, Provenance, Sample, Split, Task, Vocabulary};
use crate::store::NewStore;

const SPEAKERS: [&str; 6] = ["Mara", "Leon", "Ines", "Tomas", "Greta", "Pavel"];
const OPENERS: [&str; 6] = ["well", "look", "so", "you know", "hey", "and now"];

/// An emotion: what it sounds and looks like, and the words that are its own.
struct Emotion {
    name: &'static str,
    /// How agitated the voice is.
    sound: f32,
    /// How pleased the face is.
    sight: f32,
    words: [&'static str; 4],
    /// Words that it shares with another emotion of the same index.
    shared: usize,
}

const SHARED: [[&str; 3]; 4] = [
    ["the meeting is at noon", "i left the keys on the table", "we can take the bus"],
    ["i cannot believe it worked", "oh wow look at this", "this really happened"],
    ["stop it right there", "get that away from me", "not in my kitchen"],
    ["i do not know what to do", "they never came back", "something is wrong"],
];
const EMOTIONS: [Emotion; 7] = [
    Emotion { name: "neutral", sound: 0.0, sight: 0.0, words: ["fine", "all right", "sure", "maybe later"], shared: 0 },
    Emotion {
        name: "surprise",
        sound: 1.0,
        sight: 0.4,
        words: ["no way", "what a shock", "unexpected", "really"],
        shared: 1,
    },
    Emotion {
        name: "fear",
        sound: 1.0,
        sight: -1.0,
        words: ["i am scared", "please hide", "so frightening", "we are in danger"],
        shared: 3,
    },
    Emotion {
        name: "sadness",
        sound: -1.0,
        sight: -1.0,
        words: ["i miss her", "it hurts", "i feel alone", "i could cry"],
        shared: 3,
    },
    Emotion {
        name: "joy",
        sound: -1.0,
        sight: 1.0,
        words: ["i am so happy", "lovely", "this is the best day", "hurray"],
        shared: 1,
    },
    Emotion {
        name: "disgust",
        sound: -1.0,
        sight: -0.6,
        words: ["that is gross", "it smells", "revolting", "i feel sick"],
        shared: 2,
    },
    Emotion {
        name: "anger",
        sound: 1.0,
        sight: -0.6,
        words: ["how dare you", "i am furious", "you lied", "enough of this"],
        shared: 2,
    },
];
const ACOUSTIC: Signal = Signal { dim: 10, frames: (6, 30), weights: &[0.9, 0.7, -0.8], missing: 10 };
const VISUAL: Signal = Signal { dim: 8, frames: (4, 20), weights: &[0.9, 0.6, -0.6, 0.4], missing: 15 };

pub(super) fn store(source: Provenance) -> NewStore {
    NewStore {
        name: "sample-emotion".to_owned(),
        task: Task::Emotion,
        vocabularies: vec![Vocabulary::meld()],
        source: Provenance { context: Some(ContextWindow::default()), ..source },
    }
}

/// Draws the samples of a split, dialogue by dialogue; the last dialogue may be cut short.
pub(super) fn samples(seed: u64, split: Split, count: usize) -> Vec<Sample> {
    let mut dice = Dice::new(seed, 2, split);
    let mut samples = Vec::with_capacity(count);
    let mut dialogue = 0;
    while samples.len() < count {
        let length = dice.between(4, 9).min(count - samples.len());
        samples.extend(draw_dialogue(&mut dice, split, dialogue, length));
        dialogue += 1;
    }
    samples
}

fn draw_dialogue(dice: &mut Dice, split: Split, dialogue: usize, length: usize) -> Vec<Sample> {
    let mut emotion = draw_emotion(dice);
    let mut samples = Vec::with_capacity(length);
    let mut turns = Vec::with_capacity(length);
    for turn in 0..length {
        // Moods last, so that the turns around an utterance say something about it.
        if !dice.chance(30) {
            emotion = draw_emotion(dice);
        }
        let text = draw_text(dice, emotion);
        let speaker = Some(dice.choose(&SPEAKERS).to_owned());
        turns.push(Turn { speaker: speaker.clone(), text: text.clone() });
        samples.push(Sample {
            id: format!("dia{dialogue}_utt{turn}"),
            split,
            text,
            context: None,
            speaker,
            dialogue: Some(dialogue.to_string()),
            turn: Some(turn as i32),
            labels: draw_labels(dice, emotion),
            acoustic: ACOUSTIC.draw(dice, emotion.sound),
            visual: VISUAL.draw(dice, emotion.sight),
        });
    }
    let turns: Vec<&Turn> = turns.iter().collect();
    for (index, sample) in samples.iter_mut().enumerate() {
        sample.context = Some(join(&turns, index, ContextWindow::default()));
    }
    samples
}

fn draw_emotion(dice: &mut Dice) -> &'static Emotion {
    let neutral = dice.chance(28);
    if neutral { &EMOTIONS[0] } else { &EMOTIONS[dice.between(1, 6)] }
}

/// Half of the utterances name their emotion, the others only narrow it down to two.
fn draw_text(dice: &mut Dice, emotion: &Emotion) -> String {
    let own = dice.chance(50);
    let words = if own { dice.choose(&emotion.words) } else { dice.choose(&SHARED[emotion.shared]) };
    format!("{} {words}", dice.choose(&OPENERS))
}

fn draw_labels(dice: &mut Dice, emotion: &Emotion) -> Labels {
    let glad = dice.chance(50);
    let polarity = match emotion.name {
        "neutral" => Polarity::Neutral,
        "joy" => Polarity::Positive,
        "surprise" if glad => Polarity::Positive,
        _ => Polarity::Negative,
    };
    let emotions = BTreeMap::from([("meld".to_owned(), emotion.name.to_owned())]);
    Labels { polarity: Some(polarity), score: None, emotions, ..Labels::default() }
}
