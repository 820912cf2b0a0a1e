#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backends/ring/selector.h"
#include "backends/ring/sharding.h"

namespace contexture {

/// The algorithms on a small example of random numbers: what `contexture ring demo` tells.
struct RingDemo {
  int ranks = 4;
  size_t tokens = 64, heads = 4, kv_heads = 2, head_dim = 32;
  size_t decode_steps = 4;
  uint32_t seed = 1;
};

struct RingDemoResult {
  /// One way of passing: the largest distance from float64, and what each rank sent.
  struct Passed {
    double max_error = 0;
    std::vector<uint64_t> bytes_sent;  // (ranks)
  };
  struct DecodeStep {
    int owner = 0;
    std::vector<size_t> held;  // tokens, (ranks)
    double max_error = 0;
  };
  std::vector<OwnedRun> shards;
  Passed pass_kv, pass_q;
  bool same_bits = false;
  std::vector<DecodeStep> decode;
};

/// Runs it over ranks in threads, one head group's real attention; f32 throughout, held against float64.
RingDemoResult run_ring_demo(const RingDemo& demo);

}  // namespace contexture
