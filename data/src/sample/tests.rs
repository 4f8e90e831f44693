use std::collections::BTreeMap;

use super::*;
use crate::schema::Features;
use crate::store::Store;

fn written(seed: u64) -> (tempfile::TempDir, Vec<Store>) {
    let folder = tempfile::tempdir().unwrap();
    let options = SampleOptions { seed, ..SampleOptions::default() };
    let reports = write_samples(folder.path(), &options).unwrap();
    let stores = reports.iter().map(|report| Store::open(&report.store).unwrap()).collect();
    (folder, stores)
}

fn samples(store: &Store, split: Split) -> Vec<Sample> {
    store.rows(split).iter().map(|row| store.sample(*row).unwrap()).collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let hashes = |seed| written(seed).1.iter().map(|store| store.metadata().content_hash.clone()).collect::<Vec<_>>();
    assert_eq!(hashes(1), hashes(1));
    assert_ne!(hashes(1), hashes(2));
}

#[test]
fn the_size_of_one_split_does_not_change_another() {
    let options = |train| SampleOptions { train, ..SampleOptions::default() };
    let valid = |train| {
        let folder = tempfile::tempdir().unwrap();
        let reports = write_samples(folder.path(), &options(train)).unwrap();
        samples(&Store::open(&reports[1].store).unwrap(), Split::Valid)
    };
    assert_eq!(valid(10), valid(20));
}

#[test]
fn both_datasets_are_sound_and_have_what_real_ones_have() {
    let (_folder, stores) = written(42);
    for store in &stores {
        let check = Store::check(store.path()).unwrap();
        assert!(check.is_ok(), "{check}");
        let train = samples(store, Split::Train);
        assert_eq!(train.len(), 768);
        let missing = |of: fn(&Sample) -> &Option<Features>| train.iter().filter(|s| of(s).is_none()).count();
        assert!((38..154).contains(&missing(|sample| &sample.acoustic)));
        assert!((58..192).contains(&missing(|sample| &sample.visual)));
        let mut lengths: Vec<_> = train.iter().filter_map(|s| s.acoustic.as_ref().map(Features::frames)).collect();
        lengths.sort_unstable();
        assert!(lengths[0] < 12 && lengths[lengths.len() - 1] > 28);
    }
    // Widths differ, so that jobs over both exercise one projection each.
    assert_ne!(stores[0].metadata().acoustic_dim, stores[1].metadata().acoustic_dim);
    assert_ne!(stores[0].metadata().visual_dim, stores[1].metadata().visual_dim);
    let emotions: std::collections::BTreeSet<_> =
        samples(&stores[1], Split::Train).iter().map(|sample| sample.labels.emotions["meld"].clone()).collect();
    assert_eq!(emotions.len(), 7);
}

/// What a linear model sees of a sample: which words it has, and if allowed the mean of each feature.
struct Encoder {
    words: BTreeMap<String, usize>,
    with_features: bool,
}

impl Encoder {
    fn new(train: &[Sample], with_features: bool) -> Self {
        let mut words = BTreeMap::new();
        for word in train.iter().flat_map(|sample| sample.text.split(' ')) {
            let next = words.len();
            words.entry(word.to_owned()).or_insert(next);
        }
        Self { words, with_features }
    }

    fn encode(&self, sample: &Sample, dims: (usize, usize)) -> Vec<f32> {
        let mut input = vec![0.0; self.words.len() + 1];
        input[self.words.len()] = 1.0;
        for word in sample.text.split(' ') {
            if let Some(index) = self.words.get(word) {
                input[*index] = 1.0;
            }
        }
        if self.with_features {
            for (features, dim) in [(&sample.acoustic, dims.0), (&sample.visual, dims.1)] {
                let mut mean = vec![0.0; dim];
                if let Some(features) = features {
                    for frame in features.data().chunks_exact(dim) {
                        let add = |(mean, value): (&mut f32, &f32)| *mean += value / features.frames() as f32;
                        mean.iter_mut().zip(frame).for_each(add);
                    }
                }
                input.extend(mean);
            }
        }
        input
    }
}

