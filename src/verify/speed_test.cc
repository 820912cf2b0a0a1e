#include "verify/speed_test.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include "base/error.h"

namespace contexture {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

void SpeedTest::step(std::span<const SequenceId> sequences, size_t tokens_each, size_t first_position) {
  StepTokens all;
  std::vector<int32_t> tokens(tokens_each);
  const size_t vocabulary = executor_.capacities().vocabulary;
  for (const SequenceId sequence : sequences) {
    if (!executor_.books().append(sequence, tokens_each)) fail("no room for another token of context");
    for (int32_t& token : tokens) token = static_cast<int32_t>(random_() % vocabulary);
    all.add(sequence, first_position, tokens, tokens_each - 1);
  }
  (void)executor_.forward(all.step());
}

double SpeedTest::prefill(size_t tokens, size_t depth) {
  const OwnedSequence sequence(executor_.books());
  executor_.fill(sequence.id(), depth);
  const SequenceId id = sequence.id();
  const size_t chunk = executor_.capacities().step_tokens;
  const auto start = Clock::now();
  for (size_t at = 0; at < tokens; at += chunk) step({&id, 1}, std::min(chunk, tokens - at), depth + at);
  return seconds_since(start);
}

double SpeedTest::decode(size_t tokens, size_t depth, size_t sequences) {
  std::vector<std::unique_ptr<OwnedSequence>> owned;
  std::vector<SequenceId> ids;
  for (size_t i = 0; i < sequences; ++i) {
    owned.push_back(std::make_unique<OwnedSequence>(executor_.books()));
    ids.push_back(owned.back()->id());
    executor_.fill(ids.back(), depth);
  }
  const auto start = Clock::now();
  for (size_t i = 0; i < tokens; ++i) step(ids, 1, depth + i);
  return seconds_since(start);
}

double bytes_of_decoded_token(const Transformer& model, const CachePlan& cache, size_t depth, size_t sequences) {
  return static_cast<double>(model.bytes_per_token()) / static_cast<double>(sequences) +
         static_cast<double>(bytes_read(cache, depth));
}

}  // namespace contexture
