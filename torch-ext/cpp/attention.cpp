// Attention with a learned position bias in one pass over the scores, on the CPU. libtorch's fused kernel gives a bias no gradient, so it
// makes a tensor of scores [B, H, Q, S] for each of some ten steps forward and back. Here the scores of one sample and head live in the
// first caches, and the backward pass computes them again from the logarithms of the rows' sums, as FlashAttention (Dao et al. 2022) does.
//
// As in kernels.cpp this runs on the calling thread and every function gives null, or what went wrong as text.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include <ATen/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "guarded.h"
#include "random.h"

#define EVERY_CPU __attribute__((target_clones("avx512f", "avx2", "default")))

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// exp(x) for x <= 0 to two units in the last place (the polynomial of Cephes' expf); what would be below the smallest normal number is 0.
inline float exp_of(float x) {
  const float low = -87.0f;
  float y = x < low ? low : x;
  float n = std::nearbyint(y * 1.44269504f);
  float r = y - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  union {
    int32_t bits;
    float value;
  } scale;
  scale.bits = (static_cast<int32_t>(n) + 127) << 23;
  return x < low ? 0.0f : p * scale.value;
}

// The sizes and the memory of one call; tensors are [B, L, H * D] in memory.
struct Shape {
  int64_t batch, heads, queries, keys, width;
  int64_t row() const { return heads * width; }
};

// out[j] += sum over d of a[d] * rows[d][j], `count` values of a; rows have the length `length` and follow one another `stride` apart.
inline void add_rows(float* out, const float* a, const float* rows, int64_t count, int64_t length, int64_t stride) {
  int64_t d = 0;
  for (; d + 4 <= count; d += 4) {
    const float a0 = a[d], a1 = a[d + 1], a2 = a[d + 2], a3 = a[d + 3];
    const float *r0 = rows + d * stride, *r1 = r0 + stride, *r2 = r1 + stride, *r3 = r2 + stride;
#pragma omp simd
    for (int64_t j = 0; j < length; ++j) out[j] += a0 * r0[j] + a1 * r1[j] + a2 * r2[j] + a3 * r3[j];
  }
  for (; d < count; ++d) {
    const float a0 = a[d];
    const float* r0 = rows + d * stride;
#pragma omp simd
    for (int64_t j = 0; j < length; ++j) out[j] += a0 * r0[j];
  }
}

// rows[j][d] += a[j] * x[d] for `count` rows.
inline void add_outer(float* rows, const float* a, const float* x, int64_t count, int64_t length, int64_t stride) {
  for (int64_t j = 0; j < count; ++j) {
    const float a0 = a[j];
    float* row = rows + j * stride;
#pragma omp simd
    for (int64_t d = 0; d < length; ++d) row[d] += a0 * x[d];
  }
}

inline void transpose(const float* from, float* to, int64_t rows, int64_t columns, int64_t stride) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) to[c * rows + r] = from[r * stride + c];
  }
}

// The scores of one query: bias plus products with all keys, which are given transposed.
inline void scores_of(float* scores, const float* query, const float* keys, const float* position, const float* padding, int64_t count,
                      int64_t width) {
  const float low = std::numeric_limits<float>::lowest();
  if (position != nullptr && padding != nullptr) {
#pragma omp simd
    for (int64_t j = 0; j < count; ++j) scores[j] = position[j] + padding[j] < low ? low : position[j] + padding[j];
  } else if (position != nullptr) {
    std::copy(position, position + count, scores);
  } else if (padding != nullptr) {
    std::copy(padding, padding + count, scores);
  } else {
    std::fill(scores, scores + count, 0.0f);
  }
  add_rows(scores, query, keys, width, count, count);
}

// Dropout of a row of weights, as kernels.cpp does it: a counter is hashed with the key of this sample and head.
inline void drop_row(float* row, int64_t count, uint32_t first, uint64_t key, uint32_t threshold, float scale) {
  const uint32_t low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
#pragma omp simd
  for (int64_t j = 0; j < count; ++j) {
    row[j] = random_bits(first + static_cast<uint32_t>(j), low, high) >= threshold ? row[j] * scale : 0.0f;
  }
}

