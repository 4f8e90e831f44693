//! The shim on the CPU, against plain tch.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

mod recompute;
mod sublayers;

use std::sync::{Arc, Mutex};

use tch::{Device, Kind, Tensor};
use unimse_torch_ext::{accumulate, adamw, autocast, cuda, fused, gradient, hook, profile, view};

fn leaf(values: &[f32]) -> Tensor {
    Tensor::from_slice(values).set_requires_grad(true)
}

#[test]
fn hooks_fire_once_a_leaf_in_the_order_in_which_gradients_are_complete() {
    let leaves = [leaf(&[1.0, 2.0]), leaf(&[3.0, 4.0]), leaf(&[5.0, 6.0])];
    let fired = Arc::new(Mutex::new(Vec::new()));
    let noted = fired.clone();
    let hooks =
        hook::Hooks::install(&leaves, move |index| noted.lock().expect("no panic").push(index)).expect("leaves");
    // Backward reaches the last used leaf first.
    let forward = |leaves: &[Tensor; 3]| ((&leaves[0] * 2.0 + &leaves[1]).sin() * &leaves[2]).sum(Kind::Float);
    forward(&leaves).backward();
    let first = fired.lock().expect("no panic").clone();
    assert_eq!(first.len(), 3);
    assert_eq!(first[0], 2, "the gradient of the leaf that is used last is complete first");
    forward(&leaves).backward();
    assert_eq!(fired.lock().expect("no panic").len(), 6, "once in each backward pass");
    assert!(!hooks.panicked());
    drop(hooks);
    forward(&leaves).backward();
    assert_eq!(fired.lock().expect("no panic").len(), 6, "hooks end with their owner");
}

#[test]
fn hooks_do_not_take_off_others() {
    let leaves = [leaf(&[1.0])];
    let (first, second) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let counter = |count: &Arc<Mutex<u32>>| {
        let count = count.clone();
        move |_| *count.lock().expect("no panic") += 1
    };
    let old = hook::Hooks::install(&leaves, counter(&first)).expect("a leaf");
    let _new = hook::Hooks::install(&leaves, counter(&second)).expect("a leaf");
    drop(old);
    leaves[0].sum(Kind::Float).backward();
    assert_eq!((*first.lock().expect("no panic"), *second.lock().expect("no panic")), (0, 1));
}

/// A tied model: `weight` embeds, projects and is the output layer, once through libtorch's layers and once through ours.
fn tied(weight: &Tensor, ids: &Tensor, ours: bool) -> Tensor {
    let linear = |x: &Tensor| if ours { accumulate::linear(x, weight) } else { x.linear::<Tensor>(weight, None) };
    let embedded =
        if ours { accumulate::embedding(weight, ids) } else { Tensor::embedding(weight, ids, -1, false, false) };
    let hidden = linear(&embedded).sigmoid();
    let second = if ours { accumulate::embedding(weight, ids) } else { embedded.shallow_clone() };
    let scores = linear(&(hidden.narrow(-1, 0, 3) + second)) + weight.sum(Kind::Float);
    (&scores * &scores).mean(Kind::Float)
}

#[test]
fn layers_that_accumulate_give_the_gradients_of_libtorch_and_the_hook_comes_last() {
    tch::manual_seed(5);
    let make = || Tensor::randn([6, 3], (Kind::Float, Device::Cpu));
    let (values, ids) = (make(), Tensor::from_slice(&[1_i64, 5, 1, 0]).view([2, 2]));
    let plain = values.copy().set_requires_grad(true);
    tied(&plain, &ids, false).backward();

    // Without memory of its own the gradient is an ordinary one.
    let ordinary = values.copy().set_requires_grad(true);
    tied(&ordinary, &ids, true).backward();
    assert!(ordinary.grad().allclose(&plain.grad(), 1e-5, 1e-6, false));

    let weight = values.copy().set_requires_grad(true);
    let flat = Tensor::zeros([18], (Kind::Float, Device::Cpu));
    gradient::set(&weight, &flat.view([6, 3])).expect("the same shape");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (noted, memory) = (seen.clone(), Mutex::new(flat.shallow_clone()));
    let note = move |_| noted.lock().expect("no panic").push(memory.lock().expect("no panic").copy());
    let hooks = hook::Hooks::install(&[weight.shallow_clone()], note).expect("a leaf");
    for round in 1..=2 {
        tied(&weight, &ids, true).backward();
        let expected = plain.grad() * f64::from(round);
        assert!(flat.view([6, 3]).allclose(&expected, 1e-5, 1e-6, false), "round {round}");
    }
    let seen: Vec<Tensor> = std::mem::take(&mut seen.lock().expect("no panic"));
    assert_eq!(seen.len(), 2, "once in each backward pass");
    assert!(seen[1].equal(&flat), "all three uses and libtorch's own are there when the hook runs");
    assert!(!hooks.panicked());

    let frozen = values.copy();
    let x = make().set_requires_grad(true);
    let [a, b] = accumulate::linears(&x, [&frozen, &weight]);
    (a * 2.0 + b).sum(Kind::Float).backward();
    let expected = Tensor::ones([6, 6], (Kind::Float, Device::Cpu)).matmul(&values) * 3.0;
    assert!(x.grad().allclose(&expected, 1e-5, 1e-6, false), "of weights that do not learn, too");
    assert!(!frozen.grad().defined());
}

