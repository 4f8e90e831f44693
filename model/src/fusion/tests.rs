use tch::{Device, Kind};

use super::*;
use crate::unimse::fixtures::{config, generator, shake};

#[test]
fn the_layer_computes_the_papers_equation_at_every_position() {
    let _generator = generator(101);
    for init in [FusionInit::Identity, FusionInit::Paper] {
        let mut config = config();
        config.unimse.fusion.init = init;
        let store = nn::VarStore::new(Device::Cpu);
        let fusion = Fusion::new(&(store.root() / "fusion"), &config);
        shake(&store);
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
        let (hidden, modalities) = (random(&[2, 3, 32]), random(&[2, 64]));
        let found = fusion.forward(&hidden, Some(&modalities));

        let variables = store.variables();
        let apply = |name: &str, input: &Tensor| {
            variables[&format!("fusion.{name}.weight")].mv(input) + &variables[&format!("fusion.{name}.bias")]
        };
        for sample in 0..2 {
            for position in 0..3 {
                let joined = Tensor::cat(&[hidden.get(sample).get(position), modalities.get(sample)], 0);
                let mixed = apply("up", &apply("down", &joined).sigmoid());
                let expected = apply("out", &(&joined + mixed));
                assert!(found.get(sample).get(position).allclose(&expected, 1e-5, 1e-5, false), "{init:?}");
            }
        }
    }
}

#[test]
fn the_identity_start_returns_its_input_and_the_papers_does_not() {
    let _generator = generator(102);
    let hidden = Tensor::randn([2, 3, 32], (Kind::Float, Device::Cpu)) * 50.0;
    let modalities = Tensor::randn([2, 64], (Kind::Float, Device::Cpu));
    let forward = |init: FusionInit| {
        let mut config = config();
        config.unimse.fusion.init = init;
        let store = nn::VarStore::new(Device::Cpu);
        Fusion::new(&store.root(), &config).forward(&hidden, Some(&modalities))
    };
    assert_eq!(forward(FusionInit::Identity), hidden);
    assert_ne!(forward(FusionInit::Paper), hidden);
}
