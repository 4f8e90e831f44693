// The memory that weights' gradients are added to; see accumulate.cpp.
#pragma once

#include <ATen/Tensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

inline bool plain(const at::Tensor& x) { return x.device().is_cpu() && x.scalar_type() == at::kFloat; }

// The memory to add to, or an undefined tensor where there is none.
inline at::Tensor memory_of(const at::Tensor& weight) {
  if (!weight.is_leaf() || !weight.requires_grad()) return at::Tensor();
  const at::Tensor& gradient = weight.grad();
  bool fits = gradient.defined() && gradient.device() == weight.device() && gradient.scalar_type() == at::kFloat &&
              gradient.is_contiguous() && gradient.sizes() == weight.sizes();
  return fits ? gradient : at::Tensor();
}

// How far apart the rows of a matrix of gradients are best. A weight's gradient is a product with its transpose, which goes down the
// columns; where rows are a multiple of 2 KiB apart, a column lies in few cache lines of the same sets, which push each other out.
inline int64_t spaced(int64_t width) { return width >= 1024 && width % 512 == 0 ? width + 16 : width; }

// Where a weight's gradient goes: into its memory, or into a new tensor of zeros that autograd takes; nowhere if it is not asked for.
struct Sink {
  at::Tensor made, into;

  Sink(const at::Tensor& weight, bool wanted) {
    if (!wanted) return;
    into = memory_of(weight);
    if (!into.defined()) into = made = at::zeros_like(weight);
  }

  bool wanted() const { return into.defined(); }
  float* data() const { return into.defined() ? into.mutable_data_ptr<float>() : nullptr; }
};
