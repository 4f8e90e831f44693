// See rows.h. All run on the calling thread: trainers have one process a slot and few threads each, and these passes are short.

#include "rows.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace rows {
namespace {

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

EVERY_CPU void relu_block(float* x, uint32_t count, uint64_t key, uint32_t threshold, float scale) {
  const uint32_t low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
#pragma omp simd
  for (uint32_t i = 0; i < count; ++i) x[i] = x[i] < 0.0f || bits(i, low, high) < threshold ? 0.0f : x[i] * scale;
}

EVERY_CPU void relu(float* x, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) x[i] = x[i] < 0.0f ? 0.0f : x[i];  // What is not a number stays that.
}

// exp for x <= 0 to within two units in the last place: 2^n times a polynomial of degree 6 on half a binary order (Cephes' expf).
inline float exp_below_zero(float x) {
  x = std::max(x, -87.0f);
  const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the sum's last bits are the rounded product.
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t power;
  std::memcpy(&power, &shifted, sizeof power);
  power = (power + 127) << 23;
  float two;
  std::memcpy(&two, &power, sizeof two);
  return p * two;
}

constexpr float kRootOfTwoOverPi = 0.7978845608f, kCubic = 0.044715f;

// tanh(sqrt(2 / pi) (a + 0.044715 a^3)), Hendrycks and Gimpel 2016, as transformers' `gelu_new`.
inline float gelu_tangent(float a) {
  const float u = kRootOfTwoOverPi * (a + kCubic * a * a * a);
  const float e = exp_below_zero(-2.0f * std::fabs(u)), t = (1.0f - e) / (1.0f + e);
  return u < 0.0f ? -t : t;
}

EVERY_CPU void gate_row(const float* b, const float* a, float* out, uint32_t width, uint64_t key, uint32_t threshold, float scale) {
  const uint32_t low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
#pragma omp simd
  for (uint32_t i = 0; i < width; ++i) {
    const float kept = bits(i, low, high) >= threshold ? scale : 0.0f;
    out[i] = kept * (0.5f * a[i] * (1.0f + gelu_tangent(a[i])) * b[i]);
  }
}

EVERY_CPU void gate_row_backward(const float* b, const float* a, const float* gradient, float* to_b, float* to_a, uint32_t width,
                                 uint64_t key, uint32_t threshold, float scale) {
  const uint32_t low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
#pragma omp simd
  for (uint32_t i = 0; i < width; ++i) {
    const float kept = bits(i, low, high) >= threshold ? scale : 0.0f;
    const float x = a[i], t = gelu_tangent(x), through = kept * gradient[i];
    const float slope = 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * kRootOfTwoOverPi * (1.0f + 3.0f * kCubic * x * x);
    to_b[i] = through * 0.5f * x * (1.0f + t);
    to_a[i] = through * b[i] * slope;
  }
}

constexpr int64_t kTogether = 16;

inline void adam_together(float* parameters, float* gradients, float* averages, float* squares, const Adam& settings) {
  const auto [shrink, beta1, beta2, step, root, epsilon, divisor] = settings;
#pragma omp simd
  for (int64_t i = 0; i < kTogether; ++i) {
    const float gradient = gradients[i] / divisor;
    const float average = averages[i] + (1.0f - beta1) * (gradient - averages[i]);
    const float square = squares[i] * beta2 + (1.0f - beta2) * gradient * gradient;
    parameters[i] = parameters[i] * shrink - step * average / (std::sqrt(square) / root + epsilon);
    averages[i] = average;
    squares[i] = square;
    gradients[i] = 0.0f;
  }
}

}  // namespace

EVERY_CPU void norm(const float* x, const float* weight, float* out, float* inverse, int64_t count, int64_t width, float epsilon) {
  for (int64_t row = 0; row < count; ++row, x += width, out += width) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) sum += x[i] * x[i];
    const float scale = 1.0f / std::sqrt(sum / static_cast<float>(width) + epsilon);
    inverse[row] = scale;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) out[i] = x[i] * scale * weight[i];
  }
}

EVERY_CPU void norm_again(const float* x, const float* weight, const float* inverse, float* out, int64_t count, int64_t width) {
  for (int64_t row = 0; row < count; ++row, x += width, out += width) {
    const float scale = inverse[row];
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) out[i] = x[i] * scale * weight[i];
  }
}

EVERY_CPU void norm_backward(const float* gradient, const float* x, const float* weight, const float* inverse, const float* through,
                             float* to_x, float* to_weight, int64_t count, int64_t width) {
  for (int64_t row = 0; row < count; ++row, x += width, gradient += width, to_x += width) {
    const float scale = inverse[row];
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < width; ++i) dot += gradient[i] * weight[i] * x[i];
    const float back = dot * scale * scale * scale / static_cast<float>(width);
    if (through != nullptr) {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) to_x[i] = through[i] + (gradient[i] * weight[i] * scale - x[i] * back);
      through += width;
    } else {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) to_x[i] = gradient[i] * weight[i] * scale - x[i] * back;
    }
    if (to_weight != nullptr) {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) to_weight[i] += gradient[i] * x[i] * scale;
    }
  }
}

