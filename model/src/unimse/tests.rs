use tch::nn::OptimizerConfig;
use tch::{Device, Kind, Tensor};

use super::fixtures::{batch, config, generator, inputs, model, shake};
use super::*;
use crate::config::{FusionInit, HeadsConfig};
use crate::encoders::Modality;
use crate::weights;

#[track_caller]
fn close(found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.size(), expected.size());
    let error = (found - expected).abs().max().double_value(&[]);
    assert!(error <= tolerance, "off by {error}");
}

fn padded(tensor: &Tensor, columns: i64, value: i64) -> Tensor {
    tensor.constant_pad_nd([0, columns])
        + Tensor::cat(
            &[tensor.zeros_like(), Tensor::full([tensor.size()[0], columns], value, (Kind::Int64, Device::Cpu))],
            1,
        )
}

#[test]
fn every_output_has_its_documented_shape() {
    let _generator = generator(101);
    let (_store, model) = model(&config(), 1);
    let output = model.forward(&batch(4, 9), true).unwrap();
    assert_eq!(output.logits().size(), [4, 6, 600]);
    assert_eq!(output.nll.size(), [4]);
    let scalars = [&output.ce_sum, &output.contrastive_acoustic_sum, &output.contrastive_visual_sum];
    for (scalar, name) in scalars.iter().zip(["ce", "acoustic", "visual"]) {
        assert_eq!((scalar.size(), scalar.kind()), (vec![], Kind::Float), "{name}");
        assert!(scalar.double_value(&[]) > 0.0, "{name}");
    }
    assert_eq!(output.tokens.int64_value(&[]), 6 + 5 + 4 + 6);
    close(&output.nll.sum(Kind::Float), &output.ce_sum, 1e-3);
}

#[test]
fn with_identity_fusion_the_fresh_model_is_the_plain_t5_bit_for_bit() {
    let _generator = generator(102);
    let config = config();
    let (store, fused) = model(&config, 2);
    let mut plain_config = config.clone();
    plain_config.unimse.fusion.layers = 0;
    let (plain_store, plain) = model(&plain_config, 3);
    let report = weights::load_tensors(&plain_store, weights::parameters(&store)).unwrap();
    assert!(report.missing.is_empty() && report.unexpected.iter().all(|name| name.contains(".fusion.")));

    let batch = batch(3, 8);
    let logits = |model: &UniMse| tch::no_grad(|| model.forward(&batch, false)).unwrap().logits();
    assert_eq!(logits(&fused), logits(&plain));

    let mut paper_config = config;
    paper_config.unimse.fusion.init = FusionInit::Paper;
    let (_store, paper) = model(&paper_config, 2);
    assert_ne!(logits(&paper), logits(&plain), "the paper's start sends the stream through noise");
}

#[test]
fn identity_fusion_learns_from_the_first_step_on() {
    let _generator = generator(103);
    let (store, model) = model(&config(), 4);
    let output = model.forward(&batch(3, 8), false).unwrap();
    output.ce_sum.backward();
    let gradient = |name: &str| store.variables()[name].grad().abs().max().double_value(&[]);
    for name in ["encoder.block.1.fusion", "decoder.block.1.fusion"] {
        assert!(gradient(&format!("{name}.up.weight")) > 0.0, "{name}");
        assert!(gradient(&format!("{name}.out.weight")) > 0.0, "{name}");
    }
}

#[test]
fn all_parameters_get_a_gradient_once_the_model_has_moved() {
    let _generator = generator(104);
    let (store, model) = model(&config(), 5);
    shake(&store);
    let output = model.forward(&batch(4, 8), true).unwrap();
    model.loss(&output, 20.0, 4.0).backward();
    for (name, tensor) in weights::parameters(&store) {
        let gradient = tensor.grad();
        assert!(gradient.defined(), "{name}");
        let largest = gradient.abs().max().double_value(&[]);
        assert!(largest > 0.0 && largest.is_finite(), "{name}: {largest}");
    }
}

