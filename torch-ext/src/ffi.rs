//! The shim's functions, as in `cpp/shim.cpp`.

use std::ffi::{c_char, c_int, c_void};

/// A pointer to libtorch's `at::Tensor`.
pub(crate) type RawTensor = *mut c_void;

pub(crate) type Callback = extern "C" fn(context: *mut c_void, index: usize);

pub(crate) type TakeSpan =
    extern "C" fn(context: *mut c_void, name: *const c_char, begin: u64, end: u64, thread: i64, backward: c_int);

pub(crate) type Run = extern "C" fn(context: *mut c_void, inputs: *const RawTensor, count: usize) -> RawTensor;

pub(crate) type DropContext = extern "C" fn(context: *mut c_void);

unsafe extern "C" {
    pub(crate) fn ute_warn_once();
    pub(crate) fn ute_free(message: *mut c_char);
    pub(crate) fn ute_fused_adamw(
        parameters: *const RawTensor,
        gradients: *const RawTensor,
        averages: *const RawTensor,
        squares: *const RawTensor,
        steps: *const RawTensor,
        count: usize,
        learning_rate: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        epsilon: f64,
        divisor: RawTensor,
    ) -> *mut c_char;
    pub(crate) fn ute_set_gradient(parameter: RawTensor, gradient: RawTensor) -> *mut c_char;
    pub(crate) fn ute_set_hook(
        leaf: RawTensor,
        callback: Callback,
        context: *mut c_void,
        index: usize,
        hooked: *mut *mut c_void,
    ) -> *mut c_char;
    pub(crate) fn ute_clear_hook(hooked: *mut c_void);
    pub(crate) fn ute_linears(
        x: RawTensor,
        weights: *const RawTensor,
        count: usize,
        outputs: *mut RawTensor,
    ) -> *mut c_char;
    pub(crate) fn ute_embedding(weight: RawTensor, ids: RawTensor, out: *mut RawTensor) -> *mut c_char;
    pub(crate) fn ute_shared(part: RawTensor, whole: RawTensor, out: *mut RawTensor) -> *mut c_char;
    pub(crate) fn ute_now() -> u64;
    pub(crate) fn ute_thread() -> i64;
    pub(crate) fn ute_profile_begin() -> *mut c_char;
    pub(crate) fn ute_profile_end(take: TakeSpan, context: *mut c_void) -> *mut c_char;
    pub(crate) fn ute_autocast_enabled(cuda: c_int) -> c_int;
    pub(crate) fn ute_autocast_set(cuda: c_int, enabled: c_int);
    pub(crate) fn ute_autocast_enter(cuda: c_int, dtype_before: *mut c_int) -> *mut c_char;
    pub(crate) fn ute_autocast_leave(cuda: c_int, before: c_int, dtype_before: c_int) -> *mut c_char;
    pub(crate) fn ute_fused_fits(x: RawTensor) -> c_int;
    pub(crate) fn ute_dropout(x: RawTensor, p: f64, out: *mut RawTensor) -> *mut c_char;
    pub(crate) fn ute_dropout_add(x: RawTensor, residual: RawTensor, p: f64, out: *mut RawTensor) -> *mut c_char;
    pub(crate) fn ute_rms_norm(x: RawTensor, weight: RawTensor, epsilon: f64, out: *mut RawTensor) -> *mut c_char;
    pub(crate) fn ute_sublayers_fit(x: RawTensor) -> c_int;
    pub(crate) fn ute_feed_forward(
        x: RawTensor,
        norm: RawTensor,
        wi: RawTensor,
        wo: RawTensor,
        epsilon: f64,
        p: f64,
        out: *mut RawTensor,
    ) -> *mut c_char;
    pub(crate) fn ute_gated_feed_forward(
        x: RawTensor,
        norm: RawTensor,
        wi_0: RawTensor,
        wi_1: RawTensor,
        wo: RawTensor,
        epsilon: f64,
        p: f64,
        out: *mut RawTensor,
    ) -> *mut c_char;
    pub(crate) fn ute_attention(
        x: RawTensor,
        memory: RawTensor,
        norm: RawTensor,
        weights: *const RawTensor,
        bias: RawTensor,
        padding: RawTensor,
        query_starts: *const i64,
        key_starts: *const i64,
        samples: i64,
        heads: i64,
        epsilon: f64,
        p: f64,
        out: *mut RawTensor,
    ) -> *mut c_char;
    pub(crate) fn ute_cross_entropy(
        logits: RawTensor,
        targets: RawTensor,
        ignored: i64,
        out: *mut RawTensor,
    ) -> *mut c_char;
    pub(crate) fn ute_cross_entropy_fits(logits: RawTensor) -> c_int;
    pub(crate) fn ute_adamw_consume(
        parameters: *const RawTensor,
        gradients: *const RawTensor,
        averages: *const RawTensor,
        squares: *const RawTensor,
        count: usize,
        step: f64,
        learning_rate: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        epsilon: f64,
        divisor: f64,
        done: *mut c_int,
    ) -> *mut c_char;
    pub(crate) fn ute_recompute(
        inputs: *const RawTensor,
        count: usize,
        run: Run,
        drop: DropContext,
        context: *mut c_void,
        out: *mut RawTensor,
    ) -> *mut c_char;
    pub(crate) fn ute_current_stream(device: u32, id: *mut i64, handle: *mut u64) -> *mut c_char;
    pub(crate) fn ute_stream_of_pool(device: u32, id: *mut i64) -> *mut c_char;
    pub(crate) fn ute_stream_exchange(device: u32, id: i64, before: *mut i64) -> *mut c_char;
    pub(crate) fn ute_stream_synchronize(device: u32, id: i64) -> *mut c_char;
    pub(crate) fn ute_event_record(device: u32, id: i64, event: *mut *mut c_void) -> *mut c_char;
    pub(crate) fn ute_stream_wait(device: u32, id: i64, event: *const c_void) -> *mut c_char;
    pub(crate) fn ute_event_free(event: *mut c_void);
    pub(crate) fn ute_pin(tensor: RawTensor, out: *mut RawTensor) -> *mut c_char;
    pub(crate) fn ute_copy_queued(to: RawTensor, from: RawTensor) -> *mut c_char;
    pub(crate) fn ute_peak_memory(device: u32, bytes: *mut u64) -> *mut c_char;
    pub(crate) fn ute_release_memory() -> *mut c_char;
    pub(crate) fn ute_graph_pool(pool: *mut u64) -> *mut c_char;
    pub(crate) fn ute_graph_begin(pool: *const u64, graph: *mut *mut c_void) -> *mut c_char;
    pub(crate) fn ute_graph_end(graph: *mut c_void) -> *mut c_char;
    pub(crate) fn ute_graph_replay(graph: *mut c_void) -> *mut c_char;
    pub(crate) fn ute_graph_free(graph: *mut c_void);
}

/// The pointer that tch holds. It is valid as long as `tensor` lives.
pub(crate) fn raw(tensor: &tch::Tensor) -> RawTensor {
    tensor.as_ptr().cast_mut().cast()
}