void relu_drop(float* x, int64_t count, const Draw& draw) {
  if (draw.off()) return relu(x, count);
  for (int64_t start = 0; start < count; start += kBlock) {
    const uint64_t key = key_of_block(draw.key, static_cast<uint64_t>(start / kBlock));
    relu_block(x + start, static_cast<uint32_t>(std::min(kBlock, count - start)), key, draw.threshold, draw.scale);
  }
}

EVERY_CPU void relu_drop_backward(float* gradient, int64_t stride, const float* kept, int64_t count, int64_t width, float scale) {
  for (int64_t row = 0; row < count; ++row, gradient += stride, kept += width) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) gradient[i] = kept[i] > 0.0f ? gradient[i] * scale : 0.0f;
  }
}

void gate(const float* both, float* out, int64_t count, int64_t width, const Draw& draw) {
  for (int64_t row = 0; row < count; ++row, both += 2 * width, out += width) {
    const uint64_t key = key_of_block(draw.key, static_cast<uint64_t>(row));
    gate_row(both, both + width, out, static_cast<uint32_t>(width), key, draw.threshold, draw.scale);
  }
}

void gate_backward(const float* both, const float* gradient, float* to_both, int64_t stride, int64_t count, int64_t width,
                   const Draw& draw) {
  for (int64_t row = 0; row < count; ++row, both += 2 * width, gradient += width, to_both += stride) {
    const uint64_t key = key_of_block(draw.key, static_cast<uint64_t>(row));
    gate_row_backward(both, both + width, gradient, to_both, to_both + width, static_cast<uint32_t>(width), key, draw.threshold,
                      draw.scale);
  }
}

void drop(const float* x, const float* residual, float* out, int64_t count, const Draw& draw) {
  for (int64_t start = 0; start < count; start += kBlock) {
    const uint64_t key = key_of_block(draw.key, static_cast<uint64_t>(start / kBlock));
    drop_block(x + start, residual == nullptr ? nullptr : residual + start, out + start,
               static_cast<uint32_t>(std::min(kBlock, count - start)), key, draw.threshold, draw.scale);
  }
}

EVERY_CPU void softmax(float* scores, const float* bias, int64_t bias_stride, const float* padding, int64_t count, int64_t width) {
  for (int64_t row = 0; row < count; ++row, scores += width) {
    float most = -std::numeric_limits<float>::infinity(), sum = 0;
    if (bias != nullptr) {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) scores[i] += bias[i];
      bias += bias_stride;
    }
    if (padding != nullptr) {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) scores[i] += padding[i];
    }
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < width; ++i) most = scores[i] > most ? scores[i] : most;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) {
      scores[i] = scores[i] - most < -87.0f ? 0.0f : exp_below_zero(scores[i] - most);
      sum += scores[i];
    }
    const float share = 1.0f / sum;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) scores[i] *= share;
  }
}

EVERY_CPU void softmax_backward(float* gradient, const float* p, int64_t count, int64_t width) {
  for (int64_t row = 0; row < count; ++row, gradient += width, p += width) {
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < width; ++i) dot += gradient[i] * p[i];
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) gradient[i] = p[i] * (gradient[i] - dot);
  }
}

EVERY_CPU void add(float* sum, int64_t stride, const float* x, int64_t count, int64_t width) {
  for (int64_t row = 0; row < count; ++row, sum += stride, x += width) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) sum[i] += x[i];
  }
}

EVERY_CPU void cross_entropy(const float* logits, const int64_t* targets, float* losses, float* scale, int64_t count, int64_t width,
                             int64_t ignored) {
  for (int64_t row = 0; row < count; ++row, logits += width) {
    if (targets[row] == ignored) {
      losses[row] = scale[row] = 0.0f;
      continue;
    }
    float most = -std::numeric_limits<float>::infinity(), sum = 0;
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < width; ++i) most = logits[i] > most ? logits[i] : most;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) sum += exp_below_zero(logits[i] - most);
    scale[row] = most + std::log(sum);
    losses[row] = scale[row] - logits[targets[row]];
  }
}

EVERY_CPU void cross_entropy_backward(const float* logits, const int64_t* targets, const float* scale, const float* gradient, float* to,
                                      int64_t stride, int64_t count, int64_t width, int64_t ignored) {
  for (int64_t row = 0; row < count; ++row, logits += width, to += stride) {
    if (targets[row] == ignored) {
      std::memset(to, 0, sizeof(float) * static_cast<size_t>(width));
      continue;
    }
    const float factor = gradient[row], lower = scale[row];
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) to[i] = factor * exp_below_zero(logits[i] - lower);
    to[targets[row]] -= factor;
  }
}

EVERY_CPU void adam(float* parameters, float* gradients, float* averages, float* squares, int64_t count, const Adam& settings) {
  int64_t i = 0;
  for (; i + kTogether <= count; i += kTogether) adam_together(parameters + i, gradients + i, averages + i, squares + i, settings);
  const int64_t rest = count - i;
  if (rest == 0) return;
  // The end goes through the same instructions, so that it does not matter how the numbers are cut into calls.
  float some[4][kTogether] = {};
  float* whole[] = {parameters + i, gradients + i, averages + i, squares + i};
  for (int part = 0; part < 4; ++part) std::copy_n(whole[part], rest, some[part]);
  adam_together(some[0], some[1], some[2], some[3], settings);
  for (int part = 0; part < 4; ++part) std::copy_n(some[part], rest, whole[part]);
}

}  // namespace rows
