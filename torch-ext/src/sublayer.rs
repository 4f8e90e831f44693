//! The two sublayers of a T5 block, each in one node of the graph: norm, products, what is between them, dropout and residual.
//!
//! libtorch makes some twenty operations of one and moves the heads' numbers to and fro; in a small model that takes longer than the
//! products themselves. Gradients of weights go straight into the memory that [`gradient::set`](crate::gradient::set) gave them,
//! and weights that lie beside each other in memory are multiplied as one. Random numbers are those of [`fused`](crate::fused).
//!
//! Only for 32 bits on the CPU, one thread, no autocast, and a libtorch with MKL inside: ask [`fits`] first.

use tch::Tensor;

use crate::error;
use crate::ffi::{self, RawTensor, raw};

/// Tells whether the sublayers can be used on `x`, here and now.
pub fn fits(x: &Tensor) -> bool {
    // SAFETY: `x` is borrowed for the length of the call, which only looks at it.
    unsafe { ffi::ute_sublayers_fit(raw(x)) != 0 }
}

/// Returns `x + dropout(dropout(relu(norm(x) wi^T)) wo^T)` for `x [.., d]`, with `norm [d]`, `wi [f, d]` and `wo [d, f]`.
///
/// # Panics
/// When shapes do not agree, or `x` does not [`fits`].
pub fn feed_forward(x: &Tensor, norm: &Tensor, wi: &Tensor, wo: &Tensor, epsilon: f64, p: f64) -> Tensor {
    // SAFETY: all tensors are borrowed for the length of the call.
    made(|out| unsafe { ffi::ute_feed_forward(raw(x), raw(norm), raw(wi), raw(wo), epsilon, p, out) })
}

/// Returns `x + dropout(dropout(gelu(n wi_0^T) * n wi_1^T) wo^T)` with `n = norm(x)` for `x [.., d]`, with `norm [d]`, both `wi [f, d]` and
/// `wo [d, f]`: the sublayer of T5 v1.1, whose GELU is that of the tangent.
///
/// # Panics
/// As [`feed_forward`].
pub fn gated_feed_forward(x: &Tensor, norm: &Tensor, wi: [&Tensor; 2], wo: &Tensor, epsilon: f64, p: f64) -> Tensor {
    let [wi_0, wi_1] = wi.map(raw);
    // SAFETY: all tensors are borrowed for the length of the call.
    made(|out| unsafe { ffi::ute_gated_feed_forward(raw(x), raw(norm), wi_0, wi_1, raw(wo), epsilon, p, out) })
}

/// What an attention is made of.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// `[d]`, of the norm before it.
    pub norm: &'a Tensor,
    /// Queries, keys and values `[H k, d]`, and the way out `[d, H k]`.
    pub weights: [&'a Tensor; 4],
    /// `H`.
    pub heads: i64,
    /// Added to the norm's mean square.
    pub epsilon: f64,
    /// Probability of dropout, on the shares and at the end.
    pub p: f64,
}

/// Where the rows of each sample begin in packed tensors, and where those of the last one end: one number more than samples.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Of what asks.
    pub queries: &'a [i64],
    /// Of what is read; as `queries` where an attention reads itself.
    pub keys: &'a [i64],
}

impl Attention<'_> {
    /// Returns `x + dropout(attention(norm(x)))` for `x [B, Q, d]`. Keys and values come from `memory [B, S, d]`, or from `norm(x)`
    /// itself. Scores are not scaled; `bias [1, H, Q, S]` and `padding [B, 1, 1, S]`, which gets no gradient, are added to them.
    ///
    /// # Panics
    /// As [`feed_forward`].
    pub fn forward(
        &self,
        x: &Tensor,
        memory: Option<&Tensor>,
        bias: Option<&Tensor>,
        padding: Option<&Tensor>,
    ) -> Tensor {
        self.run(x, memory, bias, padding, None)
    }

    /// The same for samples of which only the `rows` that are no padding lie behind each other, `x [sum of Q, d]` and `memory
    /// [sum of S, d]`. A sample sees only itself; `bias [1, H, >= longest Q, >= longest S]` is that of the longest, of which the
    /// others take the beginning.
    ///
    /// # Panics
    /// As [`feed_forward`].
    pub fn packed(&self, x: &Tensor, memory: Option<&Tensor>, bias: Option<&Tensor>, rows: Rows) -> Tensor {
        self.run(x, memory, bias, None, Some(rows))
    }

    fn run(
        &self,
        x: &Tensor,
        memory: Option<&Tensor>,
        bias: Option<&Tensor>,
        padding: Option<&Tensor>,
        rows: Option<Rows>,
    ) -> Tensor {
        let weights = self.weights.map(raw);
        let optional = |tensor: Option<&Tensor>| tensor.map_or(std::ptr::null_mut(), raw);
        let (memory, bias, padding) = (optional(memory), optional(bias), optional(padding));
        let (norm, weights) = (raw(self.norm), weights.as_ptr());
        let (queries, keys, samples) = match rows {
            Some(Rows { queries, keys }) => {
                assert!(queries.len() == keys.len() && !keys.is_empty(), "as many samples ask as are read");
                (queries.as_ptr(), keys.as_ptr(), queries.len() as i64 - 1)
            }
            None => (std::ptr::null(), std::ptr::null(), 0),
        };
        let Self { heads, epsilon, p, .. } = *self;
        // SAFETY: all tensors are borrowed for the length of the call, there are four weights, and `samples + 1` starts of both kinds.
        made(|out| unsafe {
            ffi::ute_attention(
                raw(x),
                memory,
                norm,
                weights,
                bias,
                padding,
                queries,
                keys,
                samples,
                heads,
                epsilon,
                p,
                out,
            )
        })
    }
}

/// Takes the tensor that a function of the shim makes.
fn made(make: impl FnOnce(*mut RawTensor) -> *mut std::ffi::c_char) -> Tensor {
    error::made(make).expect("the sublayer's tensors fit each other")
}
