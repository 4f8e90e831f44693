//! Relative positions as a learned bias on attention scores.

use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor, nn};
use unimse_torch_ext::cuda::graph;

use super::lowest;
use crate::config::T5Config;

/// Turns distances between positions into one bias a head: near distances have a bucket each, far ones share
/// logarithmic buckets up to a maximum.
#[derive(Debug)]
pub struct RelativeBias {
    /// `[buckets, heads]`.
    weight: Tensor,
    buckets: i64,
    max_distance: i64,
    bidirectional: bool,
    /// Lengths and their buckets `[L, L]`, the newest last: batches of a few lengths come again and again.
    known: Mutex<Vec<(i64, Tensor)>>,
}

/// So many lengths are kept.
const KNOWN: usize = 16;

impl RelativeBias {
    /// Creates the table under `path`, block 0's `relative_attention_bias`. A bidirectional table keeps half of its
    /// buckets for keys that lie ahead.
    pub fn new(path: &nn::Path, config: &T5Config, bidirectional: bool) -> Self {
        let stdev = config.initializer_factor * (config.d_model as f64).powf(-0.5);
        let buckets = config.relative_attention_num_buckets;
        Self {
            weight: path.randn("weight", &[buckets, config.num_heads], 0.0, stdev),
            buckets,
            max_distance: config.relative_attention_max_distance,
            bidirectional,
            known: Mutex::default(),
        }
    }

    /// Returns the bias `[1, H, L, L]` of a sequence of `length` positions with itself.
    pub fn forward(&self, length: i64) -> Tensor {
        self.of_buckets(&self.buckets(length))
    }

    /// Returns the bias `[1, H, L, L]` of a decoder, where no position sees a later one.
    pub fn causal(&self, length: i64) -> Tensor {
        let later = Tensor::ones([length, length], (Kind::Bool, self.weight.device())).triu(1);
        self.forward(length).masked_fill(&later, lowest(self.weight.kind()))
    }

    /// Returns the bias `[1, H, Q, K]` for given distances `[Q, K]`, key position less query position.
    pub fn at(&self, relative: &Tensor) -> Tensor {
        self.of_buckets(&self.bucket(relative))
    }

    fn of_buckets(&self, buckets: &Tensor) -> Tensor {
        let bias = Tensor::embedding(&self.weight, buckets, -1, false, false);
        bias.permute([2, 0, 1]).unsqueeze(0).contiguous()
    }

    /// The buckets of a sequence with itself. They take two dozen small operations, so they are remembered.
    fn buckets(&self, length: i64) -> Tensor {
        let fresh = || self.bucket(&relative_positions(length, self.weight.device()));
        if graph::records() {
            // What is remembered may be dropped while the recording still reads it, and the other way round.
            return fresh();
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, buckets)) = known.iter().find(|(known, _)| *known == length) {
            return buckets.shallow_clone();
        }
        let buckets = fresh();
        if known.len() == KNOWN {
            let _oldest = known.remove(0);
        }
        known.push((length, buckets.shallow_clone()));
        buckets
    }

    /// Computes on the device with libtorch's own operations, in the order of Hugging Face's
    /// `_relative_position_bucket`, so that rounding at the borders of buckets is the same.
    fn bucket(&self, relative: &Tensor) -> Tensor {
        let (buckets, offset, distance) = if self.bidirectional {
            let half = self.buckets / 2;
            (half, relative.gt(0).to_kind(Kind::Int64) * half, relative.abs())
        } else {
            (self.buckets, relative.zeros_like(), relative.neg().clamp_min(0))
        };
        let exact = buckets / 2;
        let scaled = (distance.to_kind(Kind::Float) / exact as f64).log()
            / (self.max_distance as f64 / exact as f64).ln()
            * (buckets - exact) as f64;
        // Distance 0 gives the logarithm of 0 here; it is exact and never takes this branch.
        let far = (scaled.clamp_min(0.0).to_kind(Kind::Int64) + exact).clamp_max(buckets - 1);
        offset + distance.where_self(&distance.lt(exact), &far)
    }
}

fn relative_positions(length: i64, device: Device) -> Tensor {
    let positions = Tensor::arange(length, (Kind::Int64, device));
    positions.unsqueeze(0) - positions.unsqueeze(1)
}

#[cfg(test)]
impl RelativeBias {
    pub(super) fn buckets_of(&self, relative: &[i64]) -> Vec<i64> {
        Vec::try_from(self.bucket(&Tensor::from_slice(relative))).unwrap()
    }
}
