// How far may float32 attention lie from the exact value? Rounding to nearest is off by a factor of at most 1 ± u,
// u = 2^-24, and m such factors make at most 1 ± g(m), g(m) = m·u / (1 - m·u) (Higham, Accuracy and Stability of
// Numerical Algorithms, §3.1). For one query head, its n visible tokens j, head size D:
//
// 1. Scores. s[j] = scale · Σ q[d] · k[j][d] adds D fused products, in whatever order, and is one product more: it is
//    off by at most
//        e[j] = g(D + 1) · |scale| · Σ |q[d]| · |k[j][d]|.
//    Reading K and V is exact: a block format's scale has 11 bits, a quant 8. A soft-cap c · tanh(s / c) shrinks what
//    came before, adds u · |s| by its division, and 9 u of its value: Highway's Tanh is good to 4 units in the last
//    place, of at most 2 u each, and there is one product.
// 2. Weights. A token's weight is exp of a sum of differences: its score less its tile's maximum, the tile's maximum
//    less the next one's, and so on through L merges. None is positive, together they make s[j] - M (M the largest
//    score), and each is rounded: (M - s[j]) · u. Each exp, good to 1 unit, adds 2 u. So the weight is off by a factor
//    of at most exp(±h[j]),
//        h[j] = e[j] + u · (M - s[j]) + u · (2 + 2 L).      Let r[j] = exp(h[j]) - 1.
// 3. The same weights divide and multiply, so that what is common to them cancels: with p[j] the exact softmax and o
//    the exact output, weights of (1 + ρ[j]) · p[j], |ρ[j]| ≤ r[j], move the output by
//        Σ p[j] · ρ[j] · (v[j] - o) / Σ p[j] · (1 + ρ[j]).
// 4. Sums. A numerator is a chain of at most 128 fused products in a tile, and two roundings a merge; a denominator has
//    8 + 4 additions in its tile and two roundings a merge; 1 / sum and the last product are two more. That is a factor
//    of 1 ± g(m), m = min(n, 128) + 4 L + 14, of each weighted |v[j]|.
//
//    bound = (Σ p[j] · r[j] · |v[j] - o| + g(m) · Σ p[j] · (1 + r[j]) · |v[j]|) / (1 - Σ p[j] · r[j])
//
// and where the scores are so large that their rounding decides everything (the last divisor is not positive), the
// output still is a mean of V: the bound is the spread of the visible V, and the rounding of a sum of them; such an
// attention is held against that, and counts as undecided. What
// underflows is below 2^-126 a step, of weights and of products. This program's own float64 rounding is 2^-29 of each
// term; one is added to every m for it.

#include "verify/attention_check.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "tensor/kv_row.h"

namespace contexture {
namespace {

constexpr double kUnit = 0x1p-24;
constexpr double kUnderflow = 0x1p-126;
constexpr int64_t kStretch = 4 * kTilePositions;  // attend merges tiles into stretches, and those into the whole

double g(double roundings) {
  const double m = (roundings + 1) * kUnit;
  return m < 1 ? m / (1 - m) : std::numeric_limits<double>::infinity();
}

void take_errors(AttentionCheck& all, const AttentionCheck& one) {
  all.max_abs_error = larger(all.max_abs_error, one.max_abs_error);
  all.largest_output = larger(all.largest_output, one.largest_output);
  all.bound_share = larger(all.bound_share, one.bound_share);
  all.decided &= one.decided;
}

/// One KV head of a view in plain floats.
struct Tokens {
  std::vector<float> k, v;         // (tokens, head_dim)
  std::vector<int64_t> positions;  // (tokens)
  std::vector<size_t> spans;       // (tokens): of each, its place in the view

