// Operations that libtorch makes of many passes over memory on the CPU, each in one, with their gradients. As in shim.cpp every
// function gives null, or what went wrong as text to be freed with `ute_free`; results are new tensors for the caller to own.
//
// They run on the calling thread: trainers have one process a slot and few threads each, and these passes are short.

#include <cmath>
#include <cstdint>
#include <mutex>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "guarded.h"

// One version for each generation of processors, chosen at run time.
#define EVERY_CPU __attribute__((target_clones("avx512f", "avx2", "default")))

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Numbers are drawn in blocks of this size, each with a key of its own, so that 32 bits count within one.
constexpr int64_t kBlock = 1 << 20;

struct Draw {
  uint64_t key;
  uint32_t threshold;
  float scale;

  Draw(uint64_t key, double p)
      : key(key), threshold(static_cast<uint32_t>(p * 4294967296.0)), scale(static_cast<float>(1.0 / (1.0 - p))) {}
};

uint64_t key_of_block(uint64_t key, uint64_t block) {
  uint64_t z = key + (block + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// A counter goes in and a number with 32 random bits comes out: the finalizer of MurmurHash3 over a keyed Weyl sequence. Unlike a
// generator with a state it can be computed for many places at once, and again in the backward pass in place of a stored mask.
inline uint32_t bits(uint32_t place, uint32_t low, uint32_t high) {
  uint32_t h = place * 0x9E3779B9u + low;
  h ^= h >> 16;
  h *= 0x85EBCA6Bu;
  h ^= high;
  h ^= h >> 13;
  h *= 0xC2B2AE35u;
  h ^= h >> 16;
  return h;
}

EVERY_CPU void drop_block(const float* x, const float* residual, float* out, uint32_t count, uint64_t key, uint32_t threshold,
                          float scale) {
  const uint32_t low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
  if (residual == nullptr) {
#pragma omp simd
    for (uint32_t i = 0; i < count; ++i) out[i] = bits(i, low, high) >= threshold ? x[i] * scale : 0.0f;
  } else {
#pragma omp simd
    for (uint32_t i = 0; i < count; ++i) out[i] = residual[i] + (bits(i, low, high) >= threshold ? x[i] * scale : 0.0f);
  }
}

Tensor drop(const Tensor& x, const Tensor& residual, const Draw& draw) {
  Tensor from = x.contiguous(), base = residual.defined() ? residual.contiguous() : residual;
  Tensor out = at::empty_like(from);
  const float *source = from.const_data_ptr<float>(), *added = base.defined() ? base.const_data_ptr<float>() : nullptr;
  float* target = out.mutable_data_ptr<float>();
  const int64_t total = from.numel();
  for (int64_t start = 0; start < total; start += kBlock) {
    const auto count = static_cast<uint32_t>(std::min(kBlock, total - start));
    const uint64_t key = key_of_block(draw.key, static_cast<uint64_t>(start / kBlock));
    drop_block(source + start, added == nullptr ? nullptr : added + start, target + start, count, key, draw.threshold, draw.scale);
  }
  return out;
}

// The key lies in two halves because a saved integer is signed.
struct Dropout : torch::autograd::Function<Dropout> {
  static Tensor forward(AutogradContext* context, const Tensor& x, double p, int64_t key) {
    context->saved_data["p"] = p;
    context->saved_data["key"] = key;
    return drop(x, Tensor(), Draw(static_cast<uint64_t>(key), p));
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    Draw draw(static_cast<uint64_t>(context->saved_data["key"].toInt()), context->saved_data["p"].toDouble());
    return {drop(gradients[0], Tensor(), draw), Tensor(), Tensor()};
  }
};

struct DropoutAdd : torch::autograd::Function<DropoutAdd> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& residual, double p, int64_t key) {
    context->saved_data["p"] = p;
    context->saved_data["key"] = key;
    return drop(x, residual, Draw(static_cast<uint64_t>(key), p));
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    Draw draw(static_cast<uint64_t>(context->saved_data["key"].toInt()), context->saved_data["p"].toDouble());
    return {drop(gradients[0], Tensor(), draw), gradients[0], Tensor(), Tensor()};
  }
};

