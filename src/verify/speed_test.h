#pragma once

#include <random>
#include <span>
#include <vector>

#include "engine/runtime.h"

namespace contexture {

/// Times an executor's steps at any depth of context. What stands in the context is synthetic: K and V of random
/// numbers, written through the cache as any are, without a prefill.
class SpeedTest {
 public:
  /// `executor` must outlive this, and have room for the sequences and the depths asked for.
  explicit SpeedTest(Executor& executor) : executor_(executor) {}

  /// Seconds to run a prompt of `tokens` behind `depth` tokens, in the largest steps that it takes.
  double prefill(size_t tokens, size_t depth);
  /// Seconds to make `tokens` one after the other in each of `sequences`, together, behind `depth` tokens each.
  double decode(size_t tokens, size_t depth, size_t sequences);

 private:
  void step(std::span<const SequenceId> sequences, size_t tokens_each, size_t first_position);

  Executor& executor_;
  std::mt19937 random_{1};
};

/// Bytes that a decoded token reads where `sequences` go together at a depth: its share of the weights, and its K and
/// V.
double bytes_of_decoded_token(const Transformer& model, const CachePlan& cache, size_t depth, size_t sequences);

}  // namespace contexture
