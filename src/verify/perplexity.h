#pragma once

#include <optional>
#include <span>

#include "verify/text_reader.h"

namespace contexture {

/// How well a text was foretold: exp of the mean of -log p(token | those before it in its window), natural logarithms,
/// all sums in float64.
class Perplexity {
 public:
  /// Throws Error where the logits are no numbers.
  void add(std::span<const float> logits, TokenId token);

  size_t tokens() const { return tokens_; }
  double nats_per_token() const;
  double value() const;
  /// Of value(): the tokens' spread carried through the exponential, as llama.cpp prints it behind "+/-". Takes the
  /// tokens for independent, which those of one text are not quite. Nothing where there are no two.
  std::optional<double> standard_error() const;

 private:
  size_t tokens_ = 0;
  double sum_ = 0, squares_ = 0;
};

/// Nothing where it was cancelled. Throws Error as predict_text and Perplexity::add.
std::optional<Perplexity> measure_perplexity(std::span<const TokenId> text, const TextWindows& windows,
                                             Runtime& runtime, const TextProgress& progress = {});

}  // namespace contexture