/// Two hundred steps of Adam on a linear map from inputs to outputs, with softmax or squared error.
fn fit(inputs: &[Vec<f32>], targets: &[Vec<f32>], softmax: bool) -> impl Fn(&[f32]) -> Vec<f32> + use<> {
    let (width, outputs) = (inputs[0].len(), targets[0].len());
    // Weight, mean and square of the gradient.
    let mut weights = vec![vec![[0.0f32; 3]; width]; outputs];
    let predict = move |weights: &[Vec<[f32; 3]>], input: &[f32]| -> Vec<f32> {
        let dot = |row: &Vec<[f32; 3]>| row.iter().zip(input).map(|(w, x)| w[0] * x).sum::<f32>();
        let scores: Vec<f32> = weights.iter().map(dot).collect();
        if !softmax {
            return scores;
        }
        let powers: Vec<f32> = scores.iter().map(|score| score.exp()).collect();
        let sum: f32 = powers.iter().sum();
        powers.iter().map(|power| power / sum).collect()
    };
    for step in 1..=200 {
        let mut gradient = vec![vec![0.0f32; width]; outputs];
        for (input, target) in inputs.iter().zip(targets) {
            let output = predict(&weights, input);
            for (row, (output, target)) in gradient.iter_mut().zip(output.iter().zip(target)) {
                row.iter_mut().zip(input).for_each(|(g, x)| *g += (output - target) * x / inputs.len() as f32);
            }
        }
        for ([weight, mean, square], g) in weights.iter_mut().flatten().zip(gradient.iter().flatten()) {
            *mean = 0.9 * *mean + 0.1 * g;
            *square = 0.999 * *square + 0.001 * g * g;
            let (mean, square) = (*mean / (1.0 - 0.9f32.powi(step)), *square / (1.0 - 0.999f32.powi(step)));
            *weight -= 0.03 * mean / (square.sqrt() + 1e-8);
        }
    }
    move |input| predict(&weights, input)
}

fn learn(
    store: &Store,
    with_features: bool,
    softmax: bool,
    target: impl Fn(&Sample) -> Vec<f32>,
) -> Vec<(Vec<f32>, Vec<f32>)> {
    let metadata = store.metadata();
    let dims = (metadata.acoustic_dim.unwrap(), metadata.visual_dim.unwrap());
    let train = samples(store, Split::Train);
    let encoder = Encoder::new(&train, with_features);
    let encode = |samples: &[Sample]| samples.iter().map(|s| encoder.encode(s, dims)).collect::<Vec<_>>();
    let model = fit(&encode(&train), &train.iter().map(&target).collect::<Vec<_>>(), softmax);
    let test = samples(store, Split::Test);
    encode(&test).iter().zip(&test).map(|(input, sample)| (model(input), target(sample))).collect()
}

#[test]
fn a_linear_model_learns_emotions_from_words_and_more_from_all_modalities() {
    let (_folder, stores) = written(42);
    let classes = crate::schema::Vocabulary::meld();
    let target = |sample: &Sample| {
        let class = classes.index_of(&sample.labels.emotions["meld"]).unwrap();
        (0..7).map(|index| f32::from(u8::from(index == class))).collect::<Vec<_>>()
    };
    let best = |values: &[f32]| (0..7).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap();
    let accuracy = |with_features| {
        let results = learn(&stores[1], with_features, true, target);
        results.iter().filter(|(output, target)| best(output) == best(target)).count() as f32 / results.len() as f32
    };
    let (words, all) = (accuracy(false), accuracy(true));
    assert!(words > 0.5, "words alone: {words}");
    assert!(all > words + 0.08, "words {words}, all modalities {all}");
    assert!(all < 0.98, "too easy: {all}");
}

#[test]
fn a_linear_model_learns_scores_from_words_and_more_from_all_modalities() {
    let (_folder, stores) = written(42);
    let target = |sample: &Sample| vec![sample.labels.score.unwrap()];
    let error = |with_features| {
        let results = learn(&stores[0], with_features, false, target);
        results.iter().map(|(output, target)| (output[0] - target[0]).abs()).sum::<f32>() / results.len() as f32
    };
    let (words, all) = (error(false), error(true));
    assert!(words < 0.85, "words alone: {words}");
    assert!(all < words - 0.1, "words {words}, all modalities {all}");
    assert!(all > 0.05, "too easy: {all}");
}
