// A C++ exception must not reach Rust: it becomes text, to be freed with `ute_free`.
#pragma once

#include <cstdlib>
#include <cstring>
#include <exception>

inline char* text(const char* what) {
  // libtorch appends a stack trace; the first line says it all.
  const char* end = std::strchr(what, '\n');
  size_t length = end == nullptr ? std::strlen(what) : static_cast<size_t>(end - what);
  char* copy = static_cast<char*>(std::malloc(length + 1));
  std::memcpy(copy, what, length);
  copy[length] = 0;
  return copy;
}

template <typename F>
char* guarded(F action) {
  try {
    action();
    return nullptr;
  } catch (const std::exception& error) {
    return text(error.what());
  } catch (...) {
    return text("an exception of an unknown kind");
  }
}
