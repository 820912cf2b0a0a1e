#include "verify/perplexity.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "verify/distributions.h"

namespace contexture {

void Perplexity::add(std::span<const float> logits, TokenId token) {
  const double nats = log_sum_exp(logits) - logits[static_cast<size_t>(token)];
  if (!std::isfinite(nats)) {
    fail("the logits for scored token {} are no numbers; the model's values overflow: try f32 or bf16 for K and V",
         tokens_);
  }
  ++tokens_;
  sum_ += nats;
  squares_ += nats * nats;
}

double Perplexity::nats_per_token() const {
  return sum_ / static_cast<double>(tokens_);
}

double Perplexity::value() const {
  return std::exp(nats_per_token());
}

std::optional<double> Perplexity::standard_error() const {
  if (tokens_ < 2) return std::nullopt;
  const double mean = nats_per_token(), count = static_cast<double>(tokens_);
  const double variance = std::max(0.0, squares_ / count - mean * mean);
  return value() * std::sqrt(variance / (count - 1));
}

std::optional<Perplexity> measure_perplexity(std::span<const TokenId> text, const TextWindows& windows,
                                             Runtime& runtime, const TextProgress& progress) {
  Perplexity perplexity;
  Runtime* const runs[] = {&runtime};
  const bool done = predict_text(
      text, windows, runs, [&](TokenId token, auto logits) { perplexity.add(logits[0], token); }, progress);
  return done ? std::optional(perplexity) : std::nullopt;
}

}  // namespace contexture
