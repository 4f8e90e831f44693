//! Prints how many samples a second a preset trains and decodes on this machine's CPU.
//!
//! `cargo run -p unimse-model --example throughput -- tiny 16 48 40` measures preset tiny with batches of 16 samples of
//! 48 tokens and 40 frames of sound and of picture. Times are the median of several steps after a warm-up.

#![expect(clippy::print_stdout, reason = "the numbers are this program's output")]

use std::time::Instant;

use tch::nn::OptimizerConfig;
use tch::{Device, Kind, Tensor, nn};
use unimse_model::{Batch, Grammar, Inputs, LabelDecoder, LabelSchema, Modality, Preset, UniMse};

/// Repetitions of which the median is taken.
const REPEATS: usize = 9;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |index: usize, default: i64| arguments.get(index).map_or(default, |text| text.parse().expect("a number"));
    let preset: Preset = arguments.first().map_or("tiny", String::as_str).parse().expect("a preset");
    let mut config = preset.config();
    config.unimse.acoustic.dims = vec![74];
    config.unimse.visual.dims = vec![35];
    let (rows, length, frames) = (number(1, 16), number(2, 48), number(3, 40));

    tch::manual_seed(1);
    let store = nn::VarStore::new(Device::Cpu);
    let model = UniMse::new(&store.root(), &config).expect("presets are valid");
    let parameters: usize = store.trainable_variables().iter().map(Tensor::numel).sum();
    let ids = |columns: i64| Tensor::randint_low(2, 4000, [rows, columns], (Kind::Int64, Device::Cpu));
    let modality = |dim: i64| {
        let features = Tensor::randn([rows, frames, dim], (Kind::Float, Device::Cpu));
        Modality::uniform(features, Tensor::full([rows], frames, (Kind::Int64, Device::Cpu)))
    };
    let inputs = Inputs {
        input_ids: ids(length),
        attention_mask: Tensor::ones([rows, length], (Kind::Int64, Device::Cpu)),
        acoustic: modality(74),
        visual: modality(35),
    };
    let batch = Batch { inputs, targets: ids(12), answers: None };
    let mut optimiser = nn::AdamW::default().build(&store, 1e-4).expect("the store has parameters");
    println!("{parameters} parameters, batches of {rows} x {length} tokens, {frames} frames");
    report("forward", rows, || drop(tch::no_grad(|| model.forward(&batch, false).expect("the dims are listed"))));
    report("encode modalities and text", rows, || drop(tch::no_grad(|| model.encode(&batch.inputs, false))));
    report("training step", rows, || {
        let output = model.forward(&batch, true).expect("the dims are listed");
        optimiser.backward_step(&model.loss(&output, 12.0 * rows as f64, rows as f64));
    });
    let bytes = |text: &str| text.bytes().map(i64::from).collect();
    let grammar = Grammar::try_new(&LabelSchema::default(), 1, bytes).expect("bytes tell all words apart");
    let decoder = LabelDecoder::new(&model, &grammar, None, Device::Cpu);
    report("decoding, one token a byte", rows, || drop(decoder.decode(&model, &batch.inputs)));
    report("expected score", rows, || drop(decoder.expected_scores(&model, &batch.inputs)));
}

fn report(what: &str, rows: i64, mut step: impl FnMut()) {
    step();
    let mut seconds: Vec<f64> = (0..REPEATS)
        .map(|_| {
            let start = Instant::now();
            step();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let median = seconds[REPEATS / 2];
    println!("{what:30} {:9.1} ms  {:9.1} samples/s", median * 1e3, rows as f64 / median);
}
