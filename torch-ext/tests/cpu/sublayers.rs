//! The fused sublayers against the same equations in libtorch's operations.

use tch::{Device, Kind, Tensor};
use unimse_torch_ext::sublayer::{self, Attention, Rows};
use unimse_torch_ext::{fused, gradient};

const EPSILON: f64 = 1e-6;

/// Sizes that differ wherever they meet, and one that fills whole vectors.
const SHAPES: [Shape; 2] = [
    Shape { batch: 3, queries: 5, keys: 7, width: 12, wide: 20, heads: 2, head: 9 },
    Shape { batch: 4, queries: 32, keys: 16, width: 64, wide: 128, heads: 4, head: 16 },
];

#[derive(Clone, Copy)]
struct Shape {
    batch: i64,
    queries: i64,
    keys: i64,
    width: i64,
    wide: i64,
    heads: i64,
    head: i64,
}

/// All that a sublayer may read; every tensor learns but the paddings.
struct Parts {
    shape: Shape,
    x: Tensor,
    memory: Tensor,
    norm: Tensor,
    wi: Tensor,
    wo: Tensor,
    /// Queries, keys, values and the way out.
    weights: [Tensor; 4],
    own_bias: Tensor,
    cross_bias: Tensor,
    own_padding: Tensor,
    cross_padding: Tensor,
}

impl Parts {
    /// With `beside` values, keys and queries lie beside each other in memory, in this order.
    fn new(shape: Shape, beside: bool) -> Self {
        let Shape { batch, queries, keys, width, wide, heads, head } = shape;
        let leaf = |size: &[i64], scale: f64| {
            (Tensor::randn(size, (Kind::Float, Device::Cpu)) * scale).set_requires_grad(true)
        };
        let inner = heads * head;
        let all = Tensor::randn([3, inner, width], (Kind::Float, Device::Cpu)) * 0.2;
        let weight = |place: i64| {
            let part = all.get(2 - place);
            (if beside { part.detach() } else { part.copy() }).set_requires_grad(true)
        };
        // The last sample has two positions less.
        let padding = |keys: i64| {
            let padding = Tensor::zeros([batch, 1, 1, keys], (Kind::Float, Device::Cpu));
            let _ = padding.get(batch - 1).narrow(2, keys - 2, 2).fill_(f64::from(f32::MIN));
            padding
        };
        Self {
            shape,
            x: leaf(&[batch, queries, width], 1.0),
            memory: leaf(&[batch, keys, width], 1.0),
            norm: leaf(&[width], 1.0),
            wi: leaf(&[wide, width], 0.2),
            wo: leaf(&[width, wide], 0.2),
            weights: [weight(0), weight(1), weight(2), leaf(&[width, inner], 0.2)],
            own_bias: leaf(&[1, heads, queries, queries], 1.0),
            cross_bias: leaf(&[1, heads, queries, keys], 1.0),
            own_padding: padding(queries),
            cross_padding: padding(keys),
        }
    }

    fn biases(&self, crossed: bool) -> (Option<&Tensor>, &Tensor, &Tensor) {
        if crossed {
            (Some(&self.memory), &self.cross_bias, &self.cross_padding)
        } else {
            (None, &self.own_bias, &self.own_padding)
        }
    }

    fn attend(&self, crossed: bool, p: f64) -> Tensor {
        let (memory, bias, padding) = self.biases(crossed);
        let weights = self.weights.each_ref();
        let attention = Attention { norm: &self.norm, weights, heads: self.shape.heads, epsilon: EPSILON, p };
        attention.forward(&self.x, memory, Some(bias), Some(padding))
    }

    fn attend_plainly(&self, crossed: bool) -> Tensor {
        let Shape { batch, queries, heads, head, .. } = self.shape;
        let (memory, bias, padding) = self.biases(crossed);
        let normed = normed(&self.x, &self.norm);
        let source = memory.unwrap_or(&normed);
        let split = |tensor: Tensor| tensor.view([batch, -1, heads, head]).transpose(1, 2);
        let linear = |x: &Tensor, place: usize| x.linear::<Tensor>(&self.weights[place], None);
        let (query, key, value) = (split(linear(&normed, 0)), split(linear(source, 1)), split(linear(source, 2)));
        let shares = (query.matmul(&key.transpose(-1, -2)) + bias + padding).softmax(-1, Kind::Float);
        let attended = shares.matmul(&value).transpose(1, 2).reshape([batch, queries, heads * head]);
        &self.x + linear(&attended, 3)
    }

    fn attention_leaves(&self, crossed: bool) -> Vec<&Tensor> {
        let (memory, bias, _) = self.biases(crossed);
        [&self.x, &self.norm, bias].into_iter().chain(&self.weights).chain(memory).collect()
    }
}

