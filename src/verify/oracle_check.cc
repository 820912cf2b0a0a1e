// How far may attention over a cache's rounded K and V lie from attention over the exact ones? A format says how far a
// channel may move (kv_row_error_bounds): |k'[j][d] - k[j][d]| ≤ δk[j][d], and as much of V, δv. That is checked of
// every row that a view shows: whoever reads a wrong address, a wrong token or what was never stored fails here, in
// any format. Then, for one query head and its visible tokens j, with s, p and o the exact scores, softmax and output:
//
// 1. Scores. |s'[j] - s[j]| ≤ ε[j] = |scale| · Σ_d |q[d]| · δk[j][d]; a soft-cap has a slope of at most 1 and keeps it.
// 2. Weights. p'[j] = p[j] · e^Δ[j] / Σ p[i] · e^Δ[i] with |Δ[j]| ≤ ε[j]. The divisor lies between S⁻ = Σ p[i] ·
// e^-ε[i]
//    and S⁺ = Σ p[i] · e^ε[i], so that |p'[j] - p[j]| ≤ p[j] · r[j],
//        r[j] = max(e^ε[j] / S⁻ - 1,  1 - e^-ε[j] / S⁺).
//    (With one ε for all tokens that is e^2ε - 1.)
// 3. Output. Both softmaxes add up to 1, hence o' - o = Σ (p'[j] - p[j]) · (v[j] - o) + Σ p'[j] · (v'[j] - v[j]), and
//        |o' - o| ≤ Σ p[j] · r[j] · |v[j] - o| + Σ p[j] · (1 + r[j]) · δv[j].
//    Where ε is so large that this says nothing, o' still is a mean of V': |o' - o| ≤ max (|v[j] - o| + δv[j]).
//
// That is about float64 attention. What `attend` makes lies beside o' by float32's rounding, which is measured, and
// held against a bound of its own, by check_attention; the measured error is added here. Nothing is fitted.

#include "verify/oracle_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>

#include "tensor/kv_row.h"
#include "verify/attention_check.h"
#include "verify/wrapped_cache.h"

namespace contexture {
namespace {

constexpr size_t kBlock = 16;  // queries

/// Float64's own rounding of a sum of up to 2^20 terms, as a share of it.
constexpr double kFloat64 = 0x1p-32;

}  // namespace

/// Tells the check what is stored.
class OracleCheck::Recorder final : public WrappedCache {
 public:
  Recorder(const CachePlan& plan, Cache& inner, OracleCheck& check) : WrappedCache(plan, inner), check_(check) {}
  void store(size_t layer, std::span<const Slot> slots, const float* k, const float* v) override {
    check_.record(layer, slots.size(), k, v);
    inner_.store(layer, slots, k, v);
  }

 private:
  OracleCheck& check_;
};

/// The rows of a view, of one KV head: where each token was meant to be, and how far it may have moved.
struct OracleCheck::Rows {
  std::vector<size_t> spans;              // (rows): of each, its place in the view
  std::vector<size_t> positions;          // (rows)
  std::vector<float> k_doubts, v_doubts;  // (rows, head_dim)
};

/// One query head in float64.
class OracleCheck::Head {
 public:
  /// k, v (tokens, row_stride): of the KV head, exact.
  Head(const Rows& rows, const float* k, const float* v, size_t row_stride, const AttentionShape& shape)
      : rows_(rows),
        k_(k),
        v_(v),
        stride_(row_stride),
        shape_(shape),
        mean_(shape.head_dim),
        magnitude_(shape.head_dim) {}

  struct Errors {
    double largest = 0, share = 0;
  };
  /// `rounding`: how far `out` may be from o'. `visible`: places in `rows`.
  Errors compare(const float* q, const float* out, const std::vector<size_t>& visible, double rounding) {
    visible_ = &visible;
    score(q);
    weigh();
    Errors errors;
    for (size_t d = 0; d < shape_.head_dim; ++d) {
      const double error = std::fabs(static_cast<double>(out[d]) - mean_[d]);
      const double beyond = error - rounding - kFloat64 * magnitude_[d];
      const double bound = bound_of(d);
      errors.largest = larger(errors.largest, error);
      errors.share = larger(errors.share, beyond <= 0 ? 0 : beyond / bound);  // 1 / 0 is more than any share
    }
    return errors;
  }

 private:
  /// s and ε.
  void score(const float* q) {
    weights_.resize(visible_->size());
    doubts_.resize(visible_->size());
    const double scale = shape_.scale, cap = shape_.softcap;
    for (size_t i = 0; i < visible_->size(); ++i) {
      const size_t row = (*visible_)[i];
      const float* k = k_ + rows_.positions[row] * stride_;
      const float* doubt = rows_.k_doubts.data() + row * shape_.head_dim;
      double s = 0, e = 0;
      for (size_t d = 0; d < shape_.head_dim; ++d) {
        s += static_cast<double>(q[d]) * k[d];
        e += std::fabs(static_cast<double>(q[d])) * doubt[d];
      }
      weights_[i] = cap != 0 ? cap * std::tanh(scale * s / cap) : scale * s;
      doubts_[i] = std::fabs(scale) * e;
    }
  }

