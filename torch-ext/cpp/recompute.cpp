// A part of the graph whose inner results are not kept but computed again in the backward pass (Chen et al. 2016, arXiv 1604.06174), as
// PyTorch's reentrant `checkpoint` does it. Random numbers come out the same: the generators go back to where they were.
// As in shim.cpp every function gives null, or what went wrong as text.

#include <optional>
#include <vector>

#include <ATen/Context.h>
#include <ATen/Tensor.h>
#include <ATen/core/Generator.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include "guarded.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Computes one tensor from some; null says that it could not.
using Run = at::Tensor* (*)(void* context, at::Tensor* const* inputs, size_t count);
using Drop = void (*)(void* context);

// The caller's function, which lives as long as the graph.
struct Closure : torch::CustomClassHolder {
  Closure(Run run, Drop drop, void* context) : run(run), drop(drop), context(context) {}
  ~Closure() override { drop(context); }

  Tensor call(const variable_list& inputs) const {
    std::vector<Tensor> copies(inputs);
    std::vector<Tensor*> pointers;
    for (Tensor& input : copies) pointers.push_back(&input);
    std::unique_ptr<Tensor> output(run(context, pointers.data(), pointers.size()));
    TORCH_CHECK(output != nullptr, "what is computed again has panicked");
    return *output;
  }

  Run run;
  Drop drop;
  void* context;
};

// Where the generators stand that `tensor`'s device uses: its own and the CPU's, from which keys of dropout are drawn.
struct Generators {
  std::vector<at::Generator> all;

  explicit Generators(const Tensor& tensor) {
    all.push_back(at::globalContext().defaultGenerator(at::Device(at::kCPU)));
    if (!tensor.device().is_cpu()) all.push_back(at::globalContext().defaultGenerator(tensor.device()));
  }

  std::vector<Tensor> states() {
    std::vector<Tensor> states;
    for (at::Generator& generator : all) {
      std::lock_guard<std::mutex> lock(generator.mutex());
      states.push_back(generator.get_state());
    }
    return states;
  }

  void set(const std::vector<Tensor>& states) {
    for (size_t place = 0; place < all.size(); ++place) {
      std::lock_guard<std::mutex> lock(all[place].mutex());
      all[place].set_state(states[place]);
    }
  }
};

// Puts the generators back where they are, however the scope is left.
struct Rewound {
  Rewound(Generators generators, const std::vector<Tensor>& states) : generators(std::move(generators)), now(this->generators.states()) {
    this->generators.set(states);
  }
  ~Rewound() { generators.set(now); }

  Generators generators;
  std::vector<Tensor> now;
};

struct Recompute : torch::autograd::Function<Recompute> {
  static Tensor forward(AutogradContext* context, at::TensorList inputs, c10::intrusive_ptr<Closure> closure) {
    context->saved_data["states"] = Generators(inputs[0]).states();
    context->saved_data["closure"] = c10::IValue::make_capsule(closure);
    context->save_for_backward(inputs.vec());
    return closure->call(inputs.vec());
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    variable_list inputs = context->get_saved_variables(), result(inputs.size() + 1);
    if (!gradients[0].defined()) return result;
    for (Tensor& input : inputs) input = input.detach().set_requires_grad(input.requires_grad());
    auto closure = c10::static_intrusive_pointer_cast<Closure>(context->saved_data["closure"].toCapsule());
    Tensor output;
    {
      Rewound rewound(Generators(inputs[0]), context->saved_data["states"].toTensorVector());
      at::AutoGradMode with_gradients(true);
      output = closure->call(inputs);
    }
    torch::autograd::backward({output}, {gradients[0]});
    for (size_t place = 0; place < inputs.size(); ++place) result[place] = inputs[place].grad();
    return result;
  }
};

}  // namespace

extern "C" {

// Takes `context` in any case: `drop` frees it.
char* ute_recompute(at::Tensor* const* inputs, size_t count, Run run, Drop drop, void* context, at::Tensor** out) {
  return guarded([&] {
    auto closure = c10::make_intrusive<Closure>(run, drop, context);
    std::vector<Tensor> tensors;
    for (size_t place = 0; place < count; ++place) tensors.push_back(*inputs[place]);
    *out = new Tensor(Recompute::apply(at::TensorList(tensors), closure));
  });
}
}
