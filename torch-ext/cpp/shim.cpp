// What tch lacks, as a C interface. Every function gives null, or what went wrong as text to be freed with `ute_free`:
// a C++ exception must not reach Rust.

#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <ATen/Tensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include "guarded.h"

namespace {

std::vector<at::Tensor> list(at::Tensor* const* tensors, size_t count) {
  std::vector<at::Tensor> copies;
  copies.reserve(count);
  for (size_t place = 0; place < count; ++place) copies.push_back(*tensors[place]);
  return copies;
}

using torch::autograd::variable_list;

using Callback = void (*)(void* context, size_t index);

// It runs after the node that accumulates a leaf's gradient, also where the layers have added all of it themselves and the node
// had nothing to do: libtorch's own hook for accumulated gradients is silent then. PyTorch's DDP hooks on in the same place.
struct Hook : torch::autograd::FunctionPostHook {
  Hook(Callback callback, void* context, size_t index) : callback(callback), context(context), index(index) {}
  variable_list operator()(const variable_list& outputs, const variable_list&) override {
    callback(context, index);
    return outputs;
  }
  Callback callback;
  void* context;
  size_t index;
};

// A leaf holds its node weakly, so somebody has to keep it, and with it the hook.
struct Hooked {
  std::shared_ptr<torch::autograd::Node> node;
  uintptr_t key;
};

// libtorch's C++ repeats its warnings at every call; Python's half would tell each once.
struct Once : c10::WarningHandler {
  void process(const c10::Warning& warning) override {
    // Weights lie where the optimiser wants them, and gathering those of a small LSTM is next to nothing.
    if (warning.msg().find("RNN module weights are not part of single contiguous chunk") != std::string::npos) return;
    std::lock_guard<std::mutex> lock(mutex);
    if (told.insert(warning.msg()).second) c10::WarningHandler::process(warning);
  }
  std::mutex mutex;
  std::set<std::string> told;
};

}  // namespace

extern "C" {

void ute_warn_once() {
  static Once handler;
  c10::WarningUtils::set_warning_handler(&handler);
}

void ute_free(char* message) { std::free(message); }

char* ute_fused_adamw(at::Tensor* const* parameters, at::Tensor* const* gradients, at::Tensor* const* averages,
                      at::Tensor* const* squares, at::Tensor* const* steps, size_t count, double learning_rate, double beta1,
                      double beta2, double weight_decay, double epsilon, const at::Tensor* divisor) {
  return guarded([&] {
    at::NoGradGuard without_gradients;
    auto p = list(parameters, count), g = list(gradients, count), m = list(averages, count), v = list(squares, count),
         s = list(steps, count);
    at::_fused_adamw_(p, g, m, v, {}, s, learning_rate, beta1, beta2, weight_decay, epsilon, false, false,
                      divisor == nullptr ? std::nullopt : std::optional<at::Tensor>(*divisor));
  });
}

char* ute_set_gradient(at::Tensor* parameter, at::Tensor* gradient) {
  return guarded([&] { parameter->mutable_grad() = *gradient; });
}

char* ute_set_hook(at::Tensor* leaf, Callback callback, void* context, size_t index, Hooked** hooked) {
  return guarded([&] {
    TORCH_CHECK(leaf->is_leaf() && leaf->requires_grad(), "a hook needs a leaf that requires a gradient");
    auto node = torch::autograd::impl::grad_accumulator(*leaf);
    auto key = node->add_post_hook(std::make_unique<Hook>(callback, context, index));
    *hooked = new Hooked{std::move(node), key};
  });
}

void ute_clear_hook(Hooked* hooked) {
  hooked->node->del_post_hook(hooked->key);
  delete hooked;
}

int ute_autocast_enabled(int cuda) { return at::autocast::is_autocast_enabled(cuda ? at::kCUDA : at::kCPU) ? 1 : 0; }

void ute_autocast_set(int cuda, int enabled) { at::autocast::set_autocast_enabled(cuda ? at::kCUDA : at::kCPU, enabled != 0); }

char* ute_autocast_enter(int cuda, int* dtype_before) {
  return guarded([&] {
    auto device = cuda ? at::kCUDA : at::kCPU;
    *dtype_before = static_cast<int>(at::autocast::get_autocast_dtype(device));
    at::autocast::set_autocast_dtype(device, at::kBFloat16);
    at::autocast::set_autocast_enabled(device, true);
    at::autocast::increment_nesting();
  });
}

char* ute_autocast_leave(int cuda, int before, int dtype_before) {
  return guarded([&] {
    auto device = cuda ? at::kCUDA : at::kCPU;
    // The copies of weights in bf16 live until the outermost scope ends; the optimiser changes the weights after it.
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device, before != 0);
    at::autocast::set_autocast_dtype(device, static_cast<at::ScalarType>(dtype_before));
  });
}
}