  Tokens(CacheView view, size_t kv_head, size_t head_dim) {
    for (size_t s = 0; s < view.size(); ++s) {
      const TokenSpan& span = view[s];
      size_t at = positions.size();
      k.resize((at + span.count) * head_dim);
      v.resize((at + span.count) * head_dim);
      for (size_t t = 0; t < span.count; ++t, ++at) {
        decode_kv_row(span.k_format, span.k_row(t, kv_head), k.data() + at * head_dim, head_dim);
        decode_kv_row(span.v_format, span.v_row(t, kv_head), v.data() + at * head_dim, head_dim);
        positions.push_back(span.position(t));
        spans.push_back(s);
      }
    }
  }
};

/// One query token, in memory that is used again for the next.
class Query {
 public:
  Query(const Tokens& tokens, const AttentionShape& shape) : tokens_(tokens), shape_(shape) {
    for (auto* sizes : {&weights_, &doubts_}) sizes->resize(tokens.positions.size());
    visible_.reserve(tokens.positions.size());
  }

  /// q, out (group, head_dim): the query heads that share this KV head.
  AttentionCheck check(const float* q, const float* out, int64_t position, CacheView view) {
    AttentionCheck all;
    const int64_t first = first_visible(position, shape_);
    all.tokens = static_cast<size_t>(position - first) + 1;
    visible_.clear();
    for (size_t j = 0; j < tokens_.positions.size(); ++j) {
      const int64_t at = tokens_.positions[j];
      if (at < first || at > position || !view[tokens_.spans[j]].seen_from(position)) continue;
      all.each_token_once &= at == first + static_cast<int64_t>(visible_.size());
      visible_.push_back(j);
    }
    all.each_token_once &= visible_.size() == all.tokens;
    const double merges = 5 + static_cast<double>(position / kStretch - first / kStretch);
    for (size_t head = 0; head < shape_.heads / shape_.kv_heads; ++head) {
      score(q + head * shape_.head_dim);
      const double doubt = softmax(merges);
      const AttentionCheck one = compare(out + head * shape_.head_dim, merges, doubt);
      take_errors(all, one);
    }
    return all;
  }

 private:
  /// s[j] and e[j] of the visible tokens.
  void score(const float* q) {
    const double scale = shape_.scale, cap = shape_.softcap;
    for (size_t i = 0; i < visible_.size(); ++i) {
      const float* k = tokens_.k.data() + visible_[i] * shape_.head_dim;
      double product = 0, magnitude = 0;
      for (size_t d = 0; d < shape_.head_dim; ++d) {
        const double term = static_cast<double>(q[d]) * k[d];
        product += term;
        magnitude += std::fabs(term);
      }
      double s = scale * product, e = g(static_cast<double>(shape_.head_dim) + 1) * std::fabs(scale) * magnitude;
      if (cap != 0) {
        e += g(1) * std::fabs(s);
        s = cap * std::tanh(s / cap);
        e += g(9) * std::fabs(s);
      }
      weights_[i] = s;
      doubts_[i] = e;
    }
  }

  /// From them p[j], and p[j] · r[j]; the sum of the latter.
  double softmax(double merges) {
    double maximum = -std::numeric_limits<double>::infinity(), total = 0, doubt = 0;
    for (size_t i = 0; i < visible_.size(); ++i) maximum = larger(maximum, weights_[i]);
    for (size_t i = 0; i < visible_.size(); ++i) {
      const double below = maximum - weights_[i];
      const double h = doubts_[i] + g(1) * below + g(2 + 2 * merges);
      weights_[i] = std::exp(-below);
      doubts_[i] = h < 1 ? weights_[i] * std::expm1(h) : std::exp(h - below) - weights_[i];
      total += weights_[i];
    }
    for (size_t i = 0; i < visible_.size(); ++i) {
      weights_[i] /= total;
      doubt += doubts_[i] /= total;
    }
    return doubt;
  }

