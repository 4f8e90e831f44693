use std::collections::BTreeMap;

use super::*;
use crate::schema::Split;
use crate::tokenizer::TokenizerOptions;

fn tokenizer() -> Tokenizer {
    let texts = ["sst2 sentence: one two three", "one two", "a rather longer sentence than the others"];
    Tokenizer::train(texts, &TokenizerOptions { vocabulary: 200, ..TokenizerOptions::default() }).unwrap()
}

fn sample(id: &str, text: &str, acoustic: Option<Features>) -> Sample {
    let emotions = BTreeMap::from([("meld".to_owned(), "joy".to_owned())]);
    Sample {
        id: id.to_owned(),
        split: Split::Train,
        text: text.to_owned(),
        context: None,
        speaker: None,
        dialogue: None,
        turn: None,
        labels: Labels { emotions, ..Labels::default() },
        acoustic,
        visual: None,
    }
}

fn features(frames: usize, dim: usize, value: f32) -> Option<Features> {
    Features::try_new(frames, dim, vec![value; frames * dim])
}

fn options(acoustic: Vec<usize>) -> BatchOptions {
    BatchOptions::new(FeatureLayout { acoustic, visual: vec![] })
}

fn joy(labels: &Labels) -> String {
    labels.emotions["meld"].clone()
}

#[test]
fn texts_are_padded_on_the_right_and_masked() {
    let samples = [sample("a", "one", None), sample("b", "a rather longer sentence", None)];
    let tokenizer = tokenizer();
    let batch = collate(&[&samples[0], &samples[1]], &tokenizer, &options(vec![]), &joy).unwrap();
    let short = tokenizer.encode("sst2 sentence: one").unwrap();
    let input = &batch.input;
    assert_eq!((input.rows, input.ids.len(), input.mask.len()), (2, 2 * input.columns, 2 * input.columns));
    assert_eq!(input.ids[..short.len()], short[..]);
    assert!(short.len() < input.columns && short.last() == Some(&EOS));
    assert!(input.ids[short.len()..input.columns].iter().all(|id| *id == PAD));
    assert_eq!(input.mask[..input.columns].iter().sum::<i64>(), short.len() as i64);
    assert_eq!(input.mask[input.columns..], vec![1; input.columns]);
    assert_eq!(batch.targets, ["joy", "joy"]);
    assert_eq!(batch.target.ids[..batch.target.columns], tokenizer.encode("joy").unwrap()[..]);
    assert_eq!(batch.target.count(), 2 * batch.target.columns);
    assert_eq!((batch.ids, batch.truncated), (vec!["a".to_owned(), "b".to_owned()], 0));
}

#[test]
fn context_is_read_instead_of_the_bare_text() {
    let tokenizer = tokenizer();
    let sample = Sample { context: Some("one </s> two </s>".to_owned()), ..sample("a", "two", None) };
    let options = BatchOptions { prefix: String::new(), ..options(vec![]) };
    let batch = collate(&[&sample], &tokenizer, &options, &joy).unwrap();
    let expected = [tokenizer.encode("one").unwrap(), tokenizer.encode("two").unwrap(), vec![EOS]].concat();
    assert_eq!(batch.input.ids, expected);
}

#[test]
fn inputs_that_are_too_long_are_cut_and_still_end() {
    let sample = sample("a", "one two three one two three one two three", None);
    let options = BatchOptions { max_input: 6, ..options(vec![]) };
    let batch = collate(&[&sample], &tokenizer(), &options, &joy).unwrap();
    assert_eq!((batch.input.columns, batch.input.ids[5], batch.truncated), (6, EOS, 1));
}

#[test]
fn sequences_keep_their_true_length_and_their_place() {
    let samples =
        [sample("a", "one", features(2, 3, 1.0)), sample("b", "one", None), sample("c", "one", features(4, 3, 2.0))];
    let batch = collate(&samples.iter().collect::<Vec<_>>(), &tokenizer(), &options(vec![3]), &joy).unwrap();
    let acoustic = &batch.acoustic;
    assert_eq!(acoustic.present, [true, false, true]);
    assert_eq!(acoustic.dim_group, [Some(0), None, Some(0)]);
    let [group] = &acoustic.groups[..] else { panic!("one group") };
    assert_eq!((group.rows.as_slice(), group.lengths.as_slice()), (&[0, 2][..], &[2, 4][..]));
    assert_eq!((group.group, group.dim, group.frames, group.data.len()), (0, 3, 4, 24));
    assert_eq!(group.data, [vec![1.0; 6], vec![0.0; 6], vec![2.0; 12]].concat());
    assert!(batch.visual.groups.is_empty() && batch.visual.present == [false; 3]);
}

#[test]
fn widths_of_several_datasets_have_groups_of_their_own() {
    let samples = [
        sample("a", "one", features(1, 5, 1.0)),
        sample("b", "one", features(2, 2, 2.0)),
        sample("c", "one", features(1, 5, 3.0)),
    ];
    let rows: Vec<_> = samples.iter().collect();
    let batch = collate(&rows, &tokenizer(), &options(vec![2, 5, 9]), &joy).unwrap();
    assert_eq!(batch.acoustic.dim_group, [Some(1), Some(0), Some(1)]);
    let seen: Vec<_> = batch.acoustic.groups.iter().map(|group| (group.group, group.dim, group.rows.clone())).collect();
    assert_eq!(seen, [(0, 2, vec![1]), (1, 5, vec![0, 2])]);
    let refused = collate(&rows, &tokenizer(), &options(vec![5]), &joy).unwrap_err().to_string();
    assert!(refused.starts_with("acoustic features have 2 values a frame, the job has [5]"), "{refused}");
}
