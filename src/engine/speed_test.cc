#include "engine/speed_test.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>

#include "backends/ring/sharded_cache.h"
#include "base/error.h"

namespace contexture {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

/// The same few hundred rows over and over: attention's time does not depend on the numbers.
void SpeedTest::fill(SequenceId sequence, size_t depth) {
  Cache& cache = runtime_.cache();
  const CacheShape& shape = cache.shape();
  const ShardedCache* share = runtime_.ring() ? static_cast<const ShardedCache*>(&cache) : nullptr;
  const size_t piece = runtime_.plan().step_tokens, row = shape.kv_heads * shape.head_dim;
  std::normal_distribution<float> normal;
  std::vector<float> k(piece * row), v(piece * row);
  for (float& x : k) x = normal(random_);
  for (float& x : v) x = normal(random_);
  std::vector<Slot> slots;
  for (size_t at = 0; at < depth; at += piece) {
    const size_t count = std::min(piece, depth - at);
    if (!cache.append(sequence, count)) fail("no room for {} tokens of context", depth);
    slots.clear();
    for (size_t i = 0; i < count; ++i) {
      const int64_t position = static_cast<int64_t>(at + i);
      if (share && share->ownership(sequence).owner(position) != share->rank()) continue;
      slots.push_back(cache.slot(sequence, at + i));
    }
    for (size_t layer = 0; layer < shape.layers; ++layer) cache.store(layer, slots, k.data(), v.data());
  }
}

void SpeedTest::step(std::span<const SequenceId> sequences, size_t tokens_each, size_t first_position) {
  StepTokens all;
  std::vector<int32_t> tokens(tokens_each);
  const size_t vocabulary = runtime_.model().config().vocabulary;
  for (const SequenceId sequence : sequences) {
    if (!runtime_.cache().append(sequence, tokens_each)) fail("no room for another token of context");
    for (int32_t& token : tokens) token = static_cast<int32_t>(random_() % vocabulary);
    all.add(sequence, first_position, tokens, tokens_each - 1);
  }
  (void)runtime_.forward(all.step());
}

double SpeedTest::prefill(size_t tokens, size_t depth) {
  const OwnedSequence sequence(runtime_.cache());
  fill(sequence.id(), depth);
  const SequenceId id = sequence.id();
  const size_t chunk = runtime_.plan().step_tokens;
  const auto start = Clock::now();
  for (size_t at = 0; at < tokens; at += chunk) step({&id, 1}, std::min(chunk, tokens - at), depth + at);
  return seconds_since(start);
}

double SpeedTest::decode(size_t tokens, size_t depth, size_t sequences) {
  std::vector<std::unique_ptr<OwnedSequence>> owned;
  std::vector<SequenceId> ids;
  for (size_t i = 0; i < sequences; ++i) {
    owned.push_back(std::make_unique<OwnedSequence>(runtime_.cache()));
    ids.push_back(owned.back()->id());
    fill(ids.back(), depth);
  }
  const auto start = Clock::now();
  for (size_t i = 0; i < tokens; ++i) step(ids, 1, depth + i);
  return seconds_since(start);
}

double bytes_of_decoded_token(Runtime& runtime, size_t depth, size_t sequences) {
  return static_cast<double>(runtime.model().bytes_per_token()) / static_cast<double>(sequences) +
         static_cast<double>(bytes_read(runtime.plan().cache, depth));
}

}  // namespace contexture
