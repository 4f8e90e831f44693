//! The T5 part against transformers: states, logits, loss, gradients, generation and position buckets of tiny models; in
//! `golden/unimse.rs` the whole model against PyTorch.
//!
//! The fixtures are made by `golden/make_t5.py`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Kind, Tensor, nn};
use unimse_model::encoders::Modality;
use unimse_model::t5::Cache;
use unimse_model::{Batch, Config, Inputs, UniMse, weights};

#[path = "golden/unimse.rs"]
mod unimse;

struct Golden {
    tensors: BTreeMap<String, Tensor>,
    config: Config,
}

impl Golden {
    fn read(name: &str) -> Self {
        // A plain T5 has no fusion, and the fixtures have fewer blocks than the default fuses.
        Self::read_with(name, r#"{"unimse": {"fusion": {"layers": 0}, "contrastive": {"layers": 1}},"#)
    }

    fn read_whole(name: &str) -> Self {
        Self::read_with(name, "{")
    }

    fn read_with(name: &str, ours: &str) -> Self {
        // libtorch's threads spin while they wait, which is slow where tests share their cores with other work.
        tch::set_num_threads(1);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let bytes = std::fs::read(path).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let json = metadata.metadata().as_ref().unwrap()["config"].replacen('{', ours, 1);
        Self {
            tensors: weights::read_safetensors(&bytes).unwrap().into_iter().collect(),
            config: Config::from_json(&json).unwrap(),
        }
    }

    fn get(&self, name: &str) -> &Tensor {
        &self.tensors[name]
    }

    fn with_prefix(&self, prefix: &str) -> Vec<(String, Tensor)> {
        self.tensors
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.shallow_clone())))
            .collect()
    }

    fn model(&self) -> (nn::VarStore, UniMse) {
        let store = nn::VarStore::new(Device::Cpu);
        let model = UniMse::new(&store.root(), &self.config).unwrap();
        weights::load_tensors(&store, self.with_prefix("weights.")).unwrap().require_complete().unwrap();
        (store, model)
    }

    fn inputs(&self) -> Inputs {
        Inputs {
            input_ids: self.get("input_ids").shallow_clone(),
            attention_mask: self.get("attention_mask").shallow_clone(),
            acoustic: Modality::default(),
            visual: Modality::default(),
        }
    }

    fn batch(&self) -> Batch {
        Batch { inputs: self.inputs(), targets: self.get("labels").shallow_clone(), answers: None }
    }
}

/// Asserts a relative error of at most `tolerance` of the largest expected number. `what` begins with the fixture and the kind of
/// number; the line that is printed is what `cargo xtask bench golden` makes a table of.
#[expect(clippy::print_stdout, reason = "the line is read by a program")]
#[track_caller]
fn close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let error = (found - expected).abs().max().double_value(&[]);
    let scale = expected.abs().max().double_value(&[]);
    let mut words = what.split(' ');
    let [fixture, kind] = [words.next(), words.next()].map(|word| word.unwrap_or("values"));
    println!("golden {fixture} {kind} {:e} {tolerance:e}", error / scale);
    assert!(error <= tolerance * scale, "{what}: off by {error}, the largest number is {scale}");
}

const FIXTURES: [&str; 2] = ["t5_v1_0.safetensors", "t5_v1_1.safetensors"];

#[test]
fn states_logits_and_loss_are_those_of_transformers() {
    for name in FIXTURES {
        let golden = Golden::read(name);
        let (_store, model) = golden.model();
        let batch = golden.batch();
        tch::no_grad(|| {
            // What a model says of padding means nothing.
            let text = batch.inputs.attention_mask.unsqueeze(2);
            let answer = batch.targets.ne(unimse_model::unimse::IGNORED_TARGET).unsqueeze(2);
            let encoded = model.encode(&batch.inputs, false).unwrap();
            let expected = golden.get("encoder_states") * &text;
            close(&format!("{name} encoder-states"), &(&encoded.states * &text), &expected, 1e-5);
            let states = model.decode(&encoded, &model.shift_right(&batch.targets), false);
            close(&format!("{name} decoder-states"), &states, golden.get("decoder_states"), 1e-5);
            let output = model.forward(&batch, false).unwrap();
            let expected = golden.get("logits") * &answer;
            close(&format!("{name} logits"), &(output.logits() * &answer), &expected, 1e-5);
            close(&format!("{name} loss"), &output.ce_sum.unsqueeze(0), golden.get("loss_sum"), 1e-5);
            assert_eq!(output.tokens.int64_value(&[]), 12);
        });
    }
}

#[test]
fn gradients_are_those_of_transformers() {
    for name in FIXTURES {
        let golden = Golden::read(name);
        let (store, model) = golden.model();
        model.forward(&golden.batch(), false).unwrap().ce_sum.backward();
        let expected: BTreeMap<String, Tensor> = golden.with_prefix("grads.").into_iter().collect();
        let parameters = weights::parameters(&store);
        assert_eq!(parameters.len(), expected.len());
        for (key, tensor) in parameters {
            close(&format!("{name} gradients {key}"), &tensor.grad(), &expected[&key], 1e-4);
        }
    }
}

#[test]
fn parameter_names_and_shapes_are_those_of_transformers() {
    for name in FIXTURES {
        let golden = Golden::read(name);
        let store = nn::VarStore::new(Device::Cpu);
        UniMse::new(&store.root(), &golden.config).unwrap();
        let sorted = |tensors: Vec<(String, Tensor)>| -> BTreeMap<String, Vec<i64>> {
            tensors.into_iter().map(|(name, tensor)| (name, tensor.size())).collect()
        };
        assert_eq!(sorted(weights::parameters(&store)), sorted(golden.with_prefix("weights.")));
    }
}

#[test]
fn greedy_generation_with_the_cache_gives_the_tokens_of_transformers() {
    for name in FIXTURES {
        let golden = Golden::read(name);
        let (_store, model) = golden.model();
        let expected = golden.get("generated");
        let length = expected.size()[1];
        tch::no_grad(|| {
            let encoded = model.encode(&golden.inputs(), false).unwrap();
            let mut cache: Cache = model.start(&encoded, length);
            let mut tokens = vec![expected.narrow(1, 0, 1).squeeze_dim(1)];
            for step in 1..length {
                let logits = model.logits(&model.step(&tokens[step as usize - 1], &mut cache)).squeeze_dim(1);
                // transformers was told not to end before the last token.
                let eos = Tensor::from_slice(&[model.config().t5.eos_token_id]);
                tokens.push(logits.index_fill(1, &eos, f64::NEG_INFINITY).argmax(1, false));
            }
            assert_eq!(Tensor::stack(&tokens, 1), *expected, "{name}");
        });
    }
}

#[test]
fn weights_in_bfloat16_give_nearly_the_same_logits() {
    for name in FIXTURES {
        let golden = Golden::read(name);
        let (mut store, model) = golden.model();
        store.bfloat16();
        let output = tch::no_grad(|| model.forward(&golden.batch(), false)).unwrap();
        assert_eq!(output.logits().kind(), Kind::BFloat16);
        close(&format!("{name} logits-in-bfloat16"), &output.logits().to_kind(Kind::Float), golden.get("logits"), 0.15);
    }
}