#[test]
fn under_autocast_layers_add_gradients_of_16_bits_to_those_of_32() {
    tch::manual_seed(6);
    let random = |size: [i64; 2]| Tensor::randn(size, (Kind::Float, Device::Cpu));
    let (x, one, other) = (random([7, 16]), random([5, 16]), random([5, 16]));
    let run = |x: &Tensor, weights: [&Tensor; 2], ours: bool| {
        let pass = || {
            let [a, b] = if ours {
                accumulate::linears(x, weights)
            } else {
                weights.map(|weight| x.linear::<Tensor>(weight, None))
            };
            assert_eq!((a.kind(), b.kind()), (Kind::BFloat16, Kind::BFloat16));
            (a * 2.0 + b).to_kind(Kind::Float).square().sum(Kind::Float)
        };
        autocast::bf16(false, pass).expect("the CPU has autocast").backward();
    };
    let leaves = || [&x, &one, &other].map(|tensor| tensor.copy().set_requires_grad(true));
    let [x_expected, one_expected, other_expected] = leaves();
    run(&x_expected, [&one_expected, &other_expected], false);
    let [x_found, one_found, other_found] = leaves();
    let flat = Tensor::zeros([5 * 16], (Kind::Float, Device::Cpu));
    gradient::set(&one_found, &flat.view([5, 16])).expect("the same shape");
    for round in 1..=2 {
        run(&x_found, [&one_found, &other_found], true);
        let near = |found: &Tensor, expected: &Tensor| {
            let most = (found - expected * f64::from(round)).abs().max().double_value(&[]);
            assert!(most <= 0.01 * f64::from(round) * expected.abs().max().double_value(&[]), "round {round}: {most}");
        };
        near(&x_found.grad(), &x_expected.grad());
        near(&flat.view([5, 16]), &one_expected.grad());
        near(&other_found.grad(), &other_expected.grad());
    }
    assert_eq!((x_found.grad().kind(), other_found.grad().kind()), (Kind::Float, Kind::Float));
}

#[test]
fn what_samples_share_gets_the_sum_of_their_gradients_from_every_use() {
    tch::manual_seed(7);
    let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
    for batch in [1, 3] {
        let (values, padding) = (random(&[1, 2, 4, 5]), random(&[batch, 1, 1, 5]));
        let factors = [random(&[batch, 2, 4, 5]), random(&[batch, 2, 4, 5])];
        let plain = values.copy().set_requires_grad(true);
        let sum = &plain + &padding;
        (&sum * &factors[0] + &sum * &factors[1]).sum(Kind::Float).backward();
        let part = values.copy().set_requires_grad(true);
        let whole = tch::no_grad(|| &part + &padding);
        let uses = factors.each_ref().map(|factor| accumulate::shared(&part, &whole) * factor);
        assert!(uses[0].requires_grad());
        (&uses[0] + &uses[1]).sum(Kind::Float).backward();
        assert!(part.grad().allclose(&plain.grad(), 1e-5, 1e-5, false));
    }
}

