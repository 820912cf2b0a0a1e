#pragma once

#include <vector>

#include "verify/perplexity.h"

namespace contexture {

/// How far a run's predictions of a text are from a reference's, token by token.
class Divergence {
 public:
  /// Throws Error where logits are no numbers.
  void add(std::span<const float> reference, std::span<const float> run, TokenId token);

  // Of KL(reference ‖ run), in nats.
  double kl_mean() const;
  double kl_quantile(double share) const;  // the least one that so large a share of tokens does not exceed
  double kl_max() const { return kl_quantile(1); }

  double top1() const { return top1_ / count(); }  // share of tokens whose likeliest successor is the same
  double top5() const { return top5_ / count(); }  // mean share of the reference's likeliest five among the run's
  const Perplexity& perplexity() const { return perplexity_; }
  const Perplexity& reference_perplexity() const { return reference_perplexity_; }

 private:
  double count() const { return static_cast<double>(kl_.size()); }

  std::vector<double> kl_;
  double top1_ = 0, top5_ = 0;
  Perplexity perplexity_, reference_perplexity_;
};

/// Both in step. Nothing where it was cancelled. Throws Error as predict_text, and where the vocabularies differ in
/// size.
std::optional<Divergence> measure_divergence(std::span<const TokenId> text, const TextWindows& windows,
                                             Runtime& reference, Runtime& run, const TextProgress& progress = {});

}  // namespace contexture
