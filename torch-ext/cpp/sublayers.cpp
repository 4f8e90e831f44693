// The two sublayers of a T5 block, each one node of the graph: norm, products, what is between them, and the residual. libtorch needs
// some twenty calls and as many passes over memory for one, and copies heads to and fro; in a small model that takes longer than
// the products. Here heads are read where they lie, weights that lie beside each other are one product, and gradients of weights
// are added in place (see accumulate.cpp).
//
// For 32 bits on the CPU and one thread. As in kernels.cpp every function gives null, or what went wrong as text.

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "guarded.h"
#include "memory.h"
#include "product.h"
#include "rows.h"

using at::Tensor;
using product::In;
using product::Out;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

const float* read(const Tensor& x) { return x.const_data_ptr<float>(); }
float* write(const Tensor& x) { return x.mutable_data_ptr<float>(); }

Draw draw_of(AutogradContext* context, const char* key) {
  return Draw(static_cast<uint64_t>(context->saved_data[key].toInt()), context->saved_data["p"].toDouble());
}

// out = x + dropout(inner weight^T).
void leave(const Tensor& x, const Tensor& inner, const Tensor& weight, const Draw& draw, const Tensor& out) {
  const int64_t width = weight.size(0), wide = weight.size(1), count = x.numel() / width;
  if (draw.off()) std::memcpy(write(out), read(x), sizeof(float) * static_cast<size_t>(x.numel()));
  product::nt(count, width, wide, {read(inner), wide}, {read(weight), wide}, draw.off() ? 1.0f : 0.0f, {write(out), width});
  if (!draw.off()) rows::drop(read(out), read(x), write(out), x.numel(), draw);
}

// The gradient before the last dropout.
Tensor before_drop(const Tensor& gradient, const Draw& draw) {
  if (draw.off()) return gradient;
  Tensor before = at::empty_like(gradient);
  rows::drop(read(gradient), nullptr, write(before), gradient.numel(), draw);
  return before;
}

// Weights of one shape that may lie beside each other in memory, and columns of their results in one matrix. They are values, keys and
// queries in this order: trainers keep parameters in the reverse order of the forward pass.
struct Beside {
  const Tensor* weights;
  int64_t count, outputs, inputs;
  bool together;

  Beside(const Tensor* weights, int64_t count)
      : weights(weights), count(count), outputs(weights[0].size(0)), inputs(weights[0].size(1)), together(true) {
    for (int64_t i = 1; i < count; ++i) together = together && read(weights[i]) == read(weights[i - 1]) + outputs * inputs;
  }

  // to[.., count * outputs] = x[.., inputs] W^T.
  void forward(int64_t rows, const float* x, float* to) const {
    const int64_t stride = count * outputs;
    for (int64_t i = 0; i < (together ? 1 : count); ++i) {
      product::nt(rows, together ? stride : outputs, inputs, {x, inputs}, {read(weights[i]), inputs}, 0.0f, {to + i * outputs, stride});
    }
  }

  // to[.., inputs] = gradient W, for rows of the gradient that are `stride` numbers apart.
  void backward(int64_t rows, const float* gradient, int64_t stride, float* to) const {
    for (int64_t i = 0; i < (together ? 1 : count); ++i) {
      product::nn(rows, inputs, together ? count * outputs : outputs, {gradient + i * outputs, stride}, {read(weights[i]), inputs},
                  i == 0 ? 0.0f : 1.0f, {to, inputs});
    }
  }

  // The weights' gradients += gradient^T x.
  void gradients(int64_t rows, const float* gradient, int64_t stride, const float* x, const Sink* sinks) const {
    bool one = true;
    for (int64_t i = 0; i < count; ++i) {
      one = one && sinks[i].wanted() && (i == 0 || sinks[i].data() == sinks[i - 1].data() + outputs * inputs);
    }
    for (int64_t i = 0; i < (one ? 1 : count); ++i) {
      if (!sinks[i].wanted()) continue;
      product::tn(one ? count * outputs : outputs, inputs, rows, {gradient + i * outputs, stride}, {x, inputs}, 1.0f, {sinks[i].data(), inputs});
    }
  }
};