fn normed(x: &Tensor, weight: &Tensor) -> Tensor {
    x * (x.square().mean_dim(-1, true, Kind::Float) + EPSILON).rsqrt() * weight
}

/// Draws repeat and nothing else runs on libtorch's threads.
fn begin(seed: i64) {
    tch::set_num_threads(1);
    tch::manual_seed(seed);
}

fn close(what: &str, found: &Tensor, expected: &Tensor) {
    let most = expected.abs().max().double_value(&[]);
    let error = (found - expected).abs().max().double_value(&[]) / most;
    assert!(error < 1e-5, "{what}: off by {error:e} of {most}");
}

/// Both results, and their gradients at all leaves for one gradient of the output.
fn same(what: &str, ours: &Tensor, plain: &Tensor, leaves: &[&Tensor]) {
    close(what, ours, plain);
    let weighted = Tensor::randn_like(plain);
    let gradients =
        |output: &Tensor| Tensor::run_backward(&[(output * &weighted).sum(Kind::Float)], leaves, false, false);
    for (place, (found, expected)) in gradients(ours).iter().zip(&gradients(plain)).enumerate() {
        close(&format!("{what}, gradient {place}"), found, expected);
    }
}

fn skipped() -> bool {
    tch::set_num_threads(1);
    let none = !sublayer::fits(&Tensor::zeros([1], (Kind::Float, Device::Cpu)));
    if none {
        eprintln!("skipped: this libtorch has no MKL inside");
    }
    none
}

#[test]
fn they_are_for_single_precision_on_one_thread_of_the_cpu() {
    if skipped() {
        return;
    }
    assert!(!sublayer::fits(&Tensor::zeros([1], (Kind::Double, Device::Cpu))));
    let x = Tensor::zeros([1], (Kind::Float, Device::Cpu));
    assert!(!unimse_torch_ext::autocast::bf16(false, || sublayer::fits(&x)).expect("the CPU has autocast"));
    tch::set_num_threads(2);
    assert!(!sublayer::fits(&x));
    tch::set_num_threads(1);
}

#[test]
fn without_dropout_they_are_the_equations() {
    if skipped() {
        return;
    }
    for (shape, beside) in SHAPES.into_iter().flat_map(|shape| [(shape, true), (shape, false)]) {
        begin(3);
        let parts = Parts::new(shape, beside);
        let Parts { x, norm, wi, wo, .. } = &parts;
        let ours = sublayer::feed_forward(x, norm, wi, wo, EPSILON, 0.0);
        let inner = normed(x, norm).linear::<Tensor>(wi, None).relu();
        same("feed-forward", &ours, &(x + inner.linear::<Tensor>(wo, None)), &[x, norm, wi, wo]);
        for crossed in [false, true] {
            let name = if crossed { "cross-attention" } else { "self-attention" };
            same(name, &parts.attend(crossed, 0.0), &parts.attend_plainly(crossed), &parts.attention_leaves(crossed));
        }
    }
}

#[test]
fn a_gated_feed_forward_is_its_equation_with_and_without_weights_beside_each_other() {
    if skipped() {
        return;
    }
    for (shape, beside) in SHAPES.into_iter().flat_map(|shape| [(shape, true), (shape, false)]) {
        begin(12);
        let Parts { x, norm, wo, .. } = &Parts::new(shape, beside);
        // The second lies first, as in the trainer's memory.
        let both = Tensor::randn([2, shape.wide, shape.width], (Kind::Float, Device::Cpu)) * 0.4;
        let weight = |place: i64| {
            let part = both.get(place);
            (if beside { part.detach() } else { part.copy() }).set_requires_grad(true)
        };
        let (wi_0, wi_1) = (weight(1), weight(0));
        let ours = sublayer::gated_feed_forward(x, norm, [&wi_0, &wi_1], wo, EPSILON, 0.0);
        let normed = normed(x, norm);
        let inner = normed.linear::<Tensor>(&wi_0, None).gelu("tanh") * normed.linear::<Tensor>(&wi_1, None);
        same("gated", &ours, &(x + inner.linear::<Tensor>(wo, None)), &[x, norm, &wi_0, &wi_1, wo]);
    }
}

