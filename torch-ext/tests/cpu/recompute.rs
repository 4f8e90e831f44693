//! Parts that are computed again against parts that are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tch::{Device, Kind, Tensor};
use unimse_torch_ext::{autocast, fused, recompute};

fn random(size: &[i64]) -> Tensor {
    Tensor::randn(size, (Kind::Float, Device::Cpu))
}

/// Two steps of a network with dropout, whose weights are its own leaves.
fn network(x: &Tensor, shift: &Tensor, weights: &[Tensor; 2]) -> Tensor {
    let inner = fused::dropout(&(x.linear::<Tensor>(&weights[0], None) + shift).tanh(), 0.3, true);
    fused::dropout(&inner.linear::<Tensor>(&weights[1], None), 0.3, true)
}

#[test]
fn results_and_gradients_are_the_same_with_dropout_and_what_comes_after_draws_the_same() {
    tch::manual_seed(1);
    let leaf = |size: &[i64]| random(size).set_requires_grad(true);
    let (x, shift, weights) = (leaf(&[5, 4]), leaf(&[3]), [leaf(&[3, 4]), leaf(&[4, 3])]);
    let calls = Arc::new(AtomicUsize::new(0));
    let run = |again: bool| {
        for leaf in [&x, &shift, &weights[0], &weights[1]] {
            leaf.shallow_clone().zero_grad();
        }
        tch::manual_seed(2);
        let part = |x: &Tensor| {
            if !again {
                return network(x, &shift, &weights);
            }
            let (own, counted) = (weights.each_ref().map(Tensor::shallow_clone), Arc::clone(&calls));
            recompute::of(&[x, &shift], move |inputs| {
                counted.fetch_add(1, Ordering::Relaxed);
                network(&inputs[0], &inputs[1], &own)
            })
        };
        let output = part(&part(&x)).square().sum(Kind::Float);
        output.backward();
        let mut found = vec![output, fused::dropout(&Tensor::ones([50], (Kind::Float, Device::Cpu)), 0.5, true)];
        found.extend([&x, &shift, &weights[0], &weights[1]].map(|leaf| leaf.grad().copy()));
        found
    };
    let kept = run(false);
    for (place, (found, expected)) in run(true).iter().zip(&kept).enumerate() {
        assert!(found.allclose(expected, 1e-6, 1e-7, false), "{place}: {found} {expected}");
    }
    assert_eq!(
        calls.load(Ordering::Relaxed),
        4,
        "each part runs in the forward pass and once more in the backward pass"
    );
}

#[test]
fn autocast_is_as_it_was() {
    let x = random(&[4, 4]).set_requires_grad(true);
    let kinds = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&kinds);
    let output = autocast::bf16(false, || {
        recompute::of(&[&x], move |inputs| {
            let product = inputs[0].matmul(&inputs[0]);
            seen.lock().expect("no panic").push(product.kind());
            product.to_kind(Kind::Float)
        })
    });
    output.expect("the CPU has autocast").sum(Kind::Float).backward();
    assert_eq!(*kinds.lock().expect("no panic"), [Kind::BFloat16; 2]);
    assert!(!autocast::enabled(false));
}

#[test]
fn what_a_part_holds_is_freed_with_the_graph() {
    struct Told(Arc<AtomicUsize>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let freed = Arc::new(AtomicUsize::new(0));
    let part = |x: &Tensor| {
        let told = Told(Arc::clone(&freed));
        recompute::of(&[x], move |inputs| {
            let _held = &told;
            inputs[0].sin()
        })
    };
    let x = random(&[3]).set_requires_grad(true);
    let output = part(&x);
    assert_eq!(freed.load(Ordering::Relaxed), 0);
    output.sum(Kind::Float).backward();
    drop(output);
    assert_eq!(freed.load(Ordering::Relaxed), 1);
    // Without gradients there is no graph to keep it.
    drop(part(&random(&[3])));
    assert_eq!(freed.load(Ordering::Relaxed), 2);
}

#[test]
#[should_panic(expected = "the part computes")]
fn a_panic_ends_at_the_door() {
    let _ = recompute::of(&[&random(&[1])], |_| panic!("on purpose"));
}