// y = x + dropout(dropout(relu(norm(x) wi^T)) wo^T).
struct FeedForward : torch::autograd::Function<FeedForward> {
  static Tensor forward(AutogradContext* context, const Tensor& input, const Tensor& norm, const Tensor& wi, const Tensor& wo,
                        double epsilon, double p, int64_t inner_key, int64_t outer_key) {
    context->saved_data["p"] = p;
    context->saved_data["outer"] = outer_key;
    Tensor x = input.contiguous();
    const int64_t width = wi.size(1), wide = wi.size(0), count = x.numel() / width;
    Tensor normed = at::empty_like(x), inverse = at::empty({count}, x.options()), inner = at::empty({count, wide}, x.options());
    rows::norm(read(x), read(norm), write(normed), write(inverse), count, width, static_cast<float>(epsilon));
    product::nt(count, wide, width, {read(normed), width}, {read(wi), width}, 0.0f, {write(inner), wide});
    rows::relu_drop(write(inner), inner.numel(), Draw(static_cast<uint64_t>(inner_key), p));
    Tensor out = at::empty_like(x);
    leave(x, inner, wo, Draw(static_cast<uint64_t>(outer_key), p), out);
    context->save_for_backward({x, norm, wi, wo, inverse, inner});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list saved = context->get_saved_variables(), result(8);
    if (!gradients[0].defined()) return result;
    const Tensor &x = saved[0], &norm = saved[1], &wi = saved[2], &wo = saved[3], &inverse = saved[4], &inner = saved[5];
    const int64_t width = wi.size(1), wide = wi.size(0), count = x.numel() / width;
    const Draw draw = draw_of(context, "outer");
    Tensor gradient = gradients[0].contiguous(), to_out = before_drop(gradient, draw);
    Sink to_norm(norm, context->needs_input_grad(1)), to_wi(wi, context->needs_input_grad(2)), to_wo(wo, context->needs_input_grad(3));
    if (to_wo.wanted()) {
      product::tn(width, wide, count, {read(to_out), width}, {read(inner), wide}, 1.0f, {to_wo.data(), wide});
    }
    if (to_wi.wanted() || to_norm.wanted() || context->needs_input_grad(0)) {
      const int64_t stride = spaced(wide);
      Tensor to_inner = at::empty({count, stride}, x.options()), normed = at::empty_like(x);
      product::nn(count, wide, width, {read(to_out), width}, {read(wo), wide}, 0.0f, {write(to_inner), stride});
      rows::relu_drop_backward(write(to_inner), stride, read(inner), count, wide, draw.scale);
      if (to_wi.wanted()) {
        rows::norm_again(read(x), read(norm), read(inverse), write(normed), count, width);
        product::tn(wide, width, count, {read(to_inner), stride}, {read(normed), width}, 1.0f, {to_wi.data(), width});
      }
      if (to_norm.wanted() || context->needs_input_grad(0)) {
        // What the norm gave is no longer needed: its place takes the gradient.
        product::nn(count, width, wide, {read(to_inner), stride}, {read(wi), width}, 0.0f, {write(normed), width});
        result[0] = at::empty_like(x);
        rows::norm_backward(read(normed), read(x), read(norm), read(inverse), read(gradient), write(result[0]), to_norm.data(), count,
                            width);
      }
    }
    result[1] = to_norm.made;
    result[2] = to_wi.made;
    result[3] = to_wo.made;
    return result;
  }
};