#[test]
fn dropout_of_a_gated_feed_forward_is_drawn_again_in_the_backward_pass() {
    if skipped() {
        return;
    }
    begin(13);
    let Parts { x, norm, wo, wi, .. } = &Parts::new(SHAPES[1], true);
    let wi_1 = Tensor::randn_like(wi).set_requires_grad(true);
    let weighted = Tensor::randn_like(x);
    let output = |p: f64, seed: i64, wo: &Tensor| {
        begin(seed);
        sublayer::gated_feed_forward(x, norm, [wi, &wi_1], wo, EPSILON, p)
    };
    // The output is linear in the way out and in the open half of the gate, so differences are slopes but for rounding.
    let loss = |wo: &Tensor| (output(0.3, 14, wo) * &weighted).sum(Kind::Double);
    let gradient = Tensor::run_backward(&[loss(wo)], &[wo], false, false).remove(0);
    let direction = Tensor::randn_like(wo);
    let along = |step: f64| tch::no_grad(|| loss(&(wo + &direction * step)).double_value(&[]));
    let (slope, expected) = (along(0.5) - along(-0.5), (gradient * &direction).sum(Kind::Double).double_value(&[]));
    assert!((slope - expected).abs() < 1e-4 * expected.abs().max(1.0), "{slope} {expected}");
    let slope = |wi_1: &Tensor| {
        begin(14);
        (sublayer::gated_feed_forward(x, norm, [wi, wi_1], wo, EPSILON, 0.3) * &weighted).sum(Kind::Double)
    };
    let gradient = Tensor::run_backward(&[slope(&wi_1)], &[&wi_1], false, false).remove(0);
    let direction = Tensor::randn_like(&wi_1);
    let along = |step: f64| tch::no_grad(|| slope(&(&wi_1 + &direction * step)).double_value(&[]));
    let (slope, expected) = (along(0.5) - along(-0.5), (gradient * &direction).sum(Kind::Double).double_value(&[]));
    assert!((slope - expected).abs() < 1e-4 * expected.abs().max(1.0), "{slope} {expected}");
    // The mean over many draws is the result without dropout.
    let sum = (0..3000).fold(Tensor::zeros_like(x), |sum, seed| sum + tch::no_grad(|| output(0.3, 100 + seed, wo)));
    let size = |x: &Tensor| x.square().mean(Kind::Float).sqrt().double_value(&[]);
    let none = output(0.0, 1, wo);
    let error = size(&(sum / 3000.0 - &none)) / size(&(none - x));
    assert!(error < 0.05, "{error}");
}

#[test]
fn packed_samples_see_only_themselves() {
    if skipped() {
        return;
    }
    // Rows of three samples: of the first everything is as long as the tensors, of the last a single row asks.
    let (queries, keys) = ([0_i64, 5, 8, 9], [0_i64, 7, 9, 13]);
    for crossed in [false, true] {
        begin(9);
        let parts = Parts::new(SHAPES[0], true);
        let starts = if crossed { [queries, keys] } else { [queries, queries] };
        let pack = |padded: &Tensor, starts: &[i64; 4]| {
            let own = |sample: usize| padded.get(sample as i64).narrow(0, 0, starts[sample + 1] - starts[sample]);
            Tensor::cat(&[own(0), own(1), own(2)], 0)
        };
        let Parts { x, memory, norm, weights, own_bias, cross_bias, shape, .. } = &parts;
        let bias = if crossed { cross_bias } else { own_bias };
        let attention = Attention { norm, weights: weights.each_ref(), heads: shape.heads, epsilon: EPSILON, p: 0.0 };
        let rows = Rows { queries: &starts[0], keys: &starts[1] };
        let read = crossed.then(|| pack(memory, &starts[1]));
        let ours = attention.packed(&pack(x, &starts[0]), read.as_ref(), Some(bias), rows);
        let alone = |sample: usize| {
            let cut = |padded: &Tensor, starts: &[i64; 4]| {
                padded.narrow(0, sample as i64, 1).narrow(1, 0, starts[sample + 1] - starts[sample])
            };
            let (own, read) = (cut(x, &starts[0]), crossed.then(|| cut(memory, &starts[1])));
            let (asked, seen) = (own.size()[1], read.as_ref().unwrap_or(&own).size()[1]);
            let bias = bias.narrow(2, 0, asked).narrow(3, 0, seen);
            attention.forward(&own, read.as_ref(), Some(&bias), None).squeeze_dim(0)
        };
        let plain = Tensor::cat(&[alone(0), alone(1), alone(2)], 0);
        same(if crossed { "packed cross" } else { "packed self" }, &ours, &plain, &parts.attention_leaves(crossed));
    }
}

#[test]
fn dropout_of_a_feed_forward_is_that_of_the_fused_operations() {
    if skipped() {
        return;
    }
    begin(4);
    let parts = Parts::new(SHAPES[1], true);
    let Parts { x, norm, wi, wo, shape, .. } = &parts;
    begin(5);
    let ours = sublayer::feed_forward(x, norm, wi, wo, EPSILON, 0.25);
    begin(5);
    let ones = |width: i64| Tensor::ones([shape.batch, shape.queries, width], (Kind::Float, Device::Cpu));
    let inner_mask = fused::dropout(&ones(shape.wide), 0.25, true);
    let outer_mask = fused::dropout(&ones(shape.width), 0.25, true);
    let inner = normed(x, norm).linear::<Tensor>(wi, None).relu() * inner_mask;
    let plain = x + inner.linear::<Tensor>(wo, None) * outer_mask;
    same("feed-forward with dropout", &ours, &plain, &[x, norm, wi, wo]);
}

