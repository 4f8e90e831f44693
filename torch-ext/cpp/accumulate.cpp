// Layers whose backward pass adds the weights' gradients straight into the memory that the gradients have, as Megatron-LM's
// "gradient accumulation fusion" does. libtorch makes a new tensor of each weight's size, fills it, adds it and frees it: for the
// embedding of a small T5 that is 66 MB three times a step.
//
// Autograd is told that the weight has no gradient here. It still waits for all uses of the weight, so that hooks which run after
// them (see shim.cpp) find the sum complete. The same under autocast to bf16, there also on a GPU. Where the weight has no gradient
// memory yet, or is of another type or place, all is as libtorch does it. As in kernels.cpp every function gives null, or what went wrong as text.

#include <vector>

#include <ATen/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/embedding_dense_backward.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/sum.h>
#include <torch/csrc/autograd/custom_function.h>

#include "guarded.h"
#include "memory.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Whether this pass will have a backward pass in 32 bits on the CPU.
bool learns(const Tensor& weight) {
  return at::GradMode::is_enabled() && plain(weight) && !at::autocast::is_autocast_enabled(at::kCPU);
}

Tensor rows(const Tensor& x) { return x.reshape({-1, x.size(-1)}); }

// y_i = x W_i^T for weights that read the same x, whose gradient then is one sum. libtorch sees a tensor only where it is an
// argument of its own.
struct Linears : torch::autograd::Function<Linears> {
  template <typename... Weights>
  static variable_list forward(AutogradContext* context, const Tensor& x, const Weights&... weights) {
    context->save_for_backward({x, weights...});
    return {at::linear(x, weights)...};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list saved = context->get_saved_variables(), result(saved.size());
    const Tensor& x = saved[0];
    Tensor input = rows(x), to_x;
    for (size_t place = 0; place < gradients.size(); ++place) {
      if (!gradients[place].defined()) continue;
      Tensor gradient = rows(gradients[place]);
      const Tensor& weight = saved[place + 1];
      if (context->needs_input_grad(0)) {
        if (to_x.defined()) {
          to_x.addmm_(gradient, weight);
        } else {
          to_x = gradient.mm(weight);
        }
      }
      if (context->needs_input_grad(place + 1)) {
        Tensor memory = memory_of(weight);
        if (memory.defined()) {
          memory.addmm_(gradient.t(), input);
        } else {
          result[place + 1] = gradient.t().mm(input);
        }
      }
    }
    if (to_x.defined()) result[0] = to_x.view(x.sizes());
    return result;
  }
};

// Whether this pass will have a backward pass, and products are made in bf16 of numbers in 32 bits.
bool mixes(const Tensor& x, const Tensor& weight) {
  const at::DeviceType device = x.device().type();
  return at::GradMode::is_enabled() && (x.is_cpu() || x.is_cuda()) && weight.device() == x.device() && weight.scalar_type() == at::kFloat &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) && at::autocast::is_autocast_enabled(device) &&
         at::autocast::get_autocast_dtype(device) == at::kBFloat16;
}

// As Linears under autocast: x is rounded once for all weights. libtorch would round each weight's gradient to bf16, widen it into new
// memory and add that; on a GPU the product itself adds in 32 bits.
struct Mixed : torch::autograd::Function<Mixed> {
  template <typename... Weights>
  static variable_list forward(AutogradContext* context, const Tensor& x, const Weights&... weights) {
    Tensor input = x.to(at::kBFloat16);
    const variable_list rounded{weights.to(at::kBFloat16)...};
    variable_list saved{input, weights...}, outputs;
    saved.insert(saved.end(), rounded.begin(), rounded.end());
    context->save_for_backward(saved);
    for (const Tensor& weight : rounded) outputs.push_back(at::linear(input, weight));
    return outputs;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const size_t count = gradients.size();
    variable_list saved = context->get_saved_variables(), result(count + 1);
    const Tensor& x = saved[0];
    Tensor input = rows(x), to_x;
    for (size_t place = 0; place < count; ++place) {
      if (!gradients[place].defined()) continue;
      Tensor gradient = rows(gradients[place]).to(at::kBFloat16);
      const Tensor &weight = saved[place + 1], &rounded = saved[place + 1 + count];
      if (context->needs_input_grad(0)) {
        if (to_x.defined()) {
          to_x.addmm_(gradient, rounded);
        } else {
          to_x = gradient.mm(rounded);
        }
      }
      if (context->needs_input_grad(place + 1)) {
        Tensor memory = memory_of(weight);
        if (!memory.defined()) {
          result[place + 1] = gradient.t().mm(input).to(at::kFloat);
        } else if (memory.is_cuda()) {
          at::addmm_out(memory, memory, gradient.t(), input, at::kFloat);
        } else {
          memory.add_(gradient.t().mm(input));
        }
      }
    }
    if (to_x.defined()) result[0] = to_x.view(x.sizes());
    return result;
  }
};