// y = x + dropout(dropout(gelu(n wi_0^T) * n wi_1^T) wo^T) with n = norm(x), as T5 v1.1 has it.
struct GatedFeedForward : torch::autograd::Function<GatedFeedForward> {
  static Tensor forward(AutogradContext* context, const Tensor& input, const Tensor& norm, const Tensor& wi_0, const Tensor& wi_1,
                        const Tensor& wo, double epsilon, double p, int64_t inner_key, int64_t outer_key) {
    context->saved_data["p"] = p;
    context->saved_data["inner"] = inner_key;
    context->saved_data["outer"] = outer_key;
    Tensor x = input.contiguous();
    const int64_t width = wi_0.size(1), wide = wi_0.size(0), count = x.numel() / width;
    Tensor normed = at::empty_like(x), inverse = at::empty({count}, x.options());
    rows::norm(read(x), read(norm), write(normed), write(inverse), count, width, static_cast<float>(epsilon));
    Tensor both = at::empty({count, 2 * wide}, x.options()), inner = at::empty({count, wide}, x.options());
    const Tensor weights[] = {wi_1, wi_0};
    Beside(weights, 2).forward(count, read(normed), write(both));
    rows::gate(read(both), write(inner), count, wide, Draw(static_cast<uint64_t>(inner_key), p));
    Tensor out = at::empty_like(x);
    leave(x, inner, wo, Draw(static_cast<uint64_t>(outer_key), p), out);
    context->save_for_backward({x, norm, wi_0, wi_1, wo, inverse, both});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list saved = context->get_saved_variables(), result(9);
    if (!gradients[0].defined()) return result;
    const Tensor &x = saved[0], &norm = saved[1], &wo = saved[4], &inverse = saved[5], &both = saved[6];
    const Tensor weights[] = {saved[3], saved[2]};
    const int64_t width = weights[0].size(1), wide = weights[0].size(0), count = x.numel() / width;
    const Draw inner_draw = draw_of(context, "inner");
    Tensor gradient = gradients[0].contiguous(), to_out = before_drop(gradient, draw_of(context, "outer"));
    Sink to_norm(norm, context->needs_input_grad(1)), to_wo(wo, context->needs_input_grad(4));
    Sink to_weights[] = {Sink(weights[0], context->needs_input_grad(3)), Sink(weights[1], context->needs_input_grad(2))};
    Tensor inner = at::empty({count, wide}, x.options());
    if (to_wo.wanted()) {
      rows::gate(read(both), write(inner), count, wide, inner_draw);
      product::tn(width, wide, count, {read(to_out), width}, {read(inner), wide}, 1.0f, {to_wo.data(), wide});
    }
    const bool norm_wanted = to_norm.wanted() || context->needs_input_grad(0);
    if (norm_wanted || to_weights[0].wanted() || to_weights[1].wanted()) {
      // What the gate gave is no longer needed: its place takes the gradient.
      product::nn(count, wide, width, {read(to_out), width}, {read(wo), wide}, 0.0f, {write(inner), wide});
      const int64_t stride = spaced(2 * wide);
      Tensor to_both = at::empty({count, stride}, x.options()), normed = at::empty_like(x);
      rows::gate_backward(read(both), read(inner), write(to_both), stride, count, wide, inner_draw);
      const Beside beside(weights, 2);
      if (to_weights[0].wanted() || to_weights[1].wanted()) {
        rows::norm_again(read(x), read(norm), read(inverse), write(normed), count, width);
        beside.gradients(count, read(to_both), stride, read(normed), to_weights);
      }
      if (norm_wanted) {
        beside.backward(count, read(to_both), stride, write(normed));
        result[0] = at::empty_like(x);
        rows::norm_backward(read(normed), read(x), read(norm), read(inverse), read(gradient), write(result[0]), to_norm.data(), count,
                            width);
      }
    }
    result[1] = to_norm.made;
    result[2] = to_weights[1].made;
    result[3] = to_weights[0].made;
    result[4] = to_wo.made;
    return result;
  }
};

// Where each sample's rows begin, and where the last one ends: equally many a sample, or as many as the caller says.
using Starts = std::vector<int64_t>;

Starts starts_of(const int64_t* given, int64_t samples, int64_t each) {
  Starts starts(static_cast<size_t>(samples) + 1);
  for (int64_t b = 0; b <= samples; ++b) starts[static_cast<size_t>(b)] = given == nullptr ? b * each : given[b];
  return starts;
}

// Sizes of an attention, and where its parts lie: queries `[sum of Q, sq]`, keys and values `[sum of S, sk]`, a head's columns beside
// each other. Samples may have as many rows as they like; the bias has those of the longest.
struct Shape {
  int64_t width, heads, head;
  Starts query_starts, key_starts, score_starts;
  int64_t most_queries = 0, most_keys = 0;

  Shape(int64_t width, int64_t heads, int64_t head, Starts queries, Starts keys)
      : width(width), heads(heads), head(head), query_starts(std::move(queries)), key_starts(std::move(keys)) {
    score_starts.reserve(query_starts.size());
    score_starts.push_back(0);
    for (int64_t b = 0; b < samples(); ++b) {
      most_queries = std::max(most_queries, queries_of(b));
      most_keys = std::max(most_keys, keys_of(b));
      score_starts.push_back(score_starts.back() + scores_of(b));
    }
  }