int64_t random_key() {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  std::lock_guard<std::mutex> lock(generator.mutex());
  return static_cast<int64_t>(at::check_generator<at::CPUGeneratorImpl>(generator)->random64());
}

EVERY_CPU void norm_rows(const float* x, const float* weight, float* out, float* inverse, int64_t rows, int64_t width,
                         float epsilon) {
  for (int64_t row = 0; row < rows; ++row, x += width, out += width) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) sum += x[i] * x[i];
    const float scale = 1.0f / std::sqrt(sum / static_cast<float>(width) + epsilon);
    inverse[row] = scale;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) out[i] = x[i] * scale * weight[i];
  }
}

EVERY_CPU void norm_rows_backward(const float* gradient, const float* x, const float* weight, const float* inverse, float* to_x,
                                  float* to_weight, int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; ++row, x += width, gradient += width, to_x += width) {
    const float scale = inverse[row];
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < width; ++i) dot += gradient[i] * weight[i] * x[i];
    const float back = dot * scale * scale * scale / static_cast<float>(width);
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      to_x[i] = gradient[i] * weight[i] * scale - x[i] * back;
      to_weight[i] += gradient[i] * x[i] * scale;
    }
  }
}

// y = x / sqrt(mean(x^2) + epsilon) * weight over the last dimension (Zhang and Sennrich 2019).
struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, double epsilon) {
    Tensor from = x.contiguous(), scale = weight.contiguous();
    const int64_t width = scale.numel(), rows = width == 0 ? 0 : from.numel() / width;
    Tensor out = at::empty_like(from), inverse = at::empty({rows}, from.options());
    norm_rows(from.const_data_ptr<float>(), scale.const_data_ptr<float>(), out.mutable_data_ptr<float>(),
              inverse.mutable_data_ptr<float>(), rows, width, static_cast<float>(epsilon));
    context->save_for_backward({from, scale, inverse});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list saved = context->get_saved_variables();
    Tensor gradient = gradients[0].contiguous(), to_x = at::empty_like(saved[0]), to_weight = at::zeros_like(saved[1]);
    const int64_t width = saved[1].numel(), rows = saved[2].numel();
    norm_rows_backward(gradient.const_data_ptr<float>(), saved[0].const_data_ptr<float>(), saved[1].const_data_ptr<float>(),
                       saved[2].const_data_ptr<float>(), to_x.mutable_data_ptr<float>(), to_weight.mutable_data_ptr<float>(), rows,
                       width);
    return {to_x, to_weight, Tensor()};
  }
};

}  // namespace

extern "C" {

// Whether the functions below can be used on a tensor: 32 bits on the CPU.
int ute_fused_fits(const at::Tensor* x) { return x->device().is_cpu() && x->scalar_type() == at::kFloat ? 1 : 0; }

char* ute_dropout(const at::Tensor* x, double p, at::Tensor** out) {
  return guarded([&] { *out = new at::Tensor(Dropout::apply(*x, p, random_key())); });
}

char* ute_dropout_add(const at::Tensor* x, const at::Tensor* residual, double p, at::Tensor** out) {
  return guarded([&] {
    TORCH_CHECK(x->sizes() == residual->sizes(), "dropout_add needs two tensors of one shape");
    *out = new at::Tensor(DropoutAdd::apply(*x, *residual, p, random_key()));
  });
}

char* ute_rms_norm(const at::Tensor* x, const at::Tensor* weight, double epsilon, at::Tensor** out) {
  return guarded([&] {
    TORCH_CHECK(x->dim() > 0 && weight->dim() == 1 && x->size(-1) == weight->size(0), "rms_norm needs one weight a column");
    *out = new at::Tensor(RmsNorm::apply(*x, *weight, epsilon));
  });
}
}