  AttentionCheck compare(const float* out, double merges, double doubt) const {
    const auto n = static_cast<double>(visible_.size());
    const double roundings = std::min(n, static_cast<double>(kTilePositions)) + 4 * merges + 14;
    AttentionCheck check;
    check.decided = doubt < 1 || n < 2 || std::isnan(doubt);  // NaN is no doubt: it shows in the output
    for (size_t d = 0; d < shape_.head_dim; ++d) {
      double o = 0, by_weights = 0, by_sums = 0, largest = 0;
      double low = std::numeric_limits<double>::infinity(), high = -low;
      for (size_t i = 0; i < visible_.size(); ++i) o += weights_[i] * value(i, d);
      for (size_t i = 0; i < visible_.size(); ++i) {
        const double v = value(i, d);
        by_weights += doubts_[i] * std::fabs(v - o);
        by_sums += (weights_[i] + doubts_[i]) * std::fabs(v);
        low = std::min(low, v);
        high = std::max(high, v);
        largest = larger(largest, std::fabs(v));
      }
      double bound = high - low + g(roundings) * largest;
      if (doubt < 1) bound = std::min(bound, (by_weights + g(roundings) * by_sums) / (1 - doubt));
      bound += n * roundings * kUnderflow * (1 + largest);
      const double error = std::fabs(static_cast<double>(out[d]) - o);
      check.max_abs_error = larger(check.max_abs_error, error);
      check.largest_output = larger(check.largest_output, std::fabs(o));
      check.bound_share = larger(check.bound_share, error == 0 ? 0 : error / bound);
    }
    return check;
  }

  double value(size_t i, size_t d) const { return tokens_.v[visible_[i] * shape_.head_dim + d]; }

  const Tokens& tokens_;
  const AttentionShape& shape_;
  std::vector<size_t> visible_;
  std::vector<double> weights_, doubts_;  // of the visible tokens: s[j] and e[j], then p[j] and p[j] · r[j]
};

}  // namespace

double AttentionCheck::relative_error() const {
  return max_abs_error == 0 ? 0 : max_abs_error / largest_output;
}

AttentionCheck check_attention(const AttentionQueries& queries, const AttentionShape& shape, ThreadPool& pool) {
  const size_t group = shape.heads / shape.kv_heads, count = queries.positions.size();
  std::vector<AttentionCheck> checks(count * shape.kv_heads);
  for (size_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
    const Tokens tokens(queries.view, kv_head, shape.head_dim);
    std::vector<Query> of_thread(static_cast<size_t>(pool.threads()), Query(tokens, shape));
    pool.run(count, [&](size_t t, int thread) {
      const size_t at = (t * shape.heads + kv_head * group) * shape.head_dim;
      checks[kv_head * count + t] = of_thread[static_cast<size_t>(thread)].check(queries.q + at, queries.out + at,
                                                                                 queries.positions[t], queries.view);
    });
  }
  AttentionCheck all;
  for (const AttentionCheck& check : checks) {
    take_errors(all, check);
    all.tokens = check.tokens;
    all.each_token_once &= check.each_token_once;
  }
  return all;
}

double softmax_weight_sum(const AttentionQueries& queries, const AttentionShape& shape, ThreadPool& pool) {
  const std::vector<float> ones(shape.head_dim, 1.f);
  std::vector<TokenSpan> view(queries.view.begin(), queries.view.end());
  for (TokenSpan& span : view) {
    span.v_format = Format::f32;
    span.v = reinterpret_cast<const std::byte*>(ones.data());
    span.v_token_stride = span.v_head_stride = 0;
  }
  std::vector<float> out(queries.positions.size() * shape.heads * shape.head_dim);
  const AttentionQueries of_ones{queries.q, out.data(), queries.positions, view};
  AttentionScratch scratch(shape, pool.threads());
  attend({&of_ones, 1}, shape, scratch, pool);
  double farthest = 1;
  for (const float sum : out) {
    if (std::isnan(sum)) return sum;
    if (std::fabs(sum - 1.0) > std::fabs(farthest - 1)) farthest = sum;
  }
  return farthest;
}

}  // namespace contexture