  int64_t samples() const { return static_cast<int64_t>(query_starts.size()) - 1; }
  int64_t queries_of(int64_t b) const { return query_starts[b + 1] - query_starts[b]; }
  int64_t keys_of(int64_t b) const { return key_starts[b + 1] - key_starts[b]; }
  int64_t scores_of(int64_t b) const { return heads * queries_of(b) * keys_of(b); }
  int64_t queries() const { return query_starts.back(); }
  int64_t keys() const { return key_starts.back(); }
  int64_t scores() const { return score_starts.back(); }
  int64_t most_scores() const { return heads * most_queries * most_keys; }
  int64_t inner() const { return heads * head; }
};

struct Projected {
  Tensor own, other;  // Values, keys and queries `[.., 3 I]`, or queries `[.., I]` beside values and keys `[.., 2 I]`.
  int64_t inner;

  Projected(const Shape& shape, bool crossed, const at::TensorOptions& options) : inner(shape.inner()) {
    own = at::empty({shape.queries(), crossed ? inner : 3 * inner}, options);
    if (crossed) other = at::empty({shape.keys(), 2 * inner}, options);
  }
  // For their gradients.
  static Projected of_gradients(const Shape& shape, bool crossed, const at::TensorOptions& options) {
    const int64_t inner = shape.inner();
    Tensor own = at::empty({shape.queries(), spaced(crossed ? inner : 3 * inner)}, options), other;
    if (crossed) other = at::empty({shape.keys(), spaced(2 * inner)}, options);
    return Projected(own, other, inner);
  }
  Projected(const Tensor& own, const Tensor& other, int64_t inner) : own(own), other(other), inner(inner) {}

  bool crossed() const { return other.defined(); }
  Out query(int64_t b, int64_t h, const Shape& s) const { return at(own, crossed() ? 0 : 2, s.query_starts[b], h * s.head); }
  Out key(int64_t b, int64_t h, const Shape& s) const { return at(crossed() ? other : own, 1, s.key_starts[b], h * s.head); }
  Out value(int64_t b, int64_t h, const Shape& s) const { return at(crossed() ? other : own, 0, s.key_starts[b], h * s.head); }

 private:
  Out at(const Tensor& whole, int64_t part, int64_t row, int64_t column) const {
    const int64_t stride = whole.size(1);
    return {write(whole) + row * stride + part * inner + column, stride};
  }
};

Tensor contiguous(const std::optional<Tensor>& x) { return x.has_value() ? x->contiguous() : Tensor(); }

In in(Out matrix) { return {matrix.data, matrix.stride}; }

