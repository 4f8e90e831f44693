//! Models and batches for tests.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tch::{Device, Kind, Tensor, nn};

use super::{Batch, Inputs, UniMse};
use crate::config::{Config, Preset};
use crate::encoders::{Modality, ModalityPart};

/// Keeps other tests of this process away from libtorch's one generator for as long as the guard lives.
pub(crate) fn generator(seed: i64) -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    let guard = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    // libtorch's threads spin while they wait, which takes minutes where tests share their cores with other work.
    tch::set_num_threads(1);
    tch::manual_seed(seed);
    guard
}

/// A model smaller than tiny, with both modalities and two feature dimensions for sound.
pub(crate) fn config() -> Config {
    let mut config = Preset::Tiny.config();
    let t5 = &mut config.t5;
    (t5.d_model, t5.d_kv, t5.d_ff, t5.num_heads, t5.vocab_size) = (32, 8, 48, 4, 600);
    (t5.num_layers, t5.num_decoder_layers) = (2, Some(2));
    config.unimse.fusion.layers = 1;
    config.unimse.contrastive.layers = 2;
    config.unimse.acoustic.dims = vec![5, 7];
    config.unimse.visual.dims = vec![6];
    config
}

pub(crate) fn model(config: &Config, seed: i64) -> (nn::VarStore, UniMse) {
    tch::manual_seed(seed);
    let store = nn::VarStore::new(Device::Cpu);
    let model = UniMse::new(&store.root(), config).unwrap();
    (store, model)
}

/// Moves every weight away from its initial value, so that nothing is zero by construction.
pub(crate) fn shake(store: &nn::VarStore) {
    for mut tensor in store.trainable_variables() {
        let noise = tensor.randn_like() * 0.2;
        tch::no_grad(|| tensor += noise);
    }
}

/// `rows` samples: text up to `length` tokens, sound of two dimensions, one sample without sound, one without picture.
pub(crate) fn inputs(rows: i64, length: i64) -> Inputs {
    let ids = Tensor::randint_low(2, 600, [rows, length], (Kind::Int64, Device::Cpu));
    let lengths: Vec<i64> = (0..rows).map(|row| (length - 2 * row).max(1)).collect();
    let position = Tensor::arange(length, (Kind::Int64, Device::Cpu)).unsqueeze(0);
    let mask = position.lt_tensor(&Tensor::from_slice(&lengths).unsqueeze(1)).to_kind(Kind::Int64);
    let part = |rows: Vec<i64>, frames: i64, dim: i64| {
        let lengths: Vec<i64> = rows.iter().map(|row| 1 + (3 * row + 1) % frames).collect();
        let features = Tensor::randn([rows.len() as i64, frames, dim], (Kind::Float, Device::Cpu));
        ModalityPart { rows: Tensor::from_slice(&rows), features, lengths: Tensor::from_slice(&lengths) }
    };
    let even = (0..rows).filter(|row| row % 2 == 0).collect();
    let odd = (2..rows).filter(|row| row % 2 == 1).collect();
    Inputs {
        input_ids: ids * &mask,
        attention_mask: mask,
        acoustic: Modality { parts: vec![part(even, 6, 7), part(odd, 4, 5)] },
        visual: Modality { parts: vec![part((0..rows - 1).collect(), 5, 6)] },
    }
}

pub(crate) fn batch(rows: i64, length: i64) -> Batch {
    let targets = Tensor::randint_low(2, 600, [rows, 6], (Kind::Int64, Device::Cpu));
    let position = Tensor::arange(6, (Kind::Int64, Device::Cpu)).unsqueeze(0);
    let ends: Vec<i64> = (0..rows).map(|row| 6 - row % 3).collect();
    let padding = position.ge_tensor(&Tensor::from_slice(&ends).unsqueeze(1));
    Batch { inputs: inputs(rows, length), targets: targets.masked_fill(&padding, super::IGNORED_TARGET), answers: None }
}