#[test]
fn a_layer_whose_gradient_is_all_direct_still_tells_its_hook() {
    let weight = leaf(&[1.0, 2.0]).view([1, 2]).detach().set_requires_grad(true);
    gradient::set(&weight, &weight.zeros_like()).expect("the same shape");
    let count = Arc::new(Mutex::new(0));
    let counted = count.clone();
    let call = move |_| *counted.lock().expect("no panic") += 1;
    let _hooks = hook::Hooks::install(&[weight.shallow_clone()], call).expect("a leaf");
    accumulate::linear(&Tensor::from_slice(&[3.0_f32, 4.0]), &weight).sum(Kind::Float).backward();
    assert_eq!(*count.lock().expect("no panic"), 1);
    assert_eq!(view::host::<f32>(&weight.grad()).expect("contiguous"), [3.0, 4.0]);
}

#[test]
fn a_profile_holds_operators_of_both_passes_once() {
    let recording = profile::Recording::begin().expect("the first");
    assert!(profile::Recording::begin().is_err(), "there is one at a time");
    let before = profile::now();
    (leaf(&[1.0, 2.0]) * 3.0).sin().sum(Kind::Float).backward();
    let after = profile::now();
    let spans = recording.finish().expect("it records");
    let own = |name: &str| {
        let inside = |span: &&profile::Span| span.name == name && span.begin >= before && span.end <= after;
        spans.iter().filter(inside).filter(|span| span.thread == profile::thread()).count()
    };
    assert!(own("aten::sin") >= 1 && spans.iter().any(|span| span.backward), "{spans:?}");
    drop(profile::Recording::begin().expect("the one before has ended"));
}

#[test]
fn a_panic_in_a_hook_is_caught_and_told() {
    let leaves = [leaf(&[1.0])];
    let hooks = hook::Hooks::install(&leaves, |_| panic!("on purpose")).expect("a leaf");
    leaves[0].sum(Kind::Float).backward();
    assert!(hooks.panicked());
}

#[test]
fn a_tensor_that_is_no_leaf_takes_no_hook() {
    let product = leaf(&[1.0]) * 2.0;
    let error = hook::Hooks::install(&[product], |_| {}).expect_err("not a leaf");
    assert!(error.to_string().contains("leaf"), "{error}");
}

#[test]
fn gradients_accumulate_in_place_in_views_of_one_flat_buffer() {
    let leaves = [leaf(&[1.0, 2.0]), leaf(&[3.0])];
    let flat = Tensor::zeros([3], (Kind::Float, Device::Cpu));
    gradient::set(&leaves[0], &flat.narrow(0, 0, 2)).expect("the same shape");
    gradient::set(&leaves[1], &flat.narrow(0, 2, 1)).expect("the same shape");
    for _ in 0..2 {
        (leaves[0].sum(Kind::Float) * 3.0 + leaves[1].sum(Kind::Float)).backward();
    }
    assert_eq!(view::host::<f32>(&flat).expect("contiguous"), [6.0, 6.0, 2.0]);
    assert!(gradient::set(&leaves[1], &flat).is_err(), "another shape");
}

#[test]
fn clipping_bounds_the_norm_over_all_buckets_and_leaves_small_ones_alone() {
    let mut buckets = [Tensor::from_slice(&[3.0_f32, 0.0]), Tensor::from_slice(&[0.0_f32, 4.0, 0.0])];
    let norm = gradient::norm(&buckets).expect("two buckets");
    assert_eq!(norm.double_value(&[]), 5.0);
    gradient::clip(&mut buckets, &norm, 10.0).expect("one device");
    assert_eq!(view::host::<f32>(&buckets[0]).expect("contiguous"), [3.0, 0.0]);
    gradient::clip(&mut buckets, &norm, 1.0).expect("one device");
    assert!((gradient::norm(&buckets).expect("two buckets").double_value(&[]) - 1.0).abs() < 1e-5);
    assert!(gradient::norm(&[]).is_err());
}