struct Embedding : torch::autograd::Function<Embedding> {
  static Tensor forward(AutogradContext* context, const Tensor& weight, const Tensor& ids) {
    context->save_for_backward({weight, ids});
    return at::embedding(weight, ids);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list saved = context->get_saved_variables();
    const Tensor &weight = saved[0], ids = saved[1].contiguous();
    if (!gradients[0].defined()) return {Tensor(), Tensor()};
    Tensor memory = memory_of(weight), gradient = rows(gradients[0].contiguous());
    if (!memory.defined()) return {at::embedding_dense_backward(gradients[0], ids, weight.size(0), -1, false), Tensor()};
    const int64_t width = weight.size(1), count = ids.numel();
    const int64_t* row = ids.const_data_ptr<int64_t>();
    const float* from = gradient.const_data_ptr<float>();
    float* sums = memory.mutable_data_ptr<float>();
    for (int64_t place = 0; place < count; ++place, from += width) {
      float* sum = sums + row[place] * width;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) sum[i] += from[i];
    }
    return {Tensor(), Tensor()};
  }
};

// Gives `whole`, which was made of `part [1, ..]` for every sample of a batch. Its gradient is summed over the samples at once: of a bias that
// all blocks of a stack share, libtorch would add up whole ones, block by block.
struct Shared : torch::autograd::Function<Shared> {
  static Tensor forward(AutogradContext*, const Tensor&, const Tensor& whole) { return whole.detach(); }

  static variable_list backward(AutogradContext*, variable_list gradients) {
    const Tensor& whole = gradients[0];
    if (!whole.defined()) return {Tensor(), Tensor()};
    return {whole.size(0) == 1 ? whole.to(at::kFloat) : whole.sum(at::IntArrayRef({0}), true, at::kFloat), Tensor()};
  }
};

}  // namespace

extern "C" {

char* ute_shared(const at::Tensor* part, const at::Tensor* whole, at::Tensor** out) {
  return guarded([&] {
    TORCH_CHECK(part->size(0) == 1 && part->sizes().slice(1) == whole->sizes().slice(1), "what samples share has one row");
    *out = new at::Tensor(Shared::apply(*part, *whole));
  });
}

char* ute_linears(const at::Tensor* x, at::Tensor* const* weights, size_t count, at::Tensor** outputs) {
  return guarded([&] {
    variable_list made;
    const bool direct = plain(*x) && count > 0 && learns(*weights[0]), mixed = count > 0 && mixes(*x, *weights[0]);
    if (direct && count == 1) {
      made = Linears::apply(*x, *weights[0]);
    } else if (direct && count == 2) {
      made = Linears::apply(*x, *weights[0], *weights[1]);
    } else if (direct && count == 3) {
      made = Linears::apply(*x, *weights[0], *weights[1], *weights[2]);
    } else if (mixed && count == 1) {
      made = Mixed::apply(*x, *weights[0]);
    } else if (mixed && count == 2) {
      made = Mixed::apply(*x, *weights[0], *weights[1]);
    } else if (mixed && count == 3) {
      made = Mixed::apply(*x, *weights[0], *weights[1], *weights[2]);
    } else {
      for (size_t place = 0; place < count; ++place) made.push_back(at::linear(*x, *weights[place]));
    }
    for (size_t place = 0; place < count; ++place) outputs[place] = new at::Tensor(made[place]);
  });
}

char* ute_embedding(const at::Tensor* weight, const at::Tensor* ids, at::Tensor** out) {
  return guarded([&] {
    bool direct = learns(*weight) && weight->dim() == 2 && ids->scalar_type() == at::kLong;
    *out = new at::Tensor(direct ? Embedding::apply(*weight, *ids) : at::embedding(*weight, *ids));
  });
}
}
