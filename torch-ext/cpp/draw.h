// Random numbers of dropout: a counter that is hashed with a key, so that the backward pass can draw them again.
#pragma once

#include <cstdint>
#include <mutex>

#include <ATen/CPUGeneratorImpl.h>

// One version for each generation of processors, chosen at run time.
#if defined(__x86_64__)
#define EVERY_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EVERY_CPU
#endif

// Numbers are drawn in blocks of this size, each with a key of its own, so that 32 bits count within one.
constexpr int64_t kBlock = 1 << 20;

struct Draw {
  uint64_t key;
  uint32_t threshold;
  float scale;

  Draw(uint64_t key, double p)
      : key(key), threshold(static_cast<uint32_t>(p * 4294967296.0)), scale(static_cast<float>(1.0 / (1.0 - p))) {}

  bool off() const { return threshold == 0; }
};

inline uint64_t key_of_block(uint64_t key, uint64_t block) {
  uint64_t z = key + (block + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// A counter goes in and a number with 32 random bits comes out: the finalizer of MurmurHash3 over a keyed Weyl sequence. Unlike a
// generator with a state it can be computed for many places at once, and again in the backward pass in place of a stored mask.
inline uint32_t bits(uint32_t place, uint32_t low, uint32_t high) {
  uint32_t h = place * 0x9E3779B9u + low;
  h ^= h >> 16;
  h *= 0x85EBCA6Bu;
  h ^= high;
  h ^= h >> 13;
  h *= 0xC2B2AE35u;
  h ^= h >> 16;
  return h;
}

inline int64_t random_key() {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  std::lock_guard<std::mutex> lock(generator.mutex());
  return static_cast<int64_t>(at::check_generator<at::CPUGeneratorImpl>(generator)->random64());
}