#[test]
fn the_utterance_vectors_reach_the_output_and_a_missing_one_is_masked() {
    let _generator = generator(105);
    let (store, model) = model(&config(), 6);
    shake(&store);
    let mut batch = batch(4, 8);
    let logits = |batch: &Batch| tch::no_grad(|| model.forward(batch, false)).unwrap().logits();
    let with_all = logits(&batch);
    batch.inputs.acoustic = Modality::default();
    let without_sound = logits(&batch);
    for row in [0, 2, 3] {
        let difference = (with_all.get(row) - without_sound.get(row)).abs().max().double_value(&[]);
        assert!(difference > 1e-4, "sample {row} heard nothing");
    }
    close(&with_all.get(1), &without_sound.get(1), 1e-5);
}

#[test]
fn padding_on_the_right_changes_nothing() {
    let _generator = generator(106);
    let (store, model) = model(&config(), 7);
    shake(&store);
    let batch = batch(4, 8);
    let longer = Batch {
        inputs: Inputs {
            input_ids: padded(&batch.inputs.input_ids, 5, 0),
            attention_mask: padded(&batch.inputs.attention_mask, 5, 0),
            acoustic: batch.inputs.acoustic.map(&Tensor::shallow_clone),
            visual: batch.inputs.visual.map(&Tensor::shallow_clone),
        },
        targets: padded(&batch.targets, 3, IGNORED_TARGET),
        answers: None,
    };
    tch::no_grad(|| {
        let (short, long) = (model.forward(&batch, false).unwrap(), model.forward(&longer, false).unwrap());
        close(&long.logits().narrow(1, 0, 6), &short.logits(), 1e-4);
        close(&long.nll, &short.nll, 1e-4);
        close(&long.contrastive_acoustic_sum, &short.contrastive_acoustic_sum, 1e-4);
        close(&long.contrastive_visual_sum, &short.contrastive_visual_sum, 1e-4);
        assert_eq!(long.tokens, short.tokens);
    });
}

#[test]
fn a_sample_gets_the_same_logits_alone_as_in_a_batch() {
    let _generator = generator(107);
    let (store, model) = model(&config(), 8);
    shake(&store);
    let batch = batch(4, 8);
    tch::no_grad(|| {
        let together = model.forward(&batch, false).unwrap();
        let row = |tensor: &Tensor| tensor.narrow(0, 2, 1);
        // Sample 2 is the second of the even rows for sound and the third for picture.
        let part = |modality: &Modality, part: usize, place: i64| {
            let part = &modality.parts[part];
            Modality::uniform(part.features.narrow(0, place, 1), part.lengths.narrow(0, place, 1))
        };
        let alone = Batch {
            inputs: Inputs {
                input_ids: row(&batch.inputs.input_ids),
                attention_mask: row(&batch.inputs.attention_mask),
                acoustic: part(&batch.inputs.acoustic, 0, 1),
                visual: part(&batch.inputs.visual, 0, 2),
            },
            targets: row(&batch.targets),
            answers: None,
        };
        close(&model.forward(&alone, false).unwrap().logits(), &row(&together.logits()), 1e-4);
    });
}

#[test]
fn decoding_token_by_token_with_the_cache_equals_decoding_all_at_once() {
    let _generator = generator(108);
    let (store, model) = model(&config(), 9);
    shake(&store);
    tch::no_grad(|| {
        let encoded = model.encode(&inputs(3, 8), false).unwrap();
        let ids = Tensor::randint_low(2, 600, [3, 7], (Kind::Int64, Device::Cpu));
        let full = model.decode(&encoded, &ids, false);
        let mut cache = model.start(&encoded, 10);
        for position in 0..7 {
            let state = model.step(&ids.select(1, position), &mut cache);
            close(&state.squeeze_dim(1), &full.select(1, position), 1e-4);
        }
    });
}

#[test]
fn scores_of_some_tokens_are_those_of_the_whole_vocabulary() {
    let _generator = generator(109);
    for tied in [true, false] {
        let mut config = config();
        config.t5.tie_word_embeddings = tied;
        let (store, model) = model(&config, 10);
        assert_eq!(store.variables().contains_key("lm_head.weight"), !tied);
        let hidden = Tensor::randn([2, 3, 32], (Kind::Float, Device::Cpu));
        let tokens = Tensor::from_slice(&[5_i64, 1, 599]);
        close(&model.logits_of(&hidden, &tokens), &model.logits(&hidden).index_select(2, &tokens), 1e-5);
    }
}

