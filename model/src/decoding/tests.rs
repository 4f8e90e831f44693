use tch::nn::{OptimizerConfig, VarStore};

use super::*;
use crate::grammar::tests::{END, grammar, pieces};
use crate::labels::{LabelSchema, Polarity, quantise_score};
use crate::unimse::fixtures::{config, generator, inputs, model};

/// Makes every weight random and large, so that outputs are arbitrary and certain.
fn scramble(store: &VarStore, deviation: f64) {
    for mut tensor in store.trainable_variables() {
        let noise = tensor.randn_like() * deviation;
        tch::no_grad(|| tensor.copy_(&noise));
    }
}

const TASKS: [Option<Task>; 4] = [None, Some(Task::Sentiment), Some(Task::Emotion(0)), Some(Task::Emotion(1))];

#[test]
fn random_weights_always_write_labels_that_parse() {
    let _generator = generator(101);
    let grammar = grammar();
    let schema = grammar.schema();
    let (store, model) = model(&config(), 20);
    let mut generated = 0;
    let mut different = std::collections::BTreeSet::new();
    for round in 0..20 {
        scramble(&store, [0.1, 0.5, 2.0, 10.0][round % 4]);
        let inputs = inputs(128, 12);
        for task in TASKS {
            let decoder = LabelDecoder::new(&model, &grammar, task, Device::Cpu);
            let predictions = decoder.decode(&model, &inputs).unwrap();
            assert_eq!(predictions.len(), 128);
            for Prediction { labels, ids, log_probability } in predictions {
                assert_eq!(grammar.parse_ids(&ids), Some(labels.clone()));
                assert_eq!(grammar.target_ids(&labels), ids);
                assert_eq!(schema.parse(&schema.render(&labels)).unwrap(), labels);
                assert!(log_probability <= 1e-6 && log_probability.is_finite(), "{log_probability}");
                match task {
                    Some(Task::Sentiment) => assert!(labels.polarity.is_some() && labels.score.is_some()),
                    Some(Task::Emotion(vocabulary)) => assert!(labels.emotions[vocabulary].is_some()),
                    None => {}
                }
                different.insert(schema.render(&labels));
                generated += 1;
            }
        }
    }
    assert_eq!(generated, 10_240);
    assert!(different.len() > 50, "only {} different strings", different.len());
}

#[test]
fn a_model_that_diverged_to_nan_or_infinity_still_writes_labels() {
    let _generator = generator(102);
    let grammar = grammar();
    for value in [f64::NAN, f64::INFINITY, 1e30] {
        let (store, model) = model(&config(), 21);
        for mut tensor in store.trainable_variables() {
            tch::no_grad(|| {
                let _ = tensor.fill_(value);
            });
        }
        let decoder = LabelDecoder::new(&model, &grammar, Some(Task::Sentiment), Device::Cpu);
        for prediction in decoder.decode(&model, &inputs(3, 5)).unwrap() {
            assert_eq!(grammar.parse_ids(&prediction.ids), Some(prediction.labels), "{value}");
        }
    }
}

#[test]
fn greedy_decoding_takes_the_best_permitted_token_of_the_plain_model() {
    let _generator = generator(103);
    let grammar = grammar();
    let (store, model) = model(&config(), 22);
    scramble(&store, 0.5);
    let inputs = inputs(5, 9);
    let decoder = LabelDecoder::new(&model, &grammar, Some(Task::Emotion(1)), Device::Cpu);
    let permitted = grammar.permitted(Some(Task::Emotion(1)));
    tch::no_grad(|| {
        let encoded = model.encode(&inputs, false).unwrap();
        for (row, prediction) in decoder.decode_encoded(&model, &encoded).iter().enumerate() {
            let targets = Tensor::from_slice(&prediction.ids).unsqueeze(0);
            let one = encoded.narrow(row as i64, 1);
            let logits = model.logits(&model.decode(&one, &model.shift_right(&targets), false)).squeeze_dim(0);
            let (mut state, mut total) = (START, 0.0);
            for (position, id) in prediction.ids.iter().enumerate() {
                let options: Vec<_> = permitted.iter().filter(|(from, ..)| *from == state).collect();
                let score = |id: i64| logits.double_value(&[position as i64, id]);
                let chosen = score(*id);
                let others: Vec<f64> = options.iter().map(|(_, place, _)| score(grammar.alphabet()[*place])).collect();
                assert!(others.iter().all(|&other| other <= chosen + 1e-4), "sample {row}, token {position}");
                total += chosen - others.iter().map(|other| (other - chosen).exp()).sum::<f64>().ln() - chosen;
                let place = grammar.alphabet().binary_search(id).unwrap();
                state = grammar.follow(state, place).unwrap().0;
            }
            assert!((total - prediction.log_probability).abs() < 1e-3, "{total}, {}", prediction.log_probability);
        }
    });
}

