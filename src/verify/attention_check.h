#pragma once

#include <cmath>
#include <limits>

#include "base/thread_pool.h"
#include "kernels/attention.h"

namespace contexture {

/// What a float64 recomputation says of an attention's output.
struct AttentionCheck {
  size_t tokens = 0;            // that the last query should see
  double max_abs_error = 0;     // largest |out - oracle|
  double largest_output = 0;    // largest |oracle|
  double bound_share = 0;       // largest |out - oracle| / bound; above 1: more than rounding explains
  bool each_token_once = true;  // every query sees each position from its window's first to its own, once and in order

  bool decided = true;  // false: scores so large that rounding alone may choose any token; nothing is proven

  double relative_error() const;
  /// NaN, in K, V, q or the output, is never ok.
  bool ok() const { return each_token_once && decided && bound_share <= 1; }
};

/// Recomputes the attention of one sequence's queries in float64 from what the cache holds, and compares with
/// queries.out. The bound is derived (attention_check.cc) from float32's rounding, the head's size, the number of
/// tokens, and the sizes of the scores and of V in this very attention; it holds for `attend`, whatever the formats.
/// Positions are ≥ 0.
AttentionCheck check_attention(const AttentionQueries& queries, const AttentionShape& shape, ThreadPool& pool);

/// The first position that a query at this one sees.
inline int64_t first_visible(int64_t position, const AttentionShape& shape) {
  return shape.window > 0 && shape.window <= position ? position - shape.window + 1 : 0;
}

/// The larger one; NaN where one of them is.
inline double larger(double a, double b) {
  return a >= b || std::isnan(a) ? a : b;
}

/// What the softmax weights of `attend` over this view add up to: the sum that is farthest from 1, of all queries and
/// heads (attention over the view with every V replaced by 1).
double softmax_weight_sum(const AttentionQueries& queries, const AttentionShape& shape, ThreadPool& pool);

}  // namespace contexture
