#pragma once

#include <span>

namespace contexture {

/// Natural log-sum-exp of a row of logits, in float64.
double log_sum_exp(std::span<const float> logits);

/// How far a row of logits is from a reference's, over one vocabulary.
struct DistributionDistance {
  double kl = 0;           // Σ p · log(p / q), p the reference's probabilities, in nats
  bool same_top1 = false;  // the likeliest token is the same
  double top5_shared = 0;  // share of the reference's five likeliest that are among the other's
};
DistributionDistance distance_between(std::span<const float> reference, std::span<const float> other);

}  // namespace contexture
