// Passes over rows of numbers that the sublayers are made of.
#pragma once

#include <cmath>
#include <cstdint>

#include "draw.h"

namespace rows {

// out = x / sqrt(mean(x^2) + epsilon) * weight; `inverse` keeps the factor of each row for the backward pass.
void norm(const float* x, const float* weight, float* out, float* inverse, int64_t count, int64_t width, float epsilon);

// The same again from the kept factors.
void norm_again(const float* x, const float* weight, const float* inverse, float* out, int64_t count, int64_t width);

// to_x = through + (gradient of the norm), to_weight += ...; `through` may be null, `to_weight` too.
void norm_backward(const float* gradient, const float* x, const float* weight, const float* inverse, const float* through, float* to_x,
                   float* to_weight, int64_t count, int64_t width);

// x = max(x, 0), then dropout.
void relu_drop(float* x, int64_t count, const Draw& draw);

// gradient = 0 where `kept` is 0, else scaled: the backward pass of `relu_drop`, whose result is `kept`. Rows of `gradient` are `stride`
// numbers apart.
void relu_drop_backward(float* gradient, int64_t stride, const float* kept, int64_t count, int64_t width, float scale);

// out = dropout(gelu(a) * b) for rows `[b, a]` of `both`, each `width` numbers; gelu by its tangent. Numbers are drawn row by row.
void gate(const float* both, float* out, int64_t count, int64_t width, const Draw& draw);

// The gradients of `both` from that of `gate`'s result, in rows that are `stride` numbers apart.
void gate_backward(const float* both, const float* gradient, float* to_both, int64_t stride, int64_t count, int64_t width,
                   const Draw& draw);

// out = residual + dropout(x); without a residual out = dropout(x). Places in `out` count from 0.
void drop(const float* x, const float* residual, float* out, int64_t count, const Draw& draw);

// Each row of `scores` becomes softmax(scores + bias + padding); `bias` has as many rows, `bias_stride` numbers apart, `padding` is one
// row, either may be null.
void softmax(float* scores, const float* bias, int64_t bias_stride, const float* padding, int64_t count, int64_t width);

// gradient = p * (gradient - sum(gradient * p)) for each row, the backward pass of a softmax that gave `p`.
void softmax_backward(float* gradient, const float* p, int64_t count, int64_t width);

// sum += x, for `count` rows of x in rows of sum that are `stride` numbers apart.
void add(float* sum, int64_t stride, const float* x, int64_t count, int64_t width);

// For each row the cross-entropy of its target, 0 where that is `ignored`; `scale` keeps the logarithm of the sum of exponentials.
void cross_entropy(const float* logits, const int64_t* targets, float* losses, float* scale, int64_t count, int64_t width,
                   int64_t ignored);

// to = gradient * (softmax(logits) - one at the target) for each row, `stride` numbers apart.
void cross_entropy_backward(const float* logits, const int64_t* targets, const float* scale, const float* gradient, float* to,
                            int64_t stride, int64_t count, int64_t width, int64_t ignored);

struct Adam {
  float shrink;    // 1 - learning rate * weight decay.
  float beta1, beta2;
  float step;      // Learning rate over the first moment's correction.
  float root;      // Root of the second moment's correction.
  float epsilon, divisor;
};

// One step of AdamW on numbers that lie beside each other; gradients are divided first, and 0 afterwards.
void adam(float* parameters, float* gradients, float* averages, float* squares, int64_t count, const Adam& settings);

}  // namespace rows
