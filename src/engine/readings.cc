#include "engine/readings.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "base/error.h"

namespace contexture {

void Reading::finish(FinishReason reason) {
  finished_ = true;
  stopped_ = reason;
}

void Reading::deliver() {
  if (stopped_) {
    if (callbacks_.on_stopped) callbacks_.on_stopped(*stopped_);
  } else if (callbacks_.on_finished) {
    callbacks_.on_finished(result());
  }
}

void Reading::failed(std::exception_ptr error) noexcept {
  finished_ = true;
  if (callbacks_.on_failed) callbacks_.on_failed(std::move(error));
}

Scoring::Scoring(const TextLimits& limits, std::span<const TokenId> text, size_t from, const Callbacks& callbacks)
    : Reading(callbacks), from_(from), vocabulary_(limits.vocabulary) {
  if (text.size() < 2 || from < 1 || from >= text.size()) {
    fail("a text of {} tokens has none from token {} on to be scored after others", text.size(), from);
  }
  check_prompt(limits, text.first(text.size() - 1));
  last_ = text.back();
  check_prompt({.context = 1, .vocabulary = limits.vocabulary}, {&last_, 1});
  tokens_.assign(text.begin(), text.end() - 1);
  log_probabilities_.resize(text.size() - from);
}

size_t Scoring::rows_wanted(size_t first, size_t count) const {
  return std::min(count, first + count - std::min(first + count, from_ - 1));
}

void Scoring::look(const Rows& rows, Candidates& scratch) {
  for (size_t i = 0; i * vocabulary_ < rows.logits.size(); ++i) {
    const size_t next = rows.first + i + 1;
    const TokenId token = next < tokens_.size() ? tokens_[next] : last_;
    const std::span<const float> row = rows.logits.subspan(i * vocabulary_, vocabulary_);
    const double log_sum = scratch.reset(row);
    if (std::isnan(log_sum)) fail_as(ErrorKind::internal, "the logits after token {} are not numbers", next - 1);
    log_probabilities_[next - from_] = static_cast<float>(row[static_cast<size_t>(token)] - log_sum);
  }
}

Embedding::Embedding(const TextLimits& limits, std::span<const TokenId> text, Pooling pooling,
                     const Callbacks& callbacks)
    : Reading(callbacks), pooling_(pooling) {
  check_prompt(limits, text);
  tokens_.assign(text.begin(), text.end());
}

/// Sums run in the order of the tokens, in float64, whatever steps they came in.
void Embedding::look(const Rows& rows, Candidates&) {
  assert(!rows.hidden.empty());
  const size_t hidden = rows.width, count = rows.hidden.size() / hidden;
  sums_.resize(hidden, 0);
  for (size_t i = 0; i < count; ++i) {
    const size_t token = rows.first + i;
    const bool counts = pooling_ == Pooling::mean ? token == summed_ : token + 1 == tokens_.size();
    if (!counts) continue;
    for (size_t d = 0; d < hidden; ++d) sums_[d] += static_cast<double>(rows.hidden[i * hidden + d]);
    summed_ = token + 1;
  }
}

std::vector<float> Embedding::result() {
  double squares = 0;
  for (const double x : sums_) squares += x * x;
  const double scale = squares > 0 ? 1 / std::sqrt(squares) : 0;
  std::vector<float> vector;
  for (const double x : sums_) vector.push_back(static_cast<float>(x * scale));
  return vector;
}

}  // namespace contexture