  /// From them p and r, and o.
  void weigh() {
    const double maximum = *std::max_element(weights_.begin(), weights_.end());
    double total = 0, least = 0, most = 0;
    for (double& weight : weights_) total += weight = std::exp(weight - maximum);
    for (size_t i = 0; i < weights_.size(); ++i) {
      weights_[i] /= total;
      least += weights_[i] * std::exp(-doubts_[i]);
      most += weights_[i] * std::exp(doubts_[i]);
    }
    std::fill(mean_.begin(), mean_.end(), 0);
    std::fill(magnitude_.begin(), magnitude_.end(), 0);
    for (size_t i = 0; i < weights_.size(); ++i) {
      if (doubts_[i] > 0 || least < 1) {
        doubts_[i] = std::max(std::exp(doubts_[i]) / least - 1, 1 - std::exp(-doubts_[i]) / most);
      }
      const float* v = v_ + rows_.positions[(*visible_)[i]] * stride_;
      for (size_t d = 0; d < shape_.head_dim; ++d) {
        mean_[d] += weights_[i] * v[d];
        magnitude_[d] += weights_[i] * std::fabs(v[d]);
      }
    }
  }

  double bound_of(size_t d) const {
    double bound = 0, spread = 0;
    for (size_t i = 0; i < weights_.size(); ++i) {
      const size_t row = (*visible_)[i];
      const double off = std::fabs(v_[rows_.positions[row] * stride_ + d] - mean_[d]);
      const double doubt = rows_.v_doubts[row * shape_.head_dim + d];
      bound += weights_[i] * (doubts_[i] * off + (1 + doubts_[i]) * doubt);
      spread = std::max(spread, off + doubt);
    }
    return bound < spread ? bound : spread;
  }

