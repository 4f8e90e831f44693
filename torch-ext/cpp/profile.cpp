// Records what libtorch does and when: each operator of the forward and the backward pass, on the thread that ran it. As in shim.cpp every
// function gives null, or what went wrong as text to be freed with `ute_free`.

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <ATen/record_function.h>

#include "guarded.h"

namespace {

uint64_t now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1000000000u + static_cast<uint64_t>(time.tv_nsec);
}

struct Span {
  std::string name;
  uint64_t begin, end;
  int64_t thread;
  bool backward;
};

struct Open : at::ObserverContext {
  uint64_t begin = now();
};

std::mutex lock;
std::vector<Span> spans;
std::atomic<uint64_t> handle{0};

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction&) { return std::make_unique<Open>(); }

void end(const at::RecordFunction& function, at::ObserverContext* context) {
  auto* open = static_cast<Open*>(context);
  thread_local int64_t thread = static_cast<int64_t>(syscall(SYS_gettid));
  Span span{function.name(), open->begin, now(), thread, function.scope() == at::RecordScope::BACKWARD_FUNCTION};
  std::lock_guard<std::mutex> guard(lock);
  spans.push_back(std::move(span));
}

}  // namespace

extern "C" {

// Nanoseconds of the clock that spans are measured with.
uint64_t ute_now() { return now(); }

int64_t ute_thread() { return static_cast<int64_t>(syscall(SYS_gettid)); }

char* ute_profile_begin() {
  return guarded([&] {
    TORCH_CHECK(handle.load() == 0, "a profile is being recorded already");
    std::lock_guard<std::mutex> guard(lock);
    spans.clear();
    auto callback = at::RecordFunctionCallback(begin, end).scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION});
    handle.store(at::addGlobalCallback(callback) + 1);
  });
}

// Ends the recording and hands out each span; the name is valid during the call.
char* ute_profile_end(void (*take)(void* context, const char* name, uint64_t begin, uint64_t end, int64_t thread, int backward),
                      void* context) {
  return guarded([&] {
    uint64_t recorded = handle.exchange(0);
    TORCH_CHECK(recorded != 0, "no profile is being recorded");
    at::removeCallback(recorded - 1);
    std::vector<Span> taken;
    {
      std::lock_guard<std::mutex> guard(lock);
      taken.swap(spans);
    }
    for (const Span& span : taken) take(context, span.name.c_str(), span.begin, span.end, span.thread, span.backward ? 1 : 0);
  });
}
}
