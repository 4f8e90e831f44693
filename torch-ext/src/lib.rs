//! What tch lacks: hooks, fused optimiser, host views of tensors, run-time CUDA.