// y = x + dropout(attention(norm(x)) wo^T), where keys and values come from `memory` if there is one, else from norm(x). Scores are
// not scaled; `bias [1, H, Q, S]` and `padding [B, 1, 1, S]` are added to them. A sample with fewer rows than the longest has the
// bias's first ones.
struct Attend : torch::autograd::Function<Attend> {
  // What may be missing comes last: libtorch numbers only those that are there.
  static Tensor forward(AutogradContext* context, const Tensor& input, const Tensor& norm, const Tensor& wq, const Tensor& wk,
                        const Tensor& wv, const Tensor& wo, const std::optional<Tensor>& source, const std::optional<Tensor>& added,
                        const std::optional<Tensor>& hidden, int64_t heads, double epsilon, double p, int64_t inner_key,
                        int64_t outer_key, const Starts& query_starts, const Starts& key_starts) {
    context->saved_data["queries"] = query_starts;
    context->saved_data["keys"] = key_starts;
    context->saved_data["p"] = p;
    context->saved_data["inner"] = inner_key;
    context->saved_data["outer"] = outer_key;
    context->saved_data["heads"] = heads;
    context->saved_data["bias"] = added.has_value();
    if (added.has_value()) context->saved_data["bias_size"] = added->sizes().vec();
    Tensor x = input.contiguous(), memory = contiguous(source), bias = contiguous(added), padding = contiguous(hidden);
    const Shape shape(x.size(-1), heads, wq.size(0) / heads, query_starts, key_starts);
    const int64_t count = shape.queries(), inner = shape.inner();
    Tensor normed = at::empty_like(x), inverse = at::empty({count}, x.options());
    rows::norm(read(x), read(norm), write(normed), write(inverse), count, shape.width, static_cast<float>(epsilon));
    Projected projected(shape, memory.defined(), x.options());
    const Tensor weights[] = {wv, wk, wq};
    if (memory.defined()) {
      Beside(weights + 2, 1).forward(count, read(normed), write(projected.own));
      Beside(weights, 2).forward(shape.keys(), read(memory), write(projected.other));
    } else {
      Beside(weights, 3).forward(count, read(normed), write(projected.own));
    }

    Tensor shares = at::empty({shape.scores()}, x.options());
    Tensor attended = at::empty({count, inner}, x.options()), dropped;
    if (p > 0) dropped = at::empty({shape.most_scores()}, x.options());
    for (int64_t b = 0; b < shape.samples(); ++b) {
      const int64_t queries = shape.queries_of(b), keys = shape.keys_of(b);
      float* own = write(shares) + shape.score_starts[b];
      for (int64_t h = 0; h < heads; ++h) {
        float* scores = own + h * queries * keys;
        product::nt(queries, keys, shape.head, in(projected.query(b, h, shape)), in(projected.key(b, h, shape)), 0.0f, {scores, keys});
        rows::softmax(scores, bias.defined() ? read(bias) + h * bias.size(2) * bias.size(3) : nullptr, bias.defined() ? bias.size(3) : 0,
                      padding.defined() ? read(padding) + b * keys : nullptr, queries, keys);
      }
      const float* used = own;
      if (p > 0) {
        rows::drop(own, nullptr, write(dropped), shape.scores_of(b), draw_of_sample(static_cast<uint64_t>(inner_key), b, p));
        used = read(dropped);
      }
      for (int64_t h = 0; h < heads; ++h) {
        product::nn(queries, shape.head, keys, {used + h * queries * keys, keys}, in(projected.value(b, h, shape)), 0.0f,
                    {write(attended) + shape.query_starts[b] * inner + h * shape.head, inner});
      }
    }
    Tensor out = at::empty_like(x);
    leave(x, attended, wo, Draw(static_cast<uint64_t>(outer_key), p), out);
    context->save_for_backward({x, memory, norm, wq, wk, wv, wo, inverse, projected.own, projected.other, shares, attended});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list saved = context->get_saved_variables(), result(16);
    if (!gradients[0].defined()) return result;
    const Tensor &x = saved[0], &memory = saved[1], &norm = saved[2], &wo = saved[6], &inverse = saved[7], &shares = saved[10],
                 &attended = saved[11];
    const Tensor weights[] = {saved[5], saved[4], saved[3]};
    const int64_t heads = context->saved_data["heads"].toInt();
    const Shape shape(x.size(-1), heads, weights[0].size(0) / heads, context->saved_data["queries"].toIntVector(),
                      context->saved_data["keys"].toIntVector());
    const Projected projected(saved[8], saved[9], shape.inner());
    const int64_t count = shape.queries(), inner = shape.inner();
    Tensor gradient = gradients[0].contiguous(), to_out = before_drop(gradient, draw_of(context, "outer"));
    Sink to_norm(norm, context->needs_input_grad(1)), to_wo(wo, context->needs_input_grad(5));
    Sink to_weights[] = {Sink(weights[0], context->needs_input_grad(4)), Sink(weights[1], context->needs_input_grad(3)),
                         Sink(weights[2], context->needs_input_grad(2))};
    if (to_wo.wanted()) {
      product::tn(shape.width, inner, count, {read(to_out), shape.width}, {read(attended), inner}, 1.0f, {to_wo.data(), inner});
    }
    Tensor to_attended = at::empty_like(attended);
    product::nn(count, inner, shape.width, {read(to_out), shape.width}, {read(wo), inner}, 0.0f, {write(to_attended), inner});

    const auto to = Projected::of_gradients(shape, projected.crossed(), x.options());
    const bool bias_wanted = context->saved_data["bias"].toBool() && context->needs_input_grad(projected.crossed() ? 7 : 6);
    Tensor to_bias;
    if (bias_wanted) {
      // As large as the bias was: that of the longest sample, or more.
      const std::vector<int64_t> size = context->saved_data["bias_size"].toIntVector();
      to_bias = at::zeros(size, x.options());
    }
    scores_backward(context, shape, projected, shares, to_attended, to, to_bias);

    const bool norm_wanted = to_norm.wanted() || context->needs_input_grad(0);
    Tensor normed = at::empty_like(x);
    rows::norm_again(read(x), read(norm), read(inverse), write(normed), count, shape.width);
    const int64_t first = projected.crossed() ? 2 : 0;
    const Beside of_own(weights + first, 3 - first);
    of_own.gradients(count, read(to.own), to.own.size(1), read(normed), to_weights + first);
    if (projected.crossed()) {
      const Beside of_other(weights, 2);
      of_other.gradients(shape.keys(), read(to.other), to.other.size(1), read(memory), to_weights);
      if (context->needs_input_grad(6)) {
        result[6] = at::empty_like(memory);
        of_other.backward(shape.keys(), read(to.other), to.other.size(1), write(result[6]));
      }
    }
    if (norm_wanted) {
      of_own.backward(count, read(to.own), to.own.size(1), write(normed));
      result[0] = at::empty_like(x);
      rows::norm_backward(read(normed), read(x), read(norm), read(inverse), read(gradient), write(result[0]), to_norm.data(), count,
                          shape.width);
    }
    result[1] = to_norm.made;
    for (int64_t i = 0; i < 3; ++i) result[4 - i] = to_weights[i].made;
    result[5] = to_wo.made;
    result[7] = to_bias;
    return result;
  }

