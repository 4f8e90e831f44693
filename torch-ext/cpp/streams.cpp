// Streams, events, copies that nobody waits for, and CUDA graphs. As in shim.cpp every function gives null, or what went wrong as text.
//
// Streams and events go through the interface that libtorch_cuda registers when it is loaded, so that this file needs no CUDA headers.
// Graphs have no such interface: their functions are found by name in the library, which the CPU half never sees. A name that is not
// there says so at the first use.

#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>

#include <ATen/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "guarded.h"

namespace {

c10::impl::VirtualGuardImpl cuda() { return c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA); }

c10::Device device(uint32_t index) {
  TORCH_CHECK(index < static_cast<uint32_t>(cuda().deviceCount()), "there is no CUDA device ", index);
  return c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
}

c10::Stream stream(uint32_t index, int64_t id) { return c10::Stream(c10::Stream::UNSAFE, device(index), id); }

template <typename F>
F* found(const char* name) {
  void* function = dlsym(RTLD_DEFAULT, name);
  TORCH_CHECK(function != nullptr, "libtorch's CUDA half is not loaded, or has no `", name, "`");
  return reinterpret_cast<F*>(function);
}

// libtorch's at::cuda::CUDAGraph of release 2.11: its functions by their names in the library, and more memory than it has fields.
using Pool = std::pair<unsigned long long, unsigned long long>;

struct Graph {
  static constexpr size_t kBytes = 4096;
  // cudaStreamCaptureModeThreadLocal: other threads may do what must not be recorded, such as copying a checkpoint.
  static constexpr int kMode = 1;

  Graph()
      : begin_(found<void(void*, Pool, int)>("_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode")),
        end_(found<void(void*)>("_ZN2at4cuda9CUDAGraph11capture_endEv")),
        replay_(found<void(void*)>("_ZN2at4cuda9CUDAGraph6replayEv")),
        destroy_(found<void(void*)>("_ZN2at4cuda9CUDAGraphD1Ev")) {
    auto* make = found<void(void*, bool)>("_ZN2at4cuda9CUDAGraphC1Eb");
    memory_ = std::aligned_alloc(64, kBytes);
    TORCH_CHECK(memory_ != nullptr, "there is no memory for a CUDA graph");
    try {
      make(memory_, false);
    } catch (...) {
      std::free(memory_);
      throw;
    }
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() {
    destroy_(memory_);
    std::free(memory_);
  }

  void begin(Pool pool) { begin_(memory_, pool, kMode); }
  void end() { end_(memory_); }
  void replay() { replay_(memory_); }

 private:
  void (*begin_)(void*, Pool, int);
  void (*end_)(void*);
  void (*replay_)(void*);
  void (*destroy_)(void*);
  void* memory_ = nullptr;
};

}  // namespace

extern "C" {

// The handle of CUDA's own (`CUstream`) of the stream in whose order this thread works, and libtorch's number for it.
char* ute_current_stream(uint32_t index, int64_t* id, uint64_t* handle) {
  return guarded([&] {
    c10::Stream current = cuda().getStream(device(index));
    *id = current.id();
    *handle = reinterpret_cast<uint64_t>(current.native_handle());
  });
}

// One of libtorch's streams that do not wait for the default stream.
char* ute_stream_of_pool(uint32_t index, int64_t* id) {
  return guarded([&] { *id = cuda().getStreamFromGlobalPool(device(index), false).id(); });
}

char* ute_stream_exchange(uint32_t index, int64_t id, int64_t* before) {
  return guarded([&] { *before = cuda().exchangeStream(stream(index, id)).id(); });
}

char* ute_stream_synchronize(uint32_t index, int64_t id) {
  return guarded([&] { cuda().synchronizeStream(stream(index, id)); });
}

char* ute_event_record(uint32_t index, int64_t id, c10::Event** event) {
  return guarded([&] {
    auto made = std::make_unique<c10::Event>(c10::DeviceType::CUDA);
    made->record(stream(index, id));
    *event = made.release();
  });
}

char* ute_stream_wait(uint32_t index, int64_t id, const c10::Event* event) {
  return guarded([&] { event->block(stream(index, id)); });
}

void ute_event_free(c10::Event* event) { delete event; }

char* ute_pin(const at::Tensor* tensor, at::Tensor** out) {
  return guarded([&] { *out = new at::Tensor(tensor->pin_memory()); });
}

char* ute_copy_queued(at::Tensor* to, const at::Tensor* from) {
  return guarded([&] {
    at::NoGradGuard without_gradients;
    TORCH_CHECK(to->sizes() == from->sizes() && to->scalar_type() == from->scalar_type(), "copies need tensors of one shape and kind");
    to->copy_(*from, true);
  });
}

// The most memory that libtorch has taken of a GPU, used or kept for later.
char* ute_peak_memory(uint32_t index, uint64_t* bytes) {
  return guarded([&] {
    const c10::DeviceIndex own = device(index).index();
    const auto stats = c10::getDeviceAllocator(c10::DeviceType::CUDA)->getDeviceStats(own);
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    *bytes = static_cast<uint64_t>(stats.reserved_bytes[all].peak);
  });
}

// Gives the GPU back what is kept for later.
char* ute_release_memory() {
  return guarded([] { c10::getDeviceAllocator(c10::DeviceType::CUDA)->emptyCache(); });
}

char* ute_graph_pool(uint64_t pool[2]) {
  return guarded([&] {
    Pool made = found<Pool()>("_ZN2at4cuda17graph_pool_handleEv")();
    pool[0] = made.first;
    pool[1] = made.second;
  });
}

char* ute_graph_begin(const uint64_t pool[2], Graph** graph) {
  return guarded([&] {
    auto made = std::make_unique<Graph>();
    made->begin(Pool(pool[0], pool[1]));
    *graph = made.release();
  });
}

char* ute_graph_end(Graph* graph) {
  return guarded([&] { graph->end(); });
}

char* ute_graph_replay(Graph* graph) {
  return guarded([&] { graph->replay(); });
}

void ute_graph_free(Graph* graph) { delete graph; }
}