#[test]
fn fused_adamw_is_adamw() {
    let shapes: [&[i64]; 3] = [&[4, 5], &[7], &[1]];
    tch::manual_seed(3);
    let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let parameters: Vec<Tensor> = shapes.iter().map(|shape| random(shape)).collect();
    let mut expected: Vec<Tensor> = parameters.iter().map(Tensor::copy).collect();
    let (averages, squares): (Vec<_>, Vec<_>) = shapes.iter().map(|shape| (zeros(shape), zeros(shape))).unzip();
    let mut moments: Vec<(Tensor, Tensor)> = shapes.iter().map(|shape| (zeros(shape), zeros(shape))).collect();
    let steps: Vec<Tensor> = shapes.iter().map(|_| Tensor::from(0.0_f32)).collect();
    let settings = adamw::Settings { learning_rate: 1e-2, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.05 };
    for count in 1..=5 {
        let gradients: Vec<Tensor> = shapes.iter().map(|shape| random(shape)).collect();
        let divisor = Tensor::from(4.0_f32);
        let before: Vec<Tensor> = gradients.iter().map(Tensor::copy).collect();
        for step in &steps {
            let _ = step.shallow_clone().fill_(f64::from(count));
        }
        let group = adamw::Group {
            parameters: &parameters,
            gradients: &gradients,
            averages: &averages,
            squares: &squares,
            steps: &steps,
        };
        adamw::step(&group, settings, (count > 3).then_some(&divisor)).expect("shapes agree");
        let divided = before.iter().map(|gradient| if count > 3 { gradient / 4.0 } else { gradient.copy() });
        for (gradient, divided) in gradients.iter().zip(divided) {
            assert!(gradient.allclose(&divided, 1e-6, 0.0, false), "what was divided is stored");
        }
        for ((parameter, (average, square)), gradient) in expected.iter_mut().zip(&mut moments).zip(&gradients) {
            *average = &*average * settings.beta1 + gradient * (1.0 - settings.beta1);
            *square = &*square * settings.beta2 + gradient * gradient * (1.0 - settings.beta2);
            let corrected = &*average / (1.0 - settings.beta1.powi(count));
            let root = (&*square / (1.0 - settings.beta2.powi(count))).sqrt() + settings.epsilon;
            *parameter = &*parameter * (1.0 - settings.learning_rate * settings.weight_decay)
                - corrected / root * settings.learning_rate;
        }
    }
    for (parameter, expected) in parameters.iter().zip(&expected) {
        assert!(parameter.allclose(expected, 1e-5, 1e-6, false), "{parameter} and {expected}");
    }
    let group =
        adamw::Group { parameters: &parameters, gradients: &[], averages: &averages, squares: &squares, steps: &steps };
    assert!(adamw::step(&group, settings, None).is_err());
}

#[test]
fn a_step_that_consumes_its_gradients_is_the_same_step() {
    tch::set_num_threads(1);
    tch::manual_seed(11);
    let settings = adamw::Settings { learning_rate: 1e-2, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.05 };
    // Ours and libtorch's, each of parameters, first and second moments.
    let start = [37, 64].map(|size| Tensor::randn([size], (Kind::Float, Device::Cpu)));
    let new = || start.iter().map(Tensor::copy).collect::<Vec<_>>();
    let zeros = || start.iter().map(Tensor::zeros_like).collect::<Vec<_>>();
    let [ours, theirs] = [(); 2].map(|()| [new(), zeros(), zeros()]);
    for count in 1..=6_u64 {
        let gradients = start.iter().map(Tensor::randn_like).collect::<Vec<_>>();
        let divisor = (count > 3).then_some(1.7);
        let steps = [(); 2].map(|()| Tensor::from(count as f32));
        let group = |[parameters, averages, squares]: &[Vec<Tensor>; 3],
                     gradients: &[Tensor],
                     apply: &dyn Fn(&adamw::Group<'_>)| {
            apply(&adamw::Group { parameters, gradients, averages, squares, steps: &steps });
        };
        let copies: Vec<Tensor> = gradients.iter().map(Tensor::copy).collect();
        group(&theirs, &copies, &|group| {
            let divisor = divisor.map(|divisor| Tensor::from(divisor as f32));
            adamw::step(group, settings, divisor.as_ref()).expect("shapes agree");
        });
        group(&ours, &gradients, &|group| {
            assert!(adamw::consume(group, settings, count, divisor).expect("shapes agree"));
        });
        for gradient in &gradients {
            assert_eq!(gradient.abs().max().double_value(&[]), 0.0, "it is cleared");
        }
        for (found, expected) in ours.iter().flatten().zip(theirs.iter().flatten()) {
            assert!(found.allclose(expected, 1e-5, 1e-7, false), "step {count}: {found} {expected}");
        }
    }
    let double: Vec<Tensor> = start.iter().map(|tensor| tensor.to_kind(Kind::Double)).collect();
    let [first, second] = [(); 2].map(|()| [(); 2].map(|()| Tensor::from(1.0)));
    let group =
        adamw::Group { parameters: &double, gradients: &double, averages: &double, squares: &double, steps: &first };
    assert!(!adamw::consume(&group, settings, 1, None).expect("shapes agree"), "64 bits are not for it");
    let group =
        adamw::Group { parameters: &double, gradients: &[], averages: &double, squares: &double, steps: &second };
    assert!(adamw::consume(&group, settings, 1, None).is_err());
}