 private:
  static Draw draw_of_sample(uint64_t key, int64_t sample, double p) { return Draw(key_of_block(key, static_cast<uint64_t>(sample)), p); }

  // From the gradient of the weighted values to those of queries, keys, values and the bias.
  static void scores_backward(AutogradContext* context, const Shape& shape, const Projected& projected, const Tensor& shares,
                              const Tensor& to_attended, const Projected& to, const Tensor& to_bias) {
    const double p = context->saved_data["p"].toDouble();
    const auto key = static_cast<uint64_t>(context->saved_data["inner"].toInt());
    const int64_t inner = shape.inner();
    Tensor to_scores = at::empty({shape.most_scores()}, shares.options()), dropped;
    if (p > 0) dropped = at::empty({shape.most_scores()}, shares.options());
    for (int64_t b = 0; b < shape.samples(); ++b) {
      const int64_t queries = shape.queries_of(b), keys = shape.keys_of(b), one = queries * keys;
      const float* own = read(shares) + shape.score_starts[b];
      const float* used = own;
      float* scores = write(to_scores);
      const Draw draw = draw_of_sample(key, b, p);
      if (p > 0) {
        rows::drop(own, nullptr, write(dropped), shape.scores_of(b), draw);
        used = read(dropped);
      }
      for (int64_t h = 0; h < shape.heads; ++h) {
        const In from{read(to_attended) + shape.query_starts[b] * inner + h * shape.head, inner};
        product::nt(queries, keys, shape.head, from, in(projected.value(b, h, shape)), 0.0f, {scores + h * one, keys});
        product::tn(keys, shape.head, queries, {used + h * one, keys}, from, 0.0f, to.value(b, h, shape));
      }
      if (p > 0) rows::drop(scores, nullptr, scores, shape.scores_of(b), draw);
      rows::softmax_backward(scores, own, shape.heads * queries, keys);
      if (to_bias.defined()) {
        for (int64_t h = 0; h < shape.heads; ++h) {
          rows::add(write(to_bias) + h * to_bias.size(2) * to_bias.size(3), to_bias.size(3), scores + h * one, queries, keys);
        }
      }
      for (int64_t h = 0; h < shape.heads; ++h) {
        const In back{scores + h * one, keys};
        product::nn(queries, shape.head, keys, back, in(projected.key(b, h, shape)), 0.0f, to.query(b, h, shape));
        product::tn(keys, shape.head, queries, back, in(projected.query(b, h, shape)), 0.0f, to.key(b, h, shape));
      }
    }
  }
};

std::optional<Tensor> or_none(const at::Tensor* x) { return x == nullptr ? std::nullopt : std::optional<Tensor>(*x); }

}  // namespace

