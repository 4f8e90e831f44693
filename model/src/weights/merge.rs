//! Low-rank updates put into the weights they update, for programs that know nothing of them.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::config::LoraConfig;

const A: &str = ".lora_A.weight";
const B: &str = ".lora_B.weight";

/// Replaces every `W` that has an update by `W + alpha / rank * B A` and drops the updates; computed in 64 bits.
pub fn merge_lora(tensors: &mut BTreeMap<String, Tensor>, lora: &LoraConfig) {
    let updated: Vec<String> = tensors.keys().filter_map(|name| name.strip_suffix(A)).map(str::to_owned).collect();
    for name in updated {
        let weight = format!("{name}.weight");
        let (Some(a), Some(b)) = (tensors.remove(&format!("{name}{A}")), tensors.remove(&format!("{name}{B}"))) else {
            continue;
        };
        if let Some(own) = tensors.get_mut(&weight) {
            let double = |tensor: &Tensor| tensor.to_kind(Kind::Double);
            let scale = lora.alpha / lora.rank.max(1) as f64;
            *own = (double(own) + double(&b).matmul(&double(&a)) * scale).to_kind(own.kind());
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn};

    use super::*;
    use crate::unimse::fixtures::{batch, config, generator, model};
    use crate::{UniMse, weights};

    #[test]
    fn a_merged_model_gives_the_logits_of_the_one_with_updates() {
        let _generator = generator(120);
        let mut tuned = config();
        tuned.unimse.lora = LoraConfig { rank: 3, alpha: 12.0 };
        let (store, model) = model(&tuned, 41);
        let samples = batch(3, 7);
        let answers = samples.targets.ne(crate::unimse::IGNORED_TARGET).unsqueeze(2);
        let logits = |model: &UniMse| tch::no_grad(|| model.forward(&samples, false)).unwrap().logits() * &answers;
        let initial = logits(&model);
        for (name, mut tensor) in weights::parameters(&store) {
            if name.ends_with(B) {
                let _ = tch::no_grad(|| tensor.normal_(0.0, 0.1));
            }
        }
        let expected = logits(&model);
        assert!(!initial.allclose(&expected, 1e-4, 1e-4, false), "the updates matter");

        let mut tensors: BTreeMap<String, Tensor> =
            weights::parameters(&store).into_iter().map(|(name, tensor)| (name, tensor.detach())).collect();
        merge_lora(&mut tensors, &tuned.unimse.lora);
        tuned.unimse.lora.rank = 0;
        let plain = nn::VarStore::new(Device::Cpu);
        let model = UniMse::new(&plain.root(), &tuned).unwrap();
        weights::load_tensors(&plain, tensors.into_iter().collect()).unwrap().require_complete().unwrap();
        assert!(logits(&model).allclose(&expected, 1e-4, 1e-5, false));
    }
}
