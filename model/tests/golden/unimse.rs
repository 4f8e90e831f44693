//! The whole model against a PyTorch one that was written from the equations: encoders, fusion, losses, gradients, generation.
//!
//! The fixtures are made by `make_unimse.py`, in 64 bits.

use tch::{Kind, Tensor};
use unimse_model::t5::Cache;
use unimse_model::{Batch, Inputs, Modality, ModalityPart, UniMse, weights};

use super::{Golden, close};

const FIXTURES: [&str; 3] = ["unimse_v1_0.safetensors", "unimse_v1_1.safetensors", "unimse_legacy.safetensors"];

impl Golden {
    fn modality(&self, name: &str) -> Modality {
        let part = |place: usize| {
            let get = |what: &str| self.tensors.get(&format!("{name}.{place}.{what}")).map(Tensor::shallow_clone);
            Some(ModalityPart { rows: get("rows")?, features: get("features")?, lengths: get("lengths")? })
        };
        Modality { parts: (0..).map_while(part).collect() }
    }

    fn whole_batch(&self) -> Batch {
        let inputs = Inputs {
            input_ids: self.get("input_ids").shallow_clone(),
            attention_mask: self.get("attention_mask").shallow_clone(),
            acoustic: self.modality("acoustic"),
            visual: self.modality("visual"),
        };
        Batch { inputs, targets: self.get("labels").shallow_clone(), answers: None }
    }

    /// Counts of the batch by which the loss divides.
    fn counts(&self) -> (f64, f64) {
        let labels = self.get("labels");
        (labels.ne(-100).sum(Kind::Int64).double_value(&[]), labels.size()[0] as f64)
    }
}

fn each(check: impl Fn(&str, &Golden, &UniMse, &tch::nn::VarStore)) {
    for name in FIXTURES {
        let golden = Golden::read_whole(name);
        let (store, model) = golden.model();
        check(name, &golden, &model, &store);
    }
}

#[test]
fn encoders_states_and_logits_are_those_of_the_equations() {
    each(|name, golden, model, _| {
        let batch = golden.whole_batch();
        let encoded = model.encode(&batch.inputs, false).unwrap();
        let found = |what: &str, found: &Tensor| close(&format!("{name} {what}"), found, golden.get(what), 1e-5);
        found("utterances", encoded.modalities.as_ref().unwrap());
        found("acoustic_mean", &encoded.acoustic.as_ref().unwrap().mean);
        found("visual_mean", &encoded.visual.as_ref().unwrap().mean);
        let mask = batch.inputs.attention_mask.unsqueeze(2);
        close(
            &format!("{name} encoder-states"),
            &(&encoded.states * &mask),
            &(golden.get("encoder_states") * &mask),
            1e-5,
        );
        found("decoder_states", &model.decode(&encoded, &model.shift_right(&batch.targets), false));
        let answer = batch.targets.ne(unimse_model::unimse::IGNORED_TARGET).unsqueeze(2);
        let logits = model.forward(&batch, false).unwrap().logits();
        close(&format!("{name} logits"), &(logits * &answer), &(golden.get("logits") * &answer), 1e-5);
    });
}

#[test]
fn losses_are_those_of_the_equations() {
    each(|name, golden, model, _| {
        let batch = golden.whole_batch();
        let output = model.forward(&batch, true).unwrap();
        let found = |what: &str, found: &Tensor| {
            close(&format!("{name} {what}"), &found.reshape(golden.get(what).size()), golden.get(what), 1e-5);
        };
        found("nll", &output.nll);
        found("ce_sum", &output.ce_sum);
        found("contrastive_acoustic_sum", &output.contrastive_acoustic_sum);
        found("contrastive_visual_sum", &output.contrastive_visual_sum);
        if let Some(views) = &output.views {
            let (acoustic, visual) = views.losses(model.config().unimse.contrastive.temperature);
            found("contrastive_acoustic", &acoustic);
            found("contrastive_visual", &visual);
        }
        assert_eq!(output.views.is_none(), model.config().unimse.contrastive.legacy);
        let (tokens, samples) = golden.counts();
        found("loss", &model.loss(&output, tokens, samples));
    });
}

#[test]
fn every_gradient_is_that_of_the_equations() {
    each(|name, golden, model, store| {
        let (tokens, samples) = golden.counts();
        let output = model.forward(&golden.whole_batch(), true).unwrap();
        model.loss(&output, tokens, samples).backward();
        let parameters = weights::parameters(store);
        let expected = golden.with_prefix("grads.");
        assert_eq!(parameters.len(), expected.len());
        for (key, tensor) in &parameters {
            close(&format!("{name} gradients {key}"), &tensor.grad(), golden.get(&format!("grads.{key}")), 1e-4);
        }
        let squares = parameters.iter().map(|(_, tensor)| tensor.grad().square().sum(Kind::Double).double_value(&[]));
        let norm = squares.sum::<f64>().sqrt();
        let expected = golden.get("gradient_norm").double_value(&[0]);
        assert!((norm / expected - 1.0).abs() < 1e-5, "{name}: {norm} {expected}");
    });
}

#[test]
fn cached_generation_carries_sound_and_picture() {
    each(|name, golden, model, _| {
        let expected = golden.get("generated");
        let length = expected.size()[1];
        tch::no_grad(|| {
            let encoded = model.encode(&golden.whole_batch().inputs, false).unwrap();
            let mut cache: Cache = model.start(&encoded, length);
            let mut tokens = vec![expected.narrow(1, 0, 1).squeeze_dim(1)];
            for step in 1..length {
                let logits = model.logits(&model.step(&tokens[step as usize - 1], &mut cache)).squeeze_dim(1);
                let eos = Tensor::from_slice(&[model.config().t5.eos_token_id]);
                tokens.push(logits.index_fill(1, &eos, f64::NEG_INFINITY).argmax(1, false));
            }
            assert_eq!(Tensor::stack(&tokens, 1), *expected, "{name}");
        });
    });
}
