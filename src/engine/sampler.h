#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "contexture/contexture.h"
#include "text/vocabulary.h"

namespace contexture {

/// Chooses tokens from logits. Owns its random numbers: the same seed and logits give the same tokens, anywhere.
class Sampler {
 public:
  struct Choice {
    TokenId id;
    float log_probability;  ///< of the logits as they came
  };
  struct Candidate {
    TokenId id;
    float logit;
    double weight;  // exp(logit - largest), then over temperature
  };
  /// Memory of a choice, which leaves nothing in it: any number of samplers share one.
  using Candidates = std::vector<Candidate>;

  /// `banned`: tokens that are never chosen.
  Sampler(const GenerateOptions& options, std::vector<TokenId> banned);

  /// logits (vocabulary); `history`: prompt and generated tokens so far, for the repetition penalty.
  /// Throws Error where no token has a finite logit.
  Choice choose(std::span<const float> logits, std::span<const TokenId> history, Candidates& candidates);

 private:
  TokenId draw(Candidates& candidates);

  GenerateOptions options_;
  std::vector<TokenId> banned_;
  std::mt19937_64 random_;
};

}  // namespace contexture
