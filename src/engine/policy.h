#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace contexture {

/// What a step carries of each text: numbers alone, so that it can be tested with any.

/// A text that runs: the tokens that it has and its sequence does not hold yet.
struct Wish {
  size_t tokens = 0;
  bool decodes = false;  // one token, which it has just made
  size_t rows = 0;       // of logits: the last so many of the tokens want one each

  /// How many of them the first `share` tokens want.
  size_t rows_of(size_t share) const { return share - std::min(share, tokens - rows); }
};

/// How large a step may be.
struct StepBudget {
  size_t tokens = 0;
  uint64_t nanoseconds = 0;  // 0: as long as it takes
  size_t rows = SIZE_MAX;    // of logits
};

/// How long steps have taken lately.
struct StepRates {
  uint64_t step_ns = 0;          // of one that only decodes
  uint64_t prompt_token_ns = 0;  // each token of a prompt, beside that

  /// Takes a step in that took so long, with so many tokens of prompts.
  void observe(uint64_t nanoseconds, size_t prompt_tokens);
};

/// Of a prompt, no step carries fewer tokens than this while it has them and the budget of tokens allows: so many cost
/// little more than one, since weights are read once a step.
constexpr size_t kLeastPart = 16;

/// Tokens of prompts that a step has time for beside its decoding rows.
size_t prompt_tokens_in_time(const StepBudget& budget, const StepRates& rates);

/// Deals a step's tokens to texts, the oldest first; `shares` (texts).
///
/// Texts that decode come first, a token each. Prompts share the rest: half of it in equal parts, at least kLeastPart
/// each, the other half by age. So the oldest text of all always gets on, by kLeastPart tokens or what it has; and of n
/// prompts that share r tokens, each gets min(its own, r / 2n) where that is at least kLeastPart: a short prompt does
/// not wait for a long one.
///
/// Of rows of logits, each text whose share wants any is kept one, as far as they go; the others go by age. A share
/// that wants more is cut down, so a text that wants a row for every token (one that is scored) holds up nobody.
/// The oldest gets on by kLeastPart all the same where there are so many rows more than texts.
void share_step(std::span<const Wish> texts, const StepBudget& budget, const StepRates& rates,
                std::span<size_t> shares);

}  // namespace contexture
