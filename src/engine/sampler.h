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

  /// `banned`: tokens that are never chosen. Memory for `vocabulary` candidates is taken here.
  Sampler(const GenerateOptions& options, size_t vocabulary, std::vector<TokenId> banned);

  /// logits (vocabulary); `history`: prompt and generated tokens so far, for the repetition penalty.
  /// Throws Error where no token has a finite logit.
  Choice choose(std::span<const float> logits, std::span<const TokenId> history);

 private:
  struct Candidate {
    TokenId id;
    float logit;
    double weight;  // exp(logit - largest), then over temperature
  };

  void penalise_repetitions(std::span<const TokenId> history);
  void keep_top_k();
  void keep_top_p();
  void keep_min_p();
  TokenId draw();

  GenerateOptions options_;
  std::vector<TokenId> banned_;
  std::vector<Candidate> candidates_;
  std::mt19937_64 random_;
};

}  // namespace contexture