#[test]
fn the_fused_cross_entropy_is_libtorchs_and_so_is_its_gradient() {
    tch::set_num_threads(1);
    tch::manual_seed(12);
    for (rows, classes, scale) in [(5, 7, 1.0), (12, 4096, 3.0), (3, 33, 90.0)] {
        let logits = (Tensor::randn([rows, classes], (Kind::Float, Device::Cpu)) * scale).set_requires_grad(true);
        let mut targets: Vec<i64> = (0..rows).map(|row| (row * 31) % classes).collect();
        targets[1] = -100;
        let targets = Tensor::from_slice(&targets);
        let weights = Tensor::rand([rows], (Kind::Float, Device::Cpu));
        let ours = fused::cross_entropy(&logits, &targets, -100);
        let theirs = logits.cross_entropy_loss::<Tensor>(&targets, None, tch::Reduction::None, -100, 0.0);
        assert!(ours.allclose(&theirs, 1e-6, 1e-6, false), "{ours} {theirs}");
        assert_eq!(ours.double_value(&[1]), 0.0);
        let [found, expected] =
            [&ours, &theirs].map(|losses| gradient_of(&logits, &(losses * &weights).sum(Kind::Float)));
        assert!(found.allclose(&expected, 1e-5, 1e-7, false), "{rows} x {classes}");
    }
}

#[test]
#[should_panic(expected = "is none of 4 classes")]
fn a_target_that_is_no_class_is_refused() {
    tch::set_num_threads(1);
    let logits = Tensor::zeros([2, 4], (Kind::Float, Device::Cpu));
    let _ = fused::cross_entropy(&logits, &Tensor::from_slice(&[1_i64, 4]), -100);
}

#[test]
fn autocast_runs_products_in_bf16_and_leaves_no_trace() {
    let (a, b) = (Tensor::ones([4, 4], (Kind::Float, Device::Cpu)), Tensor::ones([4, 4], (Kind::Float, Device::Cpu)));
    assert_eq!(autocast::bf16(false, || a.matmul(&b).kind()).expect("CPU"), Kind::BFloat16);
    let within = || {
        let without = autocast::off(false, || a.matmul(&b).kind()).expect("CPU");
        (without, a.matmul(&b).kind())
    };
    assert_eq!(autocast::bf16(false, within).expect("CPU"), (Kind::Float, Kind::BFloat16));
    assert_eq!(autocast::off(false, || autocast::enabled(false)), Ok(false));
    assert!(!autocast::enabled(false));
    let panicked = std::panic::catch_unwind(|| autocast::bf16(false, || panic!("on purpose")));
    assert!(panicked.is_err() && !autocast::enabled(false));
    assert_eq!(a.matmul(&b).kind(), Kind::Float);
}

#[test]
fn views_are_the_tensors_memory_and_refuse_what_they_cannot_show() {
    let mut tensor = Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0]).view([2, 2]);
    view::host_mut::<f32>(&mut tensor).expect("contiguous")[3] = 9.0;
    assert_eq!(tensor.double_value(&[1, 1]), 9.0);
    assert!(view::host::<i64>(&tensor).is_err());
    assert!(view::host::<f32>(&tensor.transpose(0, 1)).is_err());
    assert_eq!(view::bytes(&tensor).expect("contiguous").len(), 16);
    assert_eq!(view::device_pointer(&tensor), None);
    assert!(view::host::<f32>(&Tensor::zeros([0], (Kind::Float, Device::Cpu))).expect("empty").is_empty());
}

#[test]
fn without_a_driver_cuda_says_so_every_time() {
    if std::path::Path::new("/proc/driver/nvidia/version").exists() {
        eprintln!("skipped: this machine has an NVIDIA driver");
        return;
    }
    assert_eq!(cuda::load(), Err(cuda::Unavailable::NoDriver));
    assert_eq!(cuda::load(), Err(cuda::Unavailable::NoDriver));
}