#[test]
fn a_model_trained_on_targets_of_the_grammar_decodes_them() {
    let _generator = generator(104);
    let grammar = grammar();
    let schema = grammar.schema();
    let truths = [
        Labels::of_score(schema, -1.2),
        Labels::of_score(schema, 2.4),
        Labels::of_emotion(schema, 0, 3, None),
        Labels::of_emotion(schema, 1, 5, Some(Polarity::Negative)),
    ];
    let targets: Vec<Vec<i64>> = truths.iter().map(|labels| grammar.target_ids(labels)).collect();
    let longest = targets.iter().map(Vec::len).max().unwrap();
    let padded: Vec<i64> = targets
        .iter()
        .flat_map(|ids| ids.iter().copied().chain(std::iter::repeat(-100)).take(longest).collect::<Vec<_>>())
        .collect();
    let targets = Tensor::from_slice(&padded).view([4, longest as i64]);
    let (store, model) = model(&config(), 23);
    let batch = crate::Batch { inputs: inputs(4, 8), targets, answers: None };
    let mut optimiser = tch::nn::Adam::default().build(&store, 0.01).unwrap();
    for _ in 0..60 {
        let output = model.forward(&batch, false).unwrap();
        optimiser.backward_step(&model.loss(&output, 40.0, 4.0));
    }
    let decoder = LabelDecoder::new(&model, &grammar, None, Device::Cpu);
    let found: Vec<Labels> =
        decoder.decode(&model, &batch.inputs).unwrap().into_iter().map(|prediction| prediction.labels).collect();
    let expected: Vec<Labels> =
        truths.iter().map(|labels| Labels { score: labels.score.map(quantise_score), ..labels.clone() }).collect();
    assert_eq!(found, expected);
    let scores = decoder.expected_scores(&model, &batch.inputs).unwrap();
    assert!((scores[0] + 1.2).abs() < 0.4 && (scores[1] - 2.4).abs() < 0.4, "{scores:?}");
}

#[test]
fn the_expected_score_is_the_mean_over_all_label_beginnings() {
    let _generator = generator(105);
    // A schema without emotions has its end right after the score.
    let with_emotions = grammar();
    let without = Grammar::try_new(&LabelSchema::default(), END, pieces).unwrap();
    let (store, model) = model(&config(), 24);
    scramble(&store, 0.3);
    let inputs = inputs(3, 7);
    for grammar in [&with_emotions, &without] {
        let decoder = LabelDecoder::new(&model, grammar, Some(Task::Sentiment), Device::Cpu);
        tch::no_grad(|| {
            let encoded = model.encode(&inputs, false).unwrap();
            let (scores, rows) = decoder.scores.distribution(&model, &encoded);
            assert_eq!(scores.len(), 3 * 61);
            let expected = decoder.expected_scores_encoded(&model, &encoded);
            for (row, probabilities) in rows.iter().enumerate() {
                assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-4);
                let mean: f64 = probabilities.iter().zip(&scores).map(|(p, score)| f64::from(*p) * score).sum();
                assert!((mean - expected[row]).abs() < 1e-4);
                let one = encoded.narrow(row as i64, 1);
                for step in (-30..=30).step_by(7) {
                    let score = f64::from(step) / 10.0;
                    let tree: f32 = probabilities
                        .iter()
                        .zip(&scores)
                        .filter(|(_, s)| (**s - score).abs() < 1e-3)
                        .map(|(p, _)| p)
                        .sum();
                    let plain: f64 = Polarity::ALL
                        .iter()
                        .map(|&polarity| probability_of_beginning(&model, grammar, &one, polarity, score))
                        .sum();
                    assert!((f64::from(tree) - plain).abs() < 1e-4, "score {score}: {tree}, expected {plain}");
                }
            }
        });
    }
}

/// Multiplies the probabilities of the tokens of a polarity and a score under the grammar, with the plain decoder.
fn probability_of_beginning(
    model: &UniMse,
    grammar: &Grammar,
    encoded: &Encoded,
    polarity: Polarity,
    score: f64,
) -> f64 {
    let emotions = vec![None; grammar.schema().emotions().len()];
    let ids = grammar.target_ids(&Labels { polarity: Some(polarity), score: Some(score), emotions });
    let inputs = model.shift_right(&Tensor::from_slice(&ids).unsqueeze(0));
    let logits = model.logits(&model.decode(encoded, &inputs, false)).squeeze_dim(0);
    let permitted = grammar.permitted(Some(Task::Sentiment));
    let (mut state, mut probability) = (START, 1.0);
    for (position, id) in ids.iter().enumerate() {
        let score = |id: i64| logits.double_value(&[position as i64, id]).exp();
        let options = permitted.iter().filter(|(from, ..)| *from == state);
        probability *= score(*id) / options.map(|(_, place, _)| score(grammar.alphabet()[*place])).sum::<f64>();
        state = grammar.follow(state, grammar.alphabet().binary_search(id).unwrap()).unwrap().0;
        if state == grammar.root(2) {
            break;
        }
    }
    probability
}
