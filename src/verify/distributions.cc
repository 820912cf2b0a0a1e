#include "verify/distributions.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numeric>
#include <vector>

namespace contexture {
namespace {

/// Indices of the `count` largest, the lower index first where two are equal.
std::vector<size_t> largest(std::span<const float> logits, size_t count) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  count = std::min(count, order.size());
  const auto before = [&](size_t a, size_t b) { return logits[a] > logits[b] || (logits[a] == logits[b] && a < b); };
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(), before);
  order.resize(count);
  return order;
}

}  // namespace

double log_sum_exp(std::span<const float> logits) {
  const double maximum = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - maximum);
  return maximum + std::log(sum);
}

DistributionDistance distance_between(std::span<const float> reference, std::span<const float> other) {
  assert(reference.size() == other.size() && !reference.empty());
  DistributionDistance distance;
  const double reference_total = log_sum_exp(reference), other_total = log_sum_exp(other);
  for (size_t i = 0; i < reference.size(); ++i) {
    const double log_p = reference[i] - reference_total, log_q = other[i] - other_total;
    distance.kl += std::exp(log_p) * (log_p - log_q);
  }
  if (distance.kl < 0) distance.kl = 0;  // rounding alone takes it below; what is not a number stays so
  const std::vector<size_t> a = largest(reference, 5), b = largest(other, 5);
  distance.same_top1 = a[0] == b[0];
  const auto shared =
      std::count_if(a.begin(), a.end(), [&](size_t i) { return std::count(b.begin(), b.end(), i) > 0; });
  distance.top5_shared = static_cast<double>(shared) / static_cast<double>(a.size());
  return distance;
}

}  // namespace contexture
