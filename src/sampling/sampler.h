#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "contexture/generation.h"
#include "contexture/sampling.h"
#include "sampling/candidates.h"
#include "sampling/dry.h"

namespace contexture {

struct Occasion;

/// Chooses tokens from logits. The k-th choice of a text depends on its logits, its tokens so far, the seed and k
/// alone, and on the choices before only where Mirostat's bound does. Each text has its own; any number of them choose
/// at once, with memory of their own (Candidates).
class Sampler {
 public:
  struct Choice {
    TokenId id;
    float log_probability;  ///< of the logits as they came
    double log_sum;         ///< log Σ exp(logits), which log_probability is against
  };
  using Candidates = contexture::Candidates;

  /// `choices`: of the same text that were made before; `banned`: tokens that are never chosen. Throws Error for
  /// options that mean nothing (check_sampling).
  explicit Sampler(const Sampling& sampling, uint64_t choices = 0, std::vector<TokenId> banned = {},
                   DryBreakers breakers = {});

  /// logits (vocabulary); `history`: prompt and generated tokens so far, ids of this vocabulary; `allowed`: a bit a
  /// token, low bits first, where only some may come next. Throws Error where no token has a finite logit.
  Choice choose(std::span<const float> logits, std::span<const TokenId> history, Candidates& candidates,
                std::span<const uint64_t> allowed = {});

 private:
  void cut(const Occasion& occasion, Candidates& candidates) const;
  size_t draw(Candidates& candidates, double number);

  Sampling sampling_;
  std::vector<TokenId> banned_;
  DryBreakers breakers_;
  std::mt19937_64 random_;
  uint64_t choices_;
  double surprise_bound_;  // Mirostat's, in bits
};

/// The `count` likeliest tokens, the likeliest first and equal ones by id. `log_sum` as choose() has it.
std::vector<Alternative> likeliest(std::span<const float> logits, size_t count, double log_sum, Candidates& candidates);

}  // namespace contexture
