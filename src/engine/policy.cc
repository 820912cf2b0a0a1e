#include "engine/policy.h"

#include <algorithm>

namespace contexture {
namespace {

/// Moves an average an eighth of the way to a new value.
void approach(uint64_t& average, uint64_t value) {
  average = average == 0 ? value : average - average / 8 + value / 8;
}

/// Cuts shares down to the rows that there are.
void share_rows(std::span<const Wish> texts, size_t rows, std::span<size_t> shares) {
  size_t kept = 0;  // a row for each text from here on that wants any
  for (size_t i = 0; i < texts.size(); ++i) kept += texts[i].rows_of(shares[i]) > 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    const size_t wanted = texts[i].rows_of(shares[i]);
    if (wanted == 0) continue;
    --kept;
    const size_t most = std::max(std::min<size_t>(1, rows), rows - std::min(rows, kept));
    const size_t given = std::min(wanted, most);
    shares[i] -= wanted - given;
    rows -= given;
  }
}

/// Deals tokens alone.
void share_tokens(std::span<const Wish> texts, const StepBudget& budget, const StepRates& rates,
                  std::span<size_t> shares) {
  size_t left = budget.tokens, prompts = 0;
  const auto give = [&](size_t i, size_t tokens) {
    shares[i] += tokens;
    left -= tokens;
  };
  // The oldest, before any other can take the budget.
  give(0, std::min({texts[0].tokens, left, texts[0].decodes ? size_t{1} : kLeastPart}));
  for (size_t i = 1; i < texts.size(); ++i) {
    if (texts[i].decodes) give(i, std::min<size_t>(1, left));
  }
  for (const Wish& text : texts) prompts += !text.decodes && text.tokens > 0;
  if (prompts == 0) return;

  const size_t before = texts[0].decodes ? 0 : shares[0], time = prompt_tokens_in_time(budget, rates);
  left = std::min(left, time - std::min(time, before));
  const size_t part = std::max(kLeastPart, (left + before) / (2 * prompts));
  for (const bool by_age : {false, true}) {
    for (size_t i = 0; i < texts.size(); ++i) {
      if (texts[i].decodes) continue;
      const size_t most = by_age ? texts[i].tokens : std::min(part, texts[i].tokens);
      give(i, std::min(left, most - std::min(most, shares[i])));
    }
  }
}

}  // namespace

void StepRates::observe(uint64_t nanoseconds, size_t prompt_tokens) {
  if (prompt_tokens == 0) return approach(step_ns, nanoseconds);
  const uint64_t beside = nanoseconds - std::min(nanoseconds, step_ns);
  approach(prompt_token_ns, std::max<uint64_t>(1, beside / prompt_tokens));
}

size_t prompt_tokens_in_time(const StepBudget& budget, const StepRates& rates) {
  if (budget.nanoseconds == 0 || rates.prompt_token_ns == 0) return budget.tokens;
  const uint64_t left = budget.nanoseconds - std::min(budget.nanoseconds, rates.step_ns);
  return std::min<uint64_t>(budget.tokens, std::max<uint64_t>(kLeastPart, left / rates.prompt_token_ns));
}

void share_step(std::span<const Wish> texts, const StepBudget& budget, const StepRates& rates,
                std::span<size_t> shares) {
  std::ranges::fill(shares, 0);
  if (texts.empty()) return;
  share_tokens(texts, budget, rates, shares);
  share_rows(texts, budget.rows, shares);
}

}  // namespace contexture
