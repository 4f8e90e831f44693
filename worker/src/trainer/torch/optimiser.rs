//! Adam over the flat state: clipping by the global norm, warm-up and schedule, decay where it belongs.
//!
//! `train.adam.decoupled: false` is `torch.optim.Adam` with its `weight_decay`: after clipping, the weights themselves are added to the
//! gradients, all of them alike, as the official code does.

use tch::{Kind, Tensor};
use unimse_core::id::Step;
use unimse_core::job::ExitCause;
use unimse_core::spec::TrainSpec;
use unimse_torch_ext::adamw::{self, Group, Settings};

use super::super::{Update, failed, invalid};
use super::flat::Flat;

/// Keeps a division by the norm finite, as PyTorch's `clip_grad_norm_` does.
const NORM_EPSILON: f64 = 1e-6;

/// Applies the gradients for the update that makes `step` of `total`, after which they hold nothing of use.
///
/// Nothing is changed if the gradients are not finite.
pub(super) fn update(flat: &mut Flat, train: &TrainSpec, step: Step, total: u64) -> Result<Update, ExitCause> {
    let norm = f64::try_from(flat.gradients.norm()).map_err(failed)?;
    update_with(flat, norm, train, step, total)
}

/// The same where the norm of all gradients is known; only parameters whose moments are here are touched.
pub(super) fn update_with(
    flat: &mut Flat,
    norm: f64,
    train: &TrainSpec,
    step: Step,
    total: u64,
) -> Result<Update, ExitCause> {
    if !norm.is_finite() {
        return Err(invalid(format!(
            "training diverged: the gradient of step {step} has a norm of {norm}; hint: lower train.learning_rate, or use \
             precision fp32"
        )));
    }
    let too_long = train.clip > 0.0 && norm > train.clip;
    let divisor = too_long.then(|| (norm + NORM_EPSILON) / train.clip);
    if !train.adam.decoupled && train.weight_decay > 0.0 {
        // What is divided below must come out undivided.
        let penalty = &flat.parameters * (train.weight_decay * divisor.unwrap_or(1.0));
        let _ = tch::no_grad(|| flat.gradients.f_add_(&penalty)).map_err(failed)?;
    }
    // Filled where it is needed: a copy would be waited for.
    let number = |value: f64| Tensor::full([0; 0], value, (Kind::Float, flat.parameters.device()));
    let scalar = divisor.map(number);
    // Gradients beside a rank's own are sums in the making.
    let mut cleared = flat.own.iter().map(ExactSizeIterator::len).sum::<usize>() == flat.parameters.numel();
    let factor = train.schedule.factor(step, total);
    let count = number(step.0 as f64);
    for super::flat::Group { range, decays, added } in &flat.groups {
        let own = train.adapter_learning_rate.filter(|_| *added);
        let parts: Vec<_> = flat.kept(range.clone()).collect();
        let of_all = |tensor: &Tensor| -> Vec<Tensor> {
            parts.iter().map(|(part, _)| tensor.narrow(0, part.start as i64, part.len() as i64)).collect()
        };
        let of_own = |tensor: &Tensor| -> Vec<Tensor> {
            parts.iter().map(|(part, at)| tensor.narrow(0, *at as i64, part.len() as i64)).collect()
        };
        let group = Group {
            parameters: &of_all(&flat.parameters),
            gradients: &of_all(&flat.gradients),
            averages: &of_own(&flat.averages),
            squares: &of_own(&flat.squares),
            steps: &parts.iter().map(|_| count.shallow_clone()).collect::<Vec<_>>(),
        };
        let settings = Settings {
            learning_rate: own.unwrap_or(train.learning_rate) * factor,
            beta1: train.adam.beta1,
            beta2: train.adam.beta2,
            epsilon: train.adam.eps,
            weight_decay: if *decays && train.adam.decoupled { train.weight_decay } else { 0.0 },
        };
        if !adamw::consume(&group, settings, step.0, divisor).map_err(failed)? {
            adamw::step(&group, settings, scalar.as_ref()).map_err(failed)?;
            cleared = false;
        }
    }
    flat.set_cleared(cleared);
    Ok(Update { learning_rate: train.learning_rate * factor, gradient_norm: norm })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use tch::{Device, nn};
    use unimse_core::spec::parse_job;
    use unimse_model::{Batch, Config, Inputs, Modality, ModalityPart, UniMse, weights};

    use super::*;

    /// Two parameters with gradients of one; the first decays.
    fn flat() -> Flat {
        let store = nn::VarStore::new(Device::Cpu);
        let path = store.root();
        let parameters =
            vec![("bias".to_owned(), path.ones("bias", &[2])), ("weight".to_owned(), path.ones("weight", &[2, 2]))];
        let flat = Flat::new(parameters, Device::Cpu).unwrap();
        for entry in &flat.entries {
            let _ = entry.view(&flat.gradients).fill_(1.0);
        }
        flat
    }

    fn spec(train: &str) -> TrainSpec {
        let text = format!(
            "name: t\nmodel: {{preset: tiny}}\ndata: {{train: [{{path: a.arrow}}]}}\ntrain: {{max_steps: 10, {train}}}"
        );
        parse_job(&text, "t.yaml").unwrap_or_else(|error| panic!("{error}")).train
    }

    #[test]
    fn the_first_step_is_that_of_adamw_with_decay_on_matrices_only() {
        let mut flat = flat();
        let train = spec("learning_rate: 0.1, weight_decay: 0.5, clip: 0, schedule: {type: constant, warmup: 0}");
        let done = update(&mut flat, &train, Step(1), 10).unwrap();
        assert_eq!(done.learning_rate, 0.1);
        // Both bias corrections cancel at the first step: the update is the learning rate against the gradient's sign.
        let value = |at: i64| flat.parameters.double_value(&[at]);
        assert!((value(0) - (1.0 - 0.1 * 0.5 - 0.1)).abs() < 1e-6, "{}", value(0));
        let bias = flat.entries.iter().find(|entry| entry.name == "bias").unwrap().start as i64;
        assert!((value(bias) - 0.9).abs() < 1e-6, "{}", value(bias));
        assert_eq!(flat.parameters.double_value(&[5]), 0.0, "the gap between parameters stays zero");
    }

    #[test]
    fn adam_that_is_not_decoupled_adds_the_decay_to_clipped_gradients_of_all() {
        let settings = "learning_rate: 0.1, weight_decay: 0.5, clip: 1, schedule: {type: constant, warmup: 0}, adam: {decoupled: false}";
        let mut flat = flat();
        update(&mut flat, &spec(settings), Step(1), 10).unwrap();
        // The gradient that the moments get is 1 / sqrt(6) + 0.5 * 1, for the bias too, and the step is the whole rate.
        for entry in &flat.entries {
            let gradient = 6_f64.sqrt().recip() + 0.5;
            let average = entry.view(&flat.averages).flatten(0, -1).double_value(&[0]);
            assert!((average - 0.1 * gradient).abs() < 1e-6, "{} {average}", entry.name);
            let value = entry.view(&flat.parameters).flatten(0, -1).double_value(&[0]);
            assert!((value - 0.9).abs() < 1e-6, "{} {value}", entry.name);
        }
    }

    #[test]
    fn what_is_added_to_t5_may_have_a_rate_of_its_own() {
        let store = nn::VarStore::new(Device::Cpu);
        let path = store.root();
        let parameters = ["shared.weight", "acoustic.proj.weight"];
        let parameters = parameters.map(|name| (name.to_owned(), path.ones(&name.replace('.', "_"), &[1, 1])));
        let mut flat = Flat::new(parameters.into(), Device::Cpu).unwrap();
        let _ = flat.gradients.fill_(1.0);
        let rates = "learning_rate: 0.1, adapter_learning_rate: 0.01, clip: 0, schedule: {type: constant, warmup: 0}";
        update(&mut flat, &spec(rates), Step(1), 10).unwrap();
        for (entry, rate) in flat.entries.iter().zip([0.1, 0.01]) {
            let change = 1.0 - entry.view(&flat.parameters).double_value(&[0, 0]);
            assert!((change - rate).abs() < 1e-6, "{} {change}", entry.name);
        }
    }

    #[test]
    fn gradients_are_clipped_by_their_global_norm() {
        let mut flat = flat();
        let train = spec("learning_rate: 0.1, clip: 1.0");
        let done = update(&mut flat, &train, Step(1), 10).unwrap();
        assert!((done.gradient_norm - 6_f64.sqrt()).abs() < 1e-5);
        // The first moments are a tenth of the gradients that the update has taken.
        let norm = f64::try_from(flat.averages.norm()).unwrap();
        assert!((norm - 0.1).abs() < 1e-6, "{norm}");
        flat.clear();
        assert_eq!(f64::try_from(flat.gradients.abs().sum(Kind::Float)).unwrap(), 0.0);
    }

    /// The tensors of a fixture of `model/tests/golden/make_unimse.py`, and its configuration.
    fn golden(name: &str) -> (BTreeMap<String, Tensor>, Config) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden");
        let bytes = std::fs::read(folder.join(name)).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let config = Config::from_json(header["__metadata__"]["config"].as_str().unwrap()).unwrap();
        (weights::read_safetensors(&bytes).unwrap().into_iter().collect(), config)
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "the line is read by `cargo xtask bench golden`")]
    fn five_steps_end_where_pytorch_does() {
        tch::set_num_threads(1);
        for name in ["unimse_v1_0.safetensors", "unimse_v1_1.safetensors", "unimse_legacy.safetensors"] {
            let (tensors, config) = golden(name);
            let store = nn::VarStore::new(Device::Cpu);
            let model = UniMse::new(&store.root(), &config).unwrap();
            let initial = tensors
                .iter()
                .filter_map(|(key, tensor)| Some((key.strip_prefix("weights.")?.to_owned(), tensor.shallow_clone())));
            weights::load_tensors(&store, initial.collect()).unwrap().require_complete().unwrap();
            let modality = |name: &str| {
                let part = |place: usize| {
                    let get = |what: &str| Some(tensors.get(&format!("{name}.{place}.{what}"))?.shallow_clone());
                    Some(ModalityPart { rows: get("rows")?, features: get("features")?, lengths: get("lengths")? })
                };
                Modality { parts: (0..).map_while(part).collect() }
            };
            let targets = tensors["labels"].shallow_clone();
            let (tokens, samples) = (targets.ne(-100).sum(Kind::Int64).double_value(&[]), targets.size()[0] as f64);
            let inputs = Inputs {
                input_ids: tensors["input_ids"].shallow_clone(),
                attention_mask: tensors["attention_mask"].shallow_clone(),
                acoustic: modality("acoustic"),
                visual: modality("visual"),
            };
            let batch = Batch { inputs, targets, answers: None };
            let mut flat = Flat::new(weights::parameters(&store), Device::Cpu).unwrap();
            let train = spec("learning_rate: 0.01, weight_decay: 0.1, clip: 1, schedule: {type: constant, warmup: 0}");
            for step in 0..5 {
                flat.clear();
                let output = model.forward(&batch, true).unwrap();
                let loss = model.loss(&output, tokens, samples);
                loss.backward();
                let norm = update(&mut flat, &train, Step(step + 1), 100).unwrap().gradient_norm;
                let expected = |what: &str| tensors[what].double_value(&[step as i64]);
                for (found, expected) in
                    [(loss.double_value(&[]), expected("step_losses")), (norm, expected("step_norms"))]
                {
                    assert!((found / expected - 1.0).abs() < 1e-5, "{name}, step {step}: {found} {expected}");
                }
            }
            for (key, tensor) in weights::parameters(&store) {
                let error = (&tensors[&format!("after.{key}")] - tensor).abs().max().double_value(&[]);
                println!("golden {name} parameters-after-5-steps {error:e} 1e-4");
                assert!(error < 1e-4, "{name} {key}: off by {error}");
            }
        }
    }

    #[test]
    fn gradients_that_are_no_numbers_change_nothing() {
        let mut flat = flat();
        let _ = flat.gradients.narrow(0, 0, 1).fill_(f64::NAN);
        let before = flat.parameters.copy();
        let error = update(&mut flat, &spec("learning_rate: 0.1"), Step(3), 10).unwrap_err().to_string();
        assert!(error.contains("diverged") && error.contains("step 3"), "{error}");
        assert_eq!(flat.parameters, before);
        assert_eq!(flat.averages.abs().sum(Kind::Float).double_value(&[]), 0.0);
    }
}