#[test]
fn dropout_of_an_attention_is_drawn_again_in_the_backward_pass() {
    if skipped() {
        return;
    }
    for crossed in [false, true] {
        begin(6);
        let mut parts = Parts::new(SHAPES[0], true);
        let weighted = Tensor::randn_like(&parts.x);
        let output = |parts: &Parts| {
            begin(7);
            (parts.attend(crossed, 0.4) * &weighted).sum(Kind::Double)
        };
        let gradients = Tensor::run_backward(&[output(&parts)], &[&parts.weights[2], &parts.weights[3]], false, false);
        // The output is linear in the values and in the way out, so differences are slopes but for rounding.
        for (place, gradient) in [2, 3].into_iter().zip(gradients) {
            let before = parts.weights[place].copy();
            let direction = Tensor::randn_like(&before);
            let mut along = |step: f64| {
                tch::no_grad(|| {
                    parts.weights[place].copy_(&(&before + &direction * step));
                    output(&parts).double_value(&[])
                })
            };
            let slope = along(0.5) - along(-0.5);
            let expected = (gradient * &direction).sum(Kind::Double).double_value(&[]);
            assert!((slope - expected).abs() < 1e-4 * expected.abs().max(1.0), "{place}: {slope} {expected}");
            tch::no_grad(|| parts.weights[place].copy_(&before));
        }
        // Some shares are dropped, others are not: the mean over many draws is the result without dropout.
        let mean = |p: f64, draws: i64| {
            let sum = (0..draws).fold(Tensor::zeros_like(&parts.x), |sum, seed| {
                begin(100 + seed);
                sum + tch::no_grad(|| parts.attend(crossed, p))
            });
            sum / draws as f64
        };
        let (many, none) = (mean(0.4, 4000), mean(0.0, 1));
        let error = (many - &none).square().mean(Kind::Float).sqrt().double_value(&[]);
        assert!(error < 0.05, "{error}");
    }
}

#[test]
fn gradients_are_added_to_the_memory_that_weights_have_and_frozen_ones_get_none() {
    if skipped() {
        return;
    }
    for (beside, crossed) in [(true, false), (true, true), (false, true)] {
        begin(8);
        let parts = Parts::new(SHAPES[0], beside);
        let weighted = Tensor::randn_like(&parts.x);
        let sum = |output: Tensor| (output * &weighted).sum(Kind::Float);
        let leaves: Vec<&Tensor> = parts.weights.iter().chain([&parts.norm]).collect();
        let expected = Tensor::run_backward(&[sum(parts.attend_plainly(crossed))], &leaves, false, false);
        let total: i64 = leaves.iter().map(|leaf| leaf.numel() as i64).sum();
        let flat = Tensor::ones([total], (Kind::Float, Device::Cpu));
        let mut start = 0;
        // In the order of the trainer's memory, where gradients that lie beside each other are one product too.
        for leaf in leaves.iter().rev() {
            let length = leaf.numel() as i64;
            gradient::set(leaf, &flat.narrow(0, start, length).view(leaf.size().as_slice()))
                .expect("a leaf of this size");
            start += length;
        }
        sum(parts.attend(crossed, 0.0)).backward();
        let together: Vec<Tensor> = expected.iter().rev().map(|gradient| gradient.flatten(0, -1)).collect();
        close("sums in place", &(flat - 1.0), &Tensor::cat(&together, 0));

        let frozen = Parts::new(SHAPES[0], beside);
        for leaf in [&frozen.weights[0], &frozen.weights[2], &frozen.norm, &frozen.x] {
            let _ = leaf.set_requires_grad(false);
        }
        let found = [&frozen.weights[1], &frozen.weights[3]];
        let slopes = |output: Tensor| Tensor::run_backward(&[sum(output)], &found, false, false);
        for (found, expected) in slopes(frozen.attend(crossed, 0.0)).iter().zip(&slopes(frozen.attend_plainly(crossed)))
        {
            close("beside frozen weights", found, expected);
        }
        assert!(!frozen.weights[0].grad().defined());
    }
}

#[test]
#[should_panic(expected = "do not fit")]
fn shapes_that_do_not_agree_are_refused() {
    assert!(!skipped(), "the shapes do not fit a libtorch without MKL either");
    let parts = Parts::new(SHAPES[0], true);
    let _ = sublayer::feed_forward(&parts.x, &parts.norm, &parts.wo, &parts.wi, EPSILON, 0.0);
}
