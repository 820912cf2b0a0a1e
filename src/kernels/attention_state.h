#pragma once

#include <cmath>
#include <cstddef>
#include <limits>

namespace contexture {

/// Attention of one query over a set of tokens (FlashAttention's online softmax, arXiv:2205.14135 §3.1, as a value):
///
///   maximum = max s[j],  sum = Σ exp(s[j] - maximum),  values = Σ exp(s[j] - maximum) · v[j]
///
/// The empty set is (-inf, 0, 0). States over disjoint sets merge into the state of their union; merging the empty one
/// changes nothing. Natural logarithms: the log-sum-exp is maximum + log(sum).
struct AttentionState {
  float maximum = -std::numeric_limits<float>::infinity();
  float sum = 0;
};

/// The factors by which the values (and sums) of `a` and `b` are scaled when they merge.
struct MergeFactors {
  float a, b;
};

/// Merges b into a and says how to scale the values. Both empty: the factors are 0, never NaN.
inline MergeFactors merge(AttentionState& a, const AttentionState& b) {
  const float maximum = a.maximum > b.maximum ? a.maximum : b.maximum;
  if (maximum == -std::numeric_limits<float>::infinity()) return {0, 0};
  const MergeFactors factors{std::exp(a.maximum - maximum), std::exp(b.maximum - maximum)};
  a.sum = a.sum * factors.a + b.sum * factors.b;
  a.maximum = maximum;
  return factors;
}

}  // namespace contexture
