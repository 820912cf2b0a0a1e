#include "verify/distributions.h"

#include <gtest/gtest.h>

#include <cmath>

namespace contexture {
namespace {

TEST(Distributions, AreAtNoDistanceFromThemselves) {
  const float logits[] = {1, 2, -3, 0.5f, 0, 7};
  const DistributionDistance same = distance_between(logits, logits);
  EXPECT_EQ(same.kl, 0);
  EXPECT_TRUE(same.same_top1);
  EXPECT_EQ(same.top5_shared, 1);
}

TEST(Distributions, KnowTheirDistance) {
  // p = (3/4, 1/4), q = (1/2, 1/2): KL = 3/4 · log(3/2) + 1/4 · log(1/2).
  const float p[] = {std::log(3.f) + 100, 100}, q[] = {-50, -50};
  EXPECT_NEAR(distance_between(p, q).kl, 0.75 * std::log(1.5) + 0.25 * std::log(0.5), 1e-6);
  EXPECT_NEAR(log_sum_exp(q), -50 + std::log(2.0), 1e-12);
  const float far[] = {9, 8, 7, 6, 5, 4, 3}, other[] = {3, 9, 8, 7, 6, 5, 4};
  const DistributionDistance d = distance_between(far, other);
  EXPECT_FALSE(d.same_top1);
  EXPECT_DOUBLE_EQ(d.top5_shared, 0.8);
}

}  // namespace
}  // namespace contexture