EVERY_CPU void forward_head(const Shape& shape, const float* q, const float* k, const float* v, const float* position,
                            const float* padding, float* out, float* sums, const Draw* draw, uint64_t key, float* room) {
  const int64_t S = shape.keys, D = shape.width, stride = shape.row();
  float *keys = room, *row = keys + S * D;
  transpose(k, keys, S, D, stride);
  for (int64_t i = 0; i < shape.queries; ++i) {
    scores_of(row, q + i * stride, keys, position == nullptr ? nullptr : position + i * S, padding, S, D);
    float highest = row[0];
#pragma omp simd reduction(max : highest)
    for (int64_t j = 0; j < S; ++j) highest = row[j] > highest ? row[j] : highest;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < S; ++j) {
      row[j] = exp_of(row[j] - highest);
      sum += row[j];
    }
    const float inverse = 1.0f / sum;
#pragma omp simd
    for (int64_t j = 0; j < S; ++j) row[j] *= inverse;
    sums[2 * i] = highest;
    sums[2 * i + 1] = inverse;
    if (draw != nullptr) drop_row(row, S, static_cast<uint32_t>(i * S), key, draw->threshold, draw->scale);
    float* target = out + i * stride;
    std::fill(target, target + D, 0.0f);
    add_rows(target, row, v, S, D, stride);
  }
}

EVERY_CPU void backward_head(const Shape& shape, const float* q, const float* k, const float* v, const float* position,
                             const float* padding, const float* sums, const float* gradient, float* to_q, float* to_k, float* to_v,
                             float* to_position, const Draw* draw, uint64_t key, float* room) {
  const int64_t S = shape.keys, D = shape.width, stride = shape.row();
  float *keys = room, *values = keys + S * D, *row = values + S * D, *dropped = row + S, *slope = dropped + S;
  transpose(k, keys, S, D, stride);
  transpose(v, values, S, D, stride);
  for (int64_t i = 0; i < shape.queries; ++i) {
    const float *query = q + i * stride, *coming = gradient + i * stride;
    scores_of(row, query, keys, position == nullptr ? nullptr : position + i * S, padding, S, D);
    const float highest = sums[2 * i], inverse = sums[2 * i + 1];
#pragma omp simd
    for (int64_t j = 0; j < S; ++j) row[j] = exp_of(row[j] - highest) * inverse;
    std::fill(slope, slope + S, 0.0f);
    add_rows(slope, coming, values, D, S, S);
    std::copy(row, row + S, dropped);
    if (draw != nullptr) {
      drop_row(dropped, S, static_cast<uint32_t>(i * S), key, draw->threshold, draw->scale);
      drop_row(slope, S, static_cast<uint32_t>(i * S), key, draw->threshold, draw->scale);
    }
    add_outer(to_v, dropped, coming, S, D, stride);
    float mean = 0;
#pragma omp simd reduction(+ : mean)
    for (int64_t j = 0; j < S; ++j) mean += row[j] * slope[j];
#pragma omp simd
    for (int64_t j = 0; j < S; ++j) row[j] *= slope[j] - mean;
    if (to_position != nullptr) {
      float* target = to_position + i * S;
#pragma omp simd
      for (int64_t j = 0; j < S; ++j) target[j] += row[j];
    }
    float* target = to_q + i * stride;
    std::fill(target, target + D, 0.0f);
    add_rows(target, row, k, S, D, stride);
    add_outer(to_k, row, query, S, D, stride);
  }
}

