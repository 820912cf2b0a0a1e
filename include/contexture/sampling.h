#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace contexture {

/// What is added to the logit of a token.
struct LogitBias {
  int32_t id = 0;
  float bias = 0;  ///< finite, or -inf: the token is never chosen

  bool operator==(const LogitBias&) const = default;
};

/// How the next token is chosen of the model's logits, and nothing else. What is not said to be off by its value is
/// always on. Each step has the meaning that llama.cpp gives it, and they follow one another as there: logit biases,
/// penalties, DRY, top-n-sigma, top-k, typical-p, top-p, min-p, XTC, temperature. A share is of the tokens that the
/// steps before have left.
struct Sampling {
  float temperature = 0.8f;  ///< divides the logits; 0: the likeliest of what is left, and nothing is drawn
  int32_t top_k = 40;        ///< keep the so many likeliest tokens; 0: off
  float top_p = 0.95f;       ///< keep the fewest likeliest whose probabilities reach this (arXiv:1904.09751); 1: off
  float min_p = 0.05f;       ///< keep what is this likely against the likeliest (arXiv:2407.01082); 0: off
  /// Keep what is nearest in surprise to the expected surprise until the probabilities exceed this (arXiv:2202.00666);
  /// 1: off.
  float typical_p = 1;
  /// Keep logits that are at most so many standard deviations below the largest (arXiv:2411.07641); 0 or less: off.
  float top_n_sigma = 0;
  /// XTC, "exclude top choices": with this probability, all tokens that reach the threshold but the least likely of
  /// them are left out; 0: off. (oobabooga/text-generation-webui, pull request 6335.)
  float xtc_probability = 0;
  float xtc_threshold = 0.1f;  ///< a probability; above 0.5 two tokens cannot reach it: off

  /// Of tokens among the last ones, those of the prompt included: a positive logit is divided by the first, another
  /// multiplied with it (arXiv:1909.05858; 1: off); then the second is subtracted (0: off), and the third for each time
  /// that it is there (0: off).
  float repeat_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  int32_t repeat_last_n = 64;  ///< tokens that count as the last ones; -1: all, 0: none

  /// DRY, "don't repeat yourself": from a token that would go on with a repetition of n ≥ allowed_length tokens,
  /// multiplier · base^(n - allowed_length) is subtracted; 0: off. (oobabooga/text-generation-webui, pull request
  /// 5677.)
  float dry_multiplier = 0;
  float dry_base = 1.75f;           ///< 1 at least
  int32_t dry_allowed_length = 2;   ///< tokens
  int32_t dry_penalty_last_n = -1;  ///< tokens that are searched for repetitions; -1: all, 0: none
  std::vector<std::string> dry_sequence_breakers = {"\n", ":", "\"", "*"};  ///< no repetition goes over these texts

  /// 2: Mirostat 2 (arXiv:2007.14966) in place of all steps that cut (top-n-sigma to XTC): what is more surprising than
  /// a bound is left out, and the bound moves so that the surprise stays near tau. 0: off.
  int32_t mirostat = 0;
  float mirostat_tau = 5;     ///< bits
  float mirostat_eta = 0.1f;  ///< how much of a token's distance from tau the bound moves

  std::vector<LogitBias> logit_bias = {};
  uint64_t seed = 0;  ///< same seed, same text

  bool operator==(const Sampling&) const = default;
};

}  // namespace contexture