#[test]
fn the_loss_of_a_step_is_the_sum_of_its_micro_shards() {
    let _generator = generator(110);
    let (_store, model) = model(&config(), 11);
    tch::no_grad(|| {
        let output = model.forward(&batch(4, 8), false).unwrap();
        let loss = model.loss(&output, 42.0, 8.0).double_value(&[]);
        let value = |tensor: &Tensor| tensor.double_value(&[]);
        let contrastive = value(&output.contrastive_acoustic_sum) + value(&output.contrastive_visual_sum);
        assert!((loss - (value(&output.ce_sum) / 42.0 + 0.5 * contrastive / 8.0)).abs() < 1e-5);
    });
}

#[test]
fn dropout_follows_the_generator_and_only_when_training() {
    let _generator = generator(111);
    let (_store, model) = model(&config(), 12);
    let batch = batch(3, 8);
    let logits = |seed: i64, train: bool| {
        tch::manual_seed(seed);
        tch::no_grad(|| model.forward(&batch, train)).unwrap().logits()
    };
    assert_eq!(logits(1, true), logits(1, true));
    assert_ne!(logits(1, true), logits(2, true));
    assert_eq!(logits(1, false), logits(2, false));
}

#[test]
fn equal_seeds_give_equal_models_and_the_order_of_parameters_is_that_of_the_forward_pass() {
    let _generator = generator(112);
    let (store, _model) = model(&config(), 13);
    let (other, _model) = model(&config(), 13);
    let parameters = weights::parameters(&store);
    assert_eq!(parameters.len(), store.len());
    for ((name, tensor), (other_name, other_tensor)) in parameters.iter().zip(weights::parameters(&other)) {
        assert_eq!((name, tensor), (&other_name, &other_tensor));
    }
    let place = |name: &str| parameters.iter().position(|(found, _)| found == name).unwrap();
    assert_eq!(place("shared.weight"), 0);
    let order = ["acoustic.proj.weight", "visual.proj.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"];
    assert!(order.map(place).is_sorted());
    assert!(place("encoder.final_layer_norm.weight") < place("decoder.block.0.layer.0.layer_norm.weight"));
}

#[test]
fn a_tiny_batch_is_learned_by_heart_in_sixty_steps() {
    let _generator = generator(113);
    let (store, model) = model(&config(), 14);
    let batch = batch(4, 8);
    let tokens = batch.targets.ne(IGNORED_TARGET).sum(Kind::Int64).int64_value(&[]) as f64;
    let mut optimiser = nn::Adam::default().build(&store, 0.02).unwrap();
    let mut first = 0.0;
    for step in 0..60 {
        let loss = model.loss(&model.forward(&batch, false).unwrap(), tokens, 4.0);
        if step == 0 {
            first = loss.double_value(&[]);
        }
        optimiser.backward_step(&loss);
    }
    let output = tch::no_grad(|| model.forward(&batch, false)).unwrap();
    let last = output.ce_sum.double_value(&[]) / tokens;
    assert!(first > 4.0 && last < 0.05, "from {first} to {last}");
    let right = output.logits().argmax(-1, false).eq_tensor(&batch.targets).sum(Kind::Int64).int64_value(&[]) as f64;
    assert_eq!(right, tokens);
}

#[test]
fn weights_in_double_precision_agree_with_single() {
    let _generator = generator(114);
    let (mut store, model) = model(&config(), 15);
    shake(&store);
    let batch = batch(3, 8);
    let single = tch::no_grad(|| model.forward(&batch, false)).unwrap();
    store.double();
    let double = tch::no_grad(|| model.forward(&batch, false)).unwrap();
    assert_eq!(double.logits().kind(), Kind::Double);
    let answers = batch.targets.ne(IGNORED_TARGET).unsqueeze(2);
    close(&(double.logits().to_kind(Kind::Float) * &answers), &(single.logits() * &answers), 1e-4);
    store.bfloat16();
    let half = tch::no_grad(|| model.forward(&batch, true)).unwrap();
    assert_eq!((half.logits().kind(), half.ce_sum.kind()), (Kind::BFloat16, Kind::Float));
    assert!(half.ce_sum.double_value(&[]).is_finite());
}

