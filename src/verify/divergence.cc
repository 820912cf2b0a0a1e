#include "verify/divergence.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "verify/distributions.h"

namespace contexture {

void Divergence::add(std::span<const float> reference, std::span<const float> run, TokenId token) {
  reference_perplexity_.add(reference, token);
  perplexity_.add(run, token);
  const DistributionDistance distance = distance_between(reference, run);
  kl_.push_back(distance.kl);
  top1_ += distance.same_top1 ? 1 : 0;
  top5_ += distance.top5_shared;
}

double Divergence::kl_mean() const {
  return std::accumulate(kl_.begin(), kl_.end(), 0.0) / count();
}

double Divergence::kl_quantile(double share) const {
  std::vector<double> sorted = kl_;
  const auto rank = static_cast<ptrdiff_t>(std::max(1.0, std::ceil(share * count())));
  std::nth_element(sorted.begin(), sorted.begin() + (rank - 1), sorted.end());
  return sorted[static_cast<size_t>(rank - 1)];
}

std::optional<Divergence> measure_divergence(std::span<const TokenId> text, const TextWindows& windows,
                                             Runtime& reference, Runtime& run, const TextProgress& progress) {
  const size_t theirs = reference.plan().config.vocabulary, ours = run.plan().config.vocabulary;
  if (theirs != ours) {
    fail("the reference has a vocabulary of {} tokens and the model one of {}; compare models that share one", theirs,
         ours);
  }
  Divergence divergence;
  Runtime* const runs[] = {&reference, &run};
  const bool done = predict_text(
      text, windows, runs, [&](TokenId token, auto logits) { divergence.add(logits[0], logits[1], token); }, progress);
  return done ? std::optional(divergence) : std::nullopt;
}

}  // namespace contexture
