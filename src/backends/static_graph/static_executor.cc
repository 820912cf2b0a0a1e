#include "backends/static_graph/static_executor.h"

#include <algorithm>
#include <cassert>

namespace contexture {
namespace {

size_t step_tokens_of(const StaticRunner& runner) {
  return runner.mode() == GraphMode::prefill ? runner.capacity() : std::max<size_t>(1, runner.shape().prefill_tokens);
}

}  // namespace

StaticExecutor::StaticExecutor(StaticRunner& runner)
    : Executor({.context = runner.capacity(),
                .vocabulary = runner.shape().vocabulary,
                .step_tokens = step_tokens_of(runner),
                .longer = "compile it with a longer --context"}),
      runner_(runner),
      books_(runner) {}

StepResult StaticExecutor::forward(const Step& step) {
  const size_t first = static_cast<size_t>(step.positions[0]);
  assert(first <= runner_.length());
  runner_.truncate(first);
  const std::span<const float> logits =
      runner_.feed(step.tokens, {.on_logits = {}, .on_progress = {}, .cancelled = step.cancelled});
  if (logits.empty()) return {.cancelled = true};
  return {.logits = step.wants_logits.back() ? logits : std::span<const float>()};
}

std::optional<SequenceId> StaticExecutor::RunnerBooks::create(uint64_t) {
  if (used_) return std::nullopt;
  used_ = true;
  length_ = 0;
  return 0;
}

bool StaticExecutor::RunnerBooks::append(SequenceId, size_t tokens) {
  if (tokens > runner_.capacity() - length_) return false;
  length_ += tokens;
  return true;
}

size_t StaticExecutor::RunnerBooks::truncate(SequenceId, size_t length) {
  assert(length <= length_);
  runner_.truncate(std::min(length, runner_.length()));
  return length_ = length;
}

size_t StaticExecutor::RunnerBooks::adopt(SequenceId, std::span<const int32_t> tokens) {
  assert(length_ == 0);
  const std::vector<TokenId>& held = runner_.tokens();
  return length_ = static_cast<size_t>(std::ranges::mismatch(held, tokens).in1 - held.begin());
}

std::optional<int32_t> StaticExecutor::RunnerBooks::next_held(std::span<const int32_t> tokens, uint64_t) const {
  const std::vector<TokenId>& held = runner_.tokens();
  if (held.size() <= tokens.size() || !std::equal(tokens.begin(), tokens.end(), held.begin())) return std::nullopt;
  return held[tokens.size()];
}

}  // namespace contexture
