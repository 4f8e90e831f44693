// Operations that libtorch makes of many passes over memory on the CPU, each in one, with their gradients. As in shim.cpp every
// function gives null, or what went wrong as text to be freed with `ute_free`; results are new tensors for the caller to own.

#include <cstdint>

#include <ATen/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "guarded.h"
#include "memory.h"
#include "rows.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

Tensor drop(const Tensor& x, const Tensor& residual, const Draw& draw) {
  Tensor from = x.contiguous(), base = residual.defined() ? residual.contiguous() : residual;
  Tensor out = at::empty_like(from);
  const float *source = from.const_data_ptr<float>(), *added = base.defined() ? base.const_data_ptr<float>() : nullptr;
  float* target = out.mutable_data_ptr<float>();
  rows::drop(source, added, target, from.numel(), draw);
  return out;
}

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

// y = x / sqrt(mean(x^2) + epsilon) * weight over the last dimension (Zhang and Sennrich 2019).
struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, double epsilon) {
    Tensor from = x.contiguous(), scale = weight.contiguous();
    const int64_t width = scale.numel(), rows = width == 0 ? 0 : from.numel() / width;
    Tensor out = at::empty_like(from), inverse = at::empty({rows}, from.options());
    rows::norm(from.const_data_ptr<float>(), scale.const_data_ptr<float>(), out.mutable_data_ptr<float>(),
              inverse.mutable_data_ptr<float>(), rows, width, static_cast<float>(epsilon));
    context->save_for_backward({from, scale, inverse});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list saved = context->get_saved_variables();
    Tensor gradient = gradients[0].contiguous(), to_x = at::empty_like(saved[0]), to_weight = at::zeros_like(saved[1]);
    const int64_t width = saved[1].numel(), rows = saved[2].numel();
    rows::norm_backward(gradient.const_data_ptr<float>(), saved[0].const_data_ptr<float>(), saved[1].const_data_ptr<float>(),
                        saved[2].const_data_ptr<float>(), nullptr, to_x.mutable_data_ptr<float>(), to_weight.mutable_data_ptr<float>(),
                        rows, width);
    return {to_x, to_weight, Tensor()};
  }
};

}  // namespace

extern "C" {

// Whether the functions below can be used on a tensor: 32 bits on the CPU.
int ute_fused_fits(const at::Tensor* x) { return plain(*x) ? 1 : 0; }

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
