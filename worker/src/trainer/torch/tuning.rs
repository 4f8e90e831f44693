//! Which parameters learn.
//!
//! A frozen parameter has no gradient, no moments and no part in the all-reduce, and libtorch computes no backward pass below the
//! lowest one that learns. It is still in every checkpoint, once, so that each is a whole model.

use tch::Tensor;
use unimse_core::job::ExitCause;
use unimse_core::spec::Trainable;
use unimse_model::{Config, weights};

use super::super::invalid;

/// Blocks at the end of each stack that the paper's authors train.
const LAST_BLOCKS: i64 = 2;

/// Parameters with their names, in the order of the forward pass.
pub(super) type Named = Vec<(String, Tensor)>;

/// Splits parameters into those that learn and those that do not, and tells libtorch about the latter.
pub(super) fn split(parameters: Named, trainable: Trainable, config: &Config) -> Result<(Named, Named), ExitCause> {
    let (learning, frozen): (Named, Named) =
        parameters.into_iter().partition(|(name, _)| learns(name, trainable, config));
    if learning.is_empty() {
        return Err(invalid(
            "`model.trainable: adapters` leaves nothing that learns; hint: give the model fusion layers or `lora: {rank: 8}`, or \
             use `trainable: all`",
        ));
    }
    for (_, tensor) in &frozen {
        let _ = tensor.set_requires_grad(false);
    }
    Ok((learning, frozen))
}

fn learns(name: &str, trainable: Trainable, config: &Config) -> bool {
    match trainable {
        Trainable::All => true,
        Trainable::Adapters => weights::is_added(name),
        Trainable::Paper => weights::is_added(name) || in_last_blocks(name, config),
    }
}

fn in_last_blocks(name: &str, config: &Config) -> bool {
    let mut parts = name.split('.');
    let blocks = match parts.next() {
        Some("encoder") => config.t5.num_layers,
        Some("decoder") => config.t5.decoder_layers(),
        _ => return false,
    };
    parts.next() == Some("block")
        && parts.next().and_then(|block| block.parse::<i64>().ok()).is_some_and(|block| block >= blocks - LAST_BLOCKS)
}

#[cfg(test)]
mod tests {
    use tch::{Device, nn};
    use unimse_model::{Preset, UniMse};

    use super::*;

    fn model(rank: i64) -> (nn::VarStore, UniMse, Config) {
        let mut config = Preset::Tiny.config();
        config.t5.vocab_size = 64;
        config.unimse.acoustic.dims = vec![3];
        config.unimse.lora.rank = rank;
        config.unimse.fusion.layers = 1;
        let store = nn::VarStore::new(Device::Cpu);
        let model = UniMse::new(&store.root(), &config).unwrap();
        (store, model, config)
    }

    fn names(list: &Named) -> Vec<&str> {
        list.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn all_parameters_learn_unless_asked_otherwise() {
        let (store, _model, config) = model(0);
        let (learning, frozen) = split(weights::parameters(&store), Trainable::All, &config).unwrap();
        assert_eq!((learning.len(), frozen.len()), (store.variables().len(), 0));
    }

    #[test]
    fn adapters_are_what_is_added_to_t5() {
        let (store, _model, config) = model(4);
        let (learning, frozen) = split(weights::parameters(&store), Trainable::Adapters, &config).unwrap();
        for name in names(&learning) {
            assert!(
                [".fusion.", "acoustic.", "contrastive.", ".lora_"].iter().any(|part| name.contains(part)),
                "{name} learns"
            );
        }
        assert!(names(&learning).contains(&"decoder.block.0.layer.1.EncDecAttention.v.lora_B.weight"));
        assert!(names(&frozen).contains(&"shared.weight"));
        assert!(frozen.iter().all(|(_, tensor)| !tensor.requires_grad()));
        assert!(learning.iter().all(|(_, tensor)| tensor.requires_grad()));
    }

    #[test]
    fn the_papers_choice_adds_the_last_two_blocks_of_both_stacks() {
        let (store, _model, config) = model(0);
        assert!(config.t5.num_layers > 2, "else nothing is frozen");
        let (learning, frozen) = split(weights::parameters(&store), Trainable::Paper, &config).unwrap();
        for stack in ["encoder", "decoder"] {
            let of = |block: i64| format!("{stack}.block.{block}.layer.0.SelfAttention.q.weight");
            let last = config.t5.num_layers - 1;
            assert!(names(&learning).contains(&of(last).as_str()) && names(&learning).contains(&of(last - 1).as_str()));
            assert!(names(&frozen).contains(&of(last - 2).as_str()));
            assert!(names(&frozen).contains(&format!("{stack}.final_layer_norm.weight").as_str()));
        }
    }

    #[test]
    fn a_model_without_adapters_cannot_train_them() {
        let (store, _model, mut config) = model(0);
        config.unimse.fusion.layers = 0;
        let plain: Named =
            weights::parameters(&store).into_iter().filter(|(name, _)| !weights::is_added(name)).collect();
        let error = split(plain, Trainable::Adapters, &config).unwrap_err().to_string();
        assert!(error.contains("lora"), "{error}");
    }
}