#[test]
fn a_text_only_model_needs_no_modalities() {
    let _generator = generator(115);
    let mut config = config();
    config.unimse.acoustic.dims.clear();
    config.unimse.visual.dims.clear();
    let (_store, model) = model(&config, 16);
    let output = model.forward(&batch(3, 8), true).unwrap();
    assert!(output.ce_sum.double_value(&[]) > 0.0);
    assert_eq!(output.contrastive_acoustic_sum.double_value(&[]), 0.0);
}

/// Two threads make the stacks work on padded rows.
fn on_padded_rows(batch: &Batch, model: &UniMse) -> Output {
    tch::set_num_threads(2);
    let output = model.forward(batch, true).unwrap();
    tch::set_num_threads(1);
    output
}

#[test]
fn leaving_padding_out_changes_neither_losses_nor_gradients() {
    let _generator = generator(40);
    // A libtorch without MKL inside has nothing to compare.
    let fits = sublayer::fits(&Tensor::zeros([1], (Kind::Float, Device::Cpu)));
    for recomputes in [false, true].into_iter().filter(|_| fits) {
        let mut config = config();
        config.t5.dropout_rate = 0.0;
        (config.unimse.acoustic.dropout, config.unimse.visual.dropout) = (0.0, 0.0);
        config.unimse.heads = HeadsConfig { score: 1.0, emotion: 0.0, classes: Vec::new() };
        let (store, mut model) = model(&config, 41);
        shake(&store);
        model.set_activation_checkpointing(recomputes);
        let mut batch = batch(4, 9);
        batch.answers =
            Some(crate::heads::Answers { scores: Tensor::from_slice(&[0.5_f32, -1.0, 2.0, 0.0]), classes: Vec::new() });
        let packed = model.forward(&batch, true).unwrap();
        let plain = on_padded_rows(&batch, &model);
        assert!(packed.packing.is_some() && plain.packing.is_none());
        close(&packed.nll, &plain.nll, 1e-5);
        close(&packed.heads, &plain.heads, 1e-5);
        let shown = batch.targets.ne(IGNORED_TARGET).unsqueeze(2);
        close(&packed.logits().masked_select(&shown), &plain.logits().masked_select(&shown), 1e-4);
        let leaves = store.trainable_variables();
        let gradients = |output: &Output| -> Vec<Tensor> {
            for leaf in &leaves {
                leaf.shallow_clone().zero_grad();
            }
            model.loss(output, 19.0, 4.0).backward();
            leaves.iter().map(|leaf| leaf.grad().copy()).collect()
        };
        for (found, expected) in gradients(&packed).iter().zip(&gradients(&plain)) {
            let most = expected.abs().max().double_value(&[]).max(1e-3);
            assert!((found - expected).abs().max().double_value(&[]) < 2e-4 * most, "{:?}", found.size());
        }
    }
}

#[test]
fn activation_checkpointing_changes_neither_the_loss_nor_a_gradient() {
    let _generator = generator(116);
    let mut config = config();
    (config.t5.dropout_rate, config.unimse.acoustic.dropout) = (0.2, 0.2);
    for threads in [1, 2] {
        tch::set_num_threads(threads);
        let (store, mut model) = model(&config, 8);
        shake(&store);
        let batch = batch(5, 9);
        let run = |model: &UniMse| {
            for (_, leaf) in weights::parameters(&store) {
                leaf.shallow_clone().zero_grad();
            }
            tch::manual_seed(9);
            let output = model.forward(&batch, true).unwrap();
            let loss = model.loss(&output, 20.0, 5.0);
            loss.backward();
            let gradients = weights::parameters(&store).into_iter().map(|(name, leaf)| (name, leaf.grad().copy()));
            (loss.double_value(&[]), gradients.collect::<Vec<_>>())
        };
        let kept = run(&model);
        model.set_activation_checkpointing(true);
        let again = run(&model);
        assert_eq!(again.0, kept.0);
        for ((name, found), (_, expected)) in again.1.iter().zip(&kept.1) {
            assert_eq!(found.defined(), expected.defined(), "{name}");
            if expected.defined() {
                let error = (found - expected).abs().max().double_value(&[]);
                assert!(error <= 1e-5 * expected.abs().max().double_value(&[]).max(1e-3), "{name}: off by {error}");
            }
        }
    }
    tch::set_num_threads(1);
}