// The tensors of a call, [B, L, H, D] in memory; undefined where there is no bias.
struct Attention : torch::autograd::Function<Attention> {
  static Tensor forward(AutogradContext* context, const Tensor& q, const Tensor& k, const Tensor& v,
                        const std::optional<Tensor>& places, const std::optional<Tensor>& hidden, int64_t heads, double p, int64_t key) {
    const Tensor position = places.value_or(Tensor()), padding = hidden.value_or(Tensor());
    const Shape shape{q.size(0), heads, q.size(1), k.size(1), q.size(2) / heads};
    Tensor out = at::empty_like(q), sums = at::empty({shape.batch, heads, shape.queries, 2}, q.options());
    const Draw draw(static_cast<uint64_t>(key), p);
    std::vector<float> room(static_cast<size_t>(shape.keys * (shape.width + 1)));
    for (int64_t b = 0; b < shape.batch; ++b) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t queries = b * shape.queries * shape.row() + h * shape.width, keys = b * shape.keys * shape.row() + h * shape.width;
        const uint64_t own = key_of_block(draw.key, static_cast<uint64_t>(b * heads + h));
        forward_head(shape, q.const_data_ptr<float>() + queries, k.const_data_ptr<float>() + keys, v.const_data_ptr<float>() + keys,
                     at(position, h * shape.queries * shape.keys), at(padding, b * shape.keys), out.mutable_data_ptr<float>() + queries,
                     sums.mutable_data_ptr<float>() + (b * heads + h) * shape.queries * 2, p > 0 ? &draw : nullptr, own, room.data());
      }
    }
    context->save_for_backward({q, k, v, position, padding, sums});
    context->saved_data["heads"] = heads;
    context->saved_data["p"] = p;
    context->saved_data["key"] = key;
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list saved = context->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2], &position = saved[3], &padding = saved[4], &sums = saved[5];
    const int64_t heads = context->saved_data["heads"].toInt();
    const double p = context->saved_data["p"].toDouble();
    const Draw draw(static_cast<uint64_t>(context->saved_data["key"].toInt()), p);
    const Shape shape{q.size(0), heads, q.size(1), k.size(1), q.size(2) / heads};
    Tensor gradient = gradients[0].contiguous();
    Tensor to_q = at::empty_like(q), to_k = at::zeros_like(k), to_v = at::zeros_like(v), to_position;
    if (position.defined() && context->needs_input_grad(3)) to_position = at::zeros_like(position);
    std::vector<float> room(static_cast<size_t>(shape.keys * (2 * shape.width + 3)));
    // A head at a time, so that its part of the bias stays in the caches.
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t b = 0; b < shape.batch; ++b) {
        const int64_t queries = b * shape.queries * shape.row() + h * shape.width, keys = b * shape.keys * shape.row() + h * shape.width;
        const int64_t places = h * shape.queries * shape.keys;
        const uint64_t own = key_of_block(draw.key, static_cast<uint64_t>(b * heads + h));
        backward_head(shape, q.const_data_ptr<float>() + queries, k.const_data_ptr<float>() + keys, v.const_data_ptr<float>() + keys,
                      at(position, places), at(padding, b * shape.keys),
                      sums.const_data_ptr<float>() + (b * heads + h) * shape.queries * 2, gradient.const_data_ptr<float>() + queries,
                      to_q.mutable_data_ptr<float>() + queries, to_k.mutable_data_ptr<float>() + keys,
                      to_v.mutable_data_ptr<float>() + keys,
                      to_position.defined() ? to_position.mutable_data_ptr<float>() + places : nullptr, p > 0 ? &draw : nullptr, own,
                      room.data());
      }
    }
    return {to_q, to_k, to_v, to_position, Tensor(), Tensor(), Tensor(), Tensor()};
  }

  static const float* at(const Tensor& bias, int64_t offset) {
    return bias.defined() ? bias.const_data_ptr<float>() + offset : nullptr;
  }
};

bool plain(const Tensor& x) { return x.device().is_cpu() && x.scalar_type() == at::kFloat && x.is_contiguous(); }

std::optional<Tensor> some(const Tensor& x) { return x.defined() ? std::optional<Tensor>(x) : std::nullopt; }

}  // namespace

extern "C" {

// Gives null in `out` where the tensors are of a kind or a place that is for libtorch.
char* ute_attention(const at::Tensor* q, const at::Tensor* k, const at::Tensor* v, const at::Tensor* position,
                    const at::Tensor* padding, int64_t heads, double p, at::Tensor** out) {
  return guarded([&] {
    *out = nullptr;
    if (!plain(*q) || !plain(*k) || !plain(*v) || q->dim() != 3 || k->dim() != 3 || heads < 1 || q->size(2) % heads != 0) return;
    if (k->sizes() != v->sizes() || k->size(0) != q->size(0) || k->size(2) != q->size(2) || k->size(1) == 0) return;
    const Tensor places = position == nullptr ? Tensor() : position->contiguous();
    const Tensor hidden = padding == nullptr ? Tensor() : padding->contiguous();
    if (places.defined() && (!plain(places) || places.numel() != heads * q->size(1) * k->size(1))) return;
    if (hidden.defined() && (!plain(hidden) || hidden.numel() != k->size(0) * k->size(1))) return;
    *out = new at::Tensor(Attention::apply(*q, *k, *v, some(places), some(hidden), heads, p, p > 0 ? random_key() : 0));
  });
}
}
