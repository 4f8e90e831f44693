// The cross-entropy over a vocabulary as one node: libtorch keeps a second matrix of the scores' size for it and goes over them three
// times more. And the optimiser's step that leaves gradients cleared.
//
// For 32 bits on the CPU and one thread. As in kernels.cpp every function gives null, or what went wrong as text.

#include <cmath>

#include <ATen/Parallel.h>
#include <ATen/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <torch/csrc/autograd/custom_function.h>

#include "guarded.h"
#include "memory.h"
#include "rows.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

struct CrossEntropy : torch::autograd::Function<CrossEntropy> {
  static Tensor forward(AutogradContext* context, const Tensor& scores, const Tensor& targets, int64_t ignored) {
    Tensor logits = scores.contiguous(), wanted = targets.contiguous();
    const int64_t count = logits.size(0), width = logits.size(1);
    Tensor losses = at::empty({count}, logits.options()), scale = at::empty({count}, logits.options());
    rows::cross_entropy(logits.const_data_ptr<float>(), wanted.const_data_ptr<int64_t>(), losses.mutable_data_ptr<float>(),
                        scale.mutable_data_ptr<float>(), count, width, ignored);
    context->saved_data["ignored"] = ignored;
    context->save_for_backward({logits, wanted, scale});
    return losses;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list saved = context->get_saved_variables(), result(3);
    if (!gradients[0].defined()) return result;
    const Tensor &logits = saved[0], &targets = saved[1], &scale = saved[2], gradient = gradients[0].contiguous();
    const int64_t stride = spaced(logits.size(1));
    result[0] = at::empty_strided(logits.sizes(), {stride, 1}, logits.options());
    rows::cross_entropy_backward(logits.const_data_ptr<float>(), targets.const_data_ptr<int64_t>(), scale.const_data_ptr<float>(),
                                 gradient.const_data_ptr<float>(), result[0].mutable_data_ptr<float>(), stride, logits.size(0), logits.size(1),
                                 context->saved_data["ignored"].toInt());
    return result;
  }
};

bool alone(const Tensor& x) { return plain(x) && at::get_num_threads() == 1; }

}  // namespace

extern "C" {

char* ute_cross_entropy(const at::Tensor* logits, const at::Tensor* targets, int64_t ignored, at::Tensor** out) {
  return guarded([&] {
    TORCH_CHECK(logits->dim() == 2 && targets->dim() == 1 && targets->size(0) == logits->size(0) && targets->scalar_type() == at::kLong,
                "the targets of a cross-entropy do not fit its scores");
    const int64_t* wanted = targets->const_data_ptr<int64_t>();
    for (int64_t row = 0; targets->is_contiguous() && row < targets->size(0); ++row) {
      TORCH_CHECK(wanted[row] == ignored || (wanted[row] >= 0 && wanted[row] < logits->size(1)), "target ", wanted[row], " of row ", row,
                  " is none of ", logits->size(1), " classes");
    }
    *out = new at::Tensor(CrossEntropy::apply(*logits, targets->contiguous(), ignored));
  });
}

int ute_cross_entropy_fits(const at::Tensor* logits) {
  return alone(*logits) && !at::autocast::is_autocast_enabled(at::kCPU) ? 1 : 0;
}

// `done` tells whether all tensors were such that it could be done here.
char* ute_adamw_consume(at::Tensor* const* parameters, at::Tensor* const* gradients, at::Tensor* const* averages,
                        at::Tensor* const* squares, size_t count, double step, double learning_rate, double beta1, double beta2,
                        double weight_decay, double epsilon, double divisor, int* done) {
  return guarded([&] {
    *done = 1;
    for (size_t i = 0; i < count; ++i) {
      for (const Tensor* x : {parameters[i], gradients[i], averages[i], squares[i]}) {
        if (!alone(*x) || !x->is_contiguous()) *done = 0;
        TORCH_CHECK(x->numel() == parameters[i]->numel(), "parameters, gradients and moments differ in size");
      }
    }
    if (*done == 0) return;
    const rows::Adam settings{static_cast<float>(1.0 - learning_rate * weight_decay),
                              static_cast<float>(beta1),
                              static_cast<float>(beta2),
                              static_cast<float>(learning_rate / (1.0 - std::pow(beta1, step))),
                              static_cast<float>(std::sqrt(1.0 - std::pow(beta2, step))),
                              static_cast<float>(epsilon),
                              static_cast<float>(divisor)};
    for (size_t i = 0; i < count; ++i) {
      rows::adam(parameters[i]->mutable_data_ptr<float>(), gradients[i]->mutable_data_ptr<float>(), averages[i]->mutable_data_ptr<float>(),
                 squares[i]->mutable_data_ptr<float>(), parameters[i]->numel(), settings);
    }
  });
}
}