extern "C" {

// Whether the functions below can be used on a tensor: 32 bits on the CPU without autocast, and one thread, because the passes
// between the products know no more.
int ute_sublayers_fit(const at::Tensor* x) {
  return product::available() && plain(*x) && !at::autocast::is_autocast_enabled(at::kCPU) && at::get_num_threads() == 1 ? 1 : 0;
}

char* ute_feed_forward(const at::Tensor* x, const at::Tensor* norm, const at::Tensor* wi, const at::Tensor* wo, double epsilon, double p,
                       at::Tensor** out) {
  return guarded([&] {
    TORCH_CHECK(x->size(-1) == wi->size(1) && norm->numel() == wi->size(1) && wo->size(1) == wi->size(0) && wo->size(0) == wi->size(1) &&
                    norm->is_contiguous() && wi->is_contiguous() && wo->is_contiguous(),
                "the weights of a feed-forward sublayer do not fit");
    const int64_t inner = p > 0 ? random_key() : 0, outer = p > 0 ? random_key() : 0;
    *out = new at::Tensor(FeedForward::apply(*x, *norm, *wi, *wo, epsilon, p, inner, outer));
  });
}

char* ute_gated_feed_forward(const at::Tensor* x, const at::Tensor* norm, const at::Tensor* wi_0, const at::Tensor* wi_1,
                             const at::Tensor* wo, double epsilon, double p, at::Tensor** out) {
  return guarded([&] {
    TORCH_CHECK(x->size(-1) == wi_0->size(1) && wi_0->sizes() == wi_1->sizes() && norm->numel() == wi_0->size(1) &&
                    wo->size(1) == wi_0->size(0) && wo->size(0) == wi_0->size(1) && norm->is_contiguous() && wi_0->is_contiguous() &&
                    wi_1->is_contiguous() && wo->is_contiguous(),
                "the weights of a gated feed-forward sublayer do not fit");
    const int64_t inner = p > 0 ? random_key() : 0, outer = p > 0 ? random_key() : 0;
    *out = new at::Tensor(GatedFeedForward::apply(*x, *norm, *wi_0, *wi_1, *wo, epsilon, p, inner, outer));
  });
}

// `weights` are q, k, v and o; `memory`, `bias` and `padding` may be null. Without starts `x` is `[B, Q, d]` and `memory [B, S, d]`; with
// them both are `[rows, d]`, and the rows of a sample begin at its start, `samples + 1` numbers each.
char* ute_attention(const at::Tensor* x, const at::Tensor* memory, const at::Tensor* norm, at::Tensor* const* weights,
                    const at::Tensor* bias, const at::Tensor* padding, const int64_t* query_starts, const int64_t* key_starts,
                    int64_t samples, int64_t heads, double epsilon, double p, at::Tensor** out) {
  return guarded([&] {
    const Tensor &wq = *weights[0], &wk = *weights[1], &wv = *weights[2], &wo = *weights[3];
    const at::Tensor& source = memory == nullptr ? *x : *memory;
    const bool packed = query_starts != nullptr;
    const int64_t rank = packed ? 2 : 3;
    TORCH_CHECK(x->dim() == rank && x->size(-1) == wq.size(1) && wq.sizes() == wk.sizes() && wq.sizes() == wv.sizes() &&
                    wo.size(0) == wq.size(1) && wo.size(1) == wq.size(0) && wq.size(0) % heads == 0 && norm->numel() == wq.size(1) &&
                    norm->is_contiguous() && wq.is_contiguous() && wk.is_contiguous() && wv.is_contiguous() && wo.is_contiguous(),
                "the weights of an attention sublayer do not fit");
    TORCH_CHECK(source.dim() == rank && source.size(-1) == wk.size(1) && (packed || source.size(0) == x->size(0)),
                "what an attention reads does not fit");
    if (!packed) samples = x->size(0);
    Starts queries = starts_of(query_starts, samples, packed ? 0 : x->size(1));
    Starts keys = starts_of(key_starts, samples, packed ? 0 : source.size(1));
    const auto grow = [](const Starts& starts) { return starts[0] == 0 && std::is_sorted(starts.begin(), starts.end()); };
    TORCH_CHECK(grow(queries) && grow(keys) && queries.back() * x->size(-1) == x->numel() &&
                    keys.back() * source.size(-1) == source.numel(),
                "the rows of an attention's samples do not fit");
    const Shape shape(x->size(-1), heads, wq.size(0) / heads, queries, keys);
    TORCH_CHECK(bias == nullptr || (bias->dim() == 4 && bias->size(0) == 1 && bias->size(1) == heads &&
                                    bias->size(2) >= shape.most_queries && bias->size(3) >= shape.most_keys),
                "the bias of an attention does not fit");
    TORCH_CHECK(padding == nullptr || (!packed && padding->sizes() == at::IntArrayRef({samples, 1, 1, shape.most_keys})),
                "the padding of an attention does not fit");
    const int64_t inner = p > 0 ? random_key() : 0, outer = p > 0 ? random_key() : 0;
    *out = new at::Tensor(Attend::apply(*x, *norm, wq, wk, wv, wo, or_none(memory), or_none(bias), or_none(padding), heads, epsilon, p,
                                        inner, outer, queries, keys));
  });
}
}