fn gradient_of(leaf: &Tensor, loss: &Tensor) -> Tensor {
    loss.backward();
    leaf.grad()
}

#[test]
fn the_fused_norm_is_libtorchs_and_so_are_its_gradients() {
    tch::manual_seed(3);
    for shape in [vec![1_i64, 1], vec![5, 7], vec![3, 4, 128], vec![2, 0, 16], vec![300, 33]] {
        let width = shape[shape.len() - 1];
        let (x, weight) =
            (Tensor::randn(&shape, (Kind::Float, Device::Cpu)), Tensor::rand([width], (Kind::Float, Device::Cpu)));
        let factor = Tensor::randn(&shape, (Kind::Float, Device::Cpu));
        let leaves = || (x.copy().set_requires_grad(true), weight.copy().set_requires_grad(true));
        let (own_x, own_weight) = leaves();
        let own = fused::rms_norm(&own_x, &own_weight, 1e-6);
        let (torch_x, torch_weight) = leaves();
        let torch = torch_x.rms_norm([width], Some(&torch_weight), 1e-6);
        assert!(own.allclose(&torch, 1e-5, 1e-6, false), "{shape:?}");
        let own = gradient_of(&own_x, &(own * &factor).sum(Kind::Float));
        let torch = gradient_of(&torch_x, &(torch * &factor).sum(Kind::Float));
        assert!(own.allclose(&torch, 1e-4, 1e-5, false), "{shape:?}");
        assert!(own_weight.grad().allclose(&torch_weight.grad(), 1e-4, 1e-4, false), "{shape:?}");
    }
}

#[test]
fn fused_dropout_drops_as_many_as_it_should_and_its_gradient_the_same_ones() {
    let ones = || Tensor::ones([1500, 1000], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    for p in [0.1, 0.5, 0.9] {
        tch::manual_seed(11);
        let x = ones();
        let dropped = fused::dropout(&x, p, true);
        let share = dropped.eq(0.0).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        // Three deviations of the share of 1.5 million coins.
        assert!((share - p).abs() < 3.0 * (p * (1.0 - p) / 1.5e6).sqrt(), "{share} of {p}");
        let kept = 1.0 / (1.0 - p);
        assert!((dropped.max().double_value(&[]) - kept).abs() < 1e-5 * kept);
        // Rows and columns are as independent as the whole: no pattern follows the counter.
        for dimension in [0_i64, 1] {
            let shares = dropped.eq(0.0).to_kind(Kind::Float).mean_dim(dimension, false, Kind::Float);
            let count = if dimension == 0 { 1500.0 } else { 1000.0 };
            let deviation = shares.std(true).double_value(&[]);
            let expected = (p * (1.0 - p) / count).sqrt();
            assert!((deviation / expected - 1.0).abs() < 0.1, "{deviation} {expected} along {dimension}");
        }
        let gradient = gradient_of(&x, &dropped.sum(Kind::Float));
        assert_eq!(gradient, dropped.detach(), "of ones the gradient is the output");

        tch::manual_seed(11);
        assert_eq!(fused::dropout(&ones(), p, true).detach(), dropped.detach(), "the seed decides");
        assert_ne!(fused::dropout(&ones(), p, true).detach(), dropped.detach(), "and each call draws anew");
    }
    let x = ones();
    assert_eq!(fused::dropout(&x, 0.5, false), x, "nothing outside training");
}

#[test]
fn a_residual_is_added_and_gets_the_whole_gradient() {
    let leaf = |value: f64| Tensor::full([64, 3], value, (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let (x, residual) = (leaf(2.0), leaf(1.0));
    tch::manual_seed(5);
    let sum = fused::dropout_add(&x, &residual, 0.25, true);
    tch::manual_seed(5);
    let alone = fused::dropout(&x, 0.25, true);
    assert_eq!(sum.detach(), (&residual + &alone).detach());
    sum.sum(Kind::Float).backward();
    assert_eq!(residual.grad(), residual.ones_like());
    assert_eq!(x.grad(), (alone / 2.0).detach());
    // A transposed view is as good as a contiguous tensor.
    let view = leaf(3.0).transpose(0, 1);
    tch::manual_seed(5);
    let dropped = fused::dropout(&view, 0.25, true);
    assert_eq!(dropped.size(), [3, 64]);
    assert!(dropped.max().double_value(&[]) > 3.9);
}