  const Rows& rows_;
  const float *k_, *v_;
  const size_t stride_;
  const AttentionShape& shape_;
  const std::vector<size_t>* visible_ = nullptr;
  std::vector<double> weights_, doubts_;  // of the visible tokens: s and ε, then p and r
  std::vector<double> mean_, magnitude_;  // (head_dim): Σ p·v, Σ p·|v|
};

OracleCheck::OracleCheck(const ModelConfig& config, size_t tokens, size_t every, ThreadPool& pool)
    : kv_heads_(config.kv_heads),
      head_dim_(config.head_dim),
      tokens_(tokens),
      every_(every),
      pool_(pool),
      k_(config.layers * tokens * kv_heads_ * head_dim_),
      v_(k_.size()) {}

OracleCheck::~OracleCheck() = default;

Cache& OracleCheck::watch(const CachePlan& plan, Cache& cache) {
  recorder_ = std::make_unique<Recorder>(plan, cache, *this);
  return *recorder_;
}

void OracleCheck::before_step(std::span<const int64_t> positions) {
  positions_.assign(positions.begin(), positions.end());
}

void OracleCheck::fail_first(std::string failure) {
  if (result_.failure.empty()) result_.failure = std::move(failure);
}

void OracleCheck::record(size_t layer, size_t tokens, const float* k, const float* v) {
  const size_t row = kv_heads_ * head_dim_;
  assert(tokens == positions_.size());
  for (size_t i = 0; i < tokens; ++i) {
    const auto position = static_cast<size_t>(positions_[i]);
    if (position >= tokens_)
      return fail_first(fmt::format("a token is stored at position {}, of {}", position, tokens_));
    const size_t at = (layer * tokens_ + position) * row;
    std::copy_n(k + i * row, row, k_.data() + at);
    std::copy_n(v + i * row, row, v_.data() + at);
  }
}

/// Decodes what the view shows up to the last query's position, and holds it against what was stored.
bool OracleCheck::read_rows(const AttentionQueries& queries, size_t kv_head, Rows& rows) {
  std::vector<float> row(head_dim_), doubts(head_dim_);
  // Of one side of one token; its doubts are appended.
  const auto side = [&](char name, Format format, const std::byte* bytes, const float* exact, int64_t position,
                        std::vector<float>& all_doubts) {
    decode_kv_row(format, bytes, row.data(), head_dim_);
    kv_row_error_bounds(format, exact, doubts.data(), head_dim_);
    all_doubts.insert(all_doubts.end(), doubts.begin(), doubts.end());
    for (size_t d = 0; d < head_dim_; ++d) {
      if (std::fabs(static_cast<double>(row[d]) - exact[d]) <= doubts[d]) continue;
      fail_first(fmt::format(
          "layer {}, KV head {}: {} of the token at {} is read as {} in channel {}; {} was stored, and {} keeps "
          "it within {}",
          layer_, kv_head, name, position, row[d], d, exact[d], contexture::name(format), doubts[d]));
      return false;
    }
    return true;
  };
  for (size_t s = 0; s < queries.view.size(); ++s) {
    const TokenSpan& span = queries.view[s];
    for (size_t t = 0; t < span.count && span.position(t) <= queries.positions.back(); ++t) {
      const int64_t position = span.position(t);
      if (position < 0) {
        fail_first(fmt::format("layer {}: a token stands at position {}", layer_, position));
        return false;
      }
      const size_t at = ((layer_ * tokens_ + static_cast<size_t>(position)) * kv_heads_ + kv_head) * head_dim_;
      rows.spans.push_back(s);
      rows.positions.push_back(static_cast<size_t>(position));
      if (!side('K', span.k_format, span.k_row(t, kv_head), k_.data() + at, position, rows.k_doubts)) return false;
      if (!side('V', span.v_format, span.v_row(t, kv_head), v_.data() + at, position, rows.v_doubts)) return false;
    }
  }
  return true;
}

void OracleCheck::on_attention(size_t layer, const AttentionShape& shape, std::span<const AttentionQueries> sequences) {
  if (!result_.failure.empty()) return;
  layer_ = layer;
  const AttentionQueries& queries = sequences.front();
  std::vector<Rows> rows(kv_heads_);
  for (size_t kv_head = 0; kv_head < kv_heads_; ++kv_head) {
    if (!read_rows(queries, kv_head, rows[kv_head])) return;
  }
  const size_t count = queries.positions.size(), row = shape.heads * head_dim_;
  for (size_t begin = 0; begin < count; begin += kBlock) {
    const size_t end = std::min(count, begin + kBlock);
    // The first block, the last, and so many between, others in each layer.
    if (begin > 0 && end < count && (begin / kBlock + layer) % every_ != 0) continue;
    check_block({.q = queries.q + begin * row,
                 .out = queries.out + begin * row,
                 .positions = queries.positions.subspan(begin, end - begin),
                 .view = queries.view},
                shape, rows);
  }
}

/// Queries that follow each other.
void OracleCheck::check_block(const AttentionQueries& queries, const AttentionShape& shape,
                              const std::vector<Rows>& rows) {
  const size_t count = queries.positions.size(), group = shape.heads / kv_heads_;
  const AttentionCheck rounding = check_attention(queries, shape, pool_);
  result_.attentions += count;
  result_.rounding_share = larger(result_.rounding_share, rounding.bound_share);
  if (!rounding.ok()) {
    fail_first(fmt::format(
        "layer {}, queries from {} on: {}", layer_, queries.positions[0],
        rounding.each_token_once
            ? fmt::format("attention is {:.3g} off what is stored, {:.3g} of what float32's rounding explains",
                          rounding.max_abs_error, rounding.bound_share)
            : std::string("not every token is seen once and in order")));
    return;
  }
  std::vector<Head::Errors> errors(count * kv_heads_);
  pool_.run(errors.size(), [&](size_t part, int) {
    const size_t query = part / kv_heads_, kv_head = part % kv_heads_;
    const Rows& of_head = rows[kv_head];
    const int64_t position = queries.positions[query], first = first_visible(position, shape);
    std::vector<size_t> visible;
    for (size_t i = 0; i < of_head.positions.size(); ++i) {
      const auto at = static_cast<int64_t>(of_head.positions[i]);
      if (at >= first && at <= position && queries.view[of_head.spans[i]].seen_from(position)) visible.push_back(i);
    }
    const size_t exact = (layer_ * tokens_ * kv_heads_ + kv_head) * head_dim_;
    Head head(of_head, k_.data() + exact, v_.data() + exact, kv_heads_ * head_dim_, shape);
    for (size_t h = 0; h < group; ++h) {
      const size_t at = (query * shape.heads + kv_head * group + h) * head_dim_;
      const Head::Errors one = head.compare(queries.q + at, queries.out + at, visible, rounding.max_abs_error);
      errors[part].largest = larger(errors[part].largest, one.largest);
      errors[part].share = larger(errors[part].share, one.share);
    }
  });
  for (const Head::Errors& one : errors) {
    result_.max_abs_error = larger(result_.max_abs_error, one.largest);
    result_.format_share = larger(result_.format_share, one.share);
    if (!(one.share <= 1)) {
      fail_first(fmt::format(
          "layer {}, queries from {} on: attention is {:.3g} off the exact one, {:.3g} of what its formats explain",
          layer_, queries.positions[0], one.largest, one.share));
    }
  }
}

}  // namespace contexture
