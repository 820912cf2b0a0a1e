#include "verify/faults.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cache/layout.h"
#include "tensor/kv_row.h"
#include "verify/wrapped_cache.h"

namespace contexture {
namespace {

using Spans = std::span<TokenSpan>;

/// A cache whose views are changed by a function. It gets one view, and returns how many of its spans are left.
template <size_t (*change)(Spans spans, const CachePlan& plan)>
class ChangedViews final : public WrappedCache {
 public:
  ChangedViews(const CachePlan& plan, Cache& inner) : WrappedCache(plan, inner), plan_(plan) {}
  void view(SequenceId sequence, std::vector<TokenSpan>& spans) const override {
    const size_t before = spans.size();
    inner_.view(sequence, spans);
    spans.resize(before + change(Spans(spans).subspan(before), plan_));
  }

 private:
  CachePlan plan_;
};

template <class Faulty>
std::unique_ptr<Cache> make(const CachePlan& plan, Cache& inner) {
  return std::make_unique<Faulty>(plan, inner);
}

/// Only where V's rows are shorter: what is read lies inside K's memory.
size_t index_k_by_v(Spans spans, const CachePlan&) {
  for (TokenSpan& span : spans) {
    if (span.v_token_stride >= span.k_token_stride) continue;
    span.k_token_stride = span.v_token_stride;
    span.k_head_stride = span.v_head_stride;
  }
  return spans.size();
}

/// As if K and V lay (tokens, heads), and not (heads, tokens).
size_t swap_heads_and_tokens(Spans spans, const CachePlan& plan) {
  for (TokenSpan& span : spans) {
    span.k_head_stride = span.k_token_stride;
    span.v_head_stride = span.v_token_stride;
    span.k_token_stride *= plan.shape.kv_heads;
    span.v_token_stride *= plan.shape.kv_heads;
  }
  return spans.size();
}

template <class Drop>
size_t drop_spans(Spans spans, const Drop& drop) {
  return static_cast<size_t>(std::remove_if(spans.begin(), spans.end(), drop) - spans.begin());
}

size_t ignore_cold(Spans spans, const CachePlan& plan) {
  if (!cold_formats(plan)) return spans.size();
  return drop_spans(spans, [&](const TokenSpan& span) {
    return span.k_format != plan.shape.k_format || span.v_format != plan.shape.v_format;
  });
}

size_t hide_first_token(Spans spans, const CachePlan&) {
  if (spans.empty()) return 0;
  TokenSpan& span = spans.front();
  span.k += span.k_token_stride;
  span.v += span.v_token_stride;
  span.first_position += span.position_stride;
  --span.count;
  return span.count > 0 ? spans.size() : drop_spans(spans, [](const TokenSpan& s) { return s.count == 0; });
}

template <int64_t by>
size_t shift_positions(Spans spans, const CachePlan&) {
  for (TokenSpan& span : spans) span.first_position += by;
  return spans.size();
}

/// Where contexts are shorter than 2,048, an eighth of them.
size_t forget_past_maximum(Spans spans, const CachePlan& plan) {
  const auto maximum = static_cast<int64_t>(std::min<size_t>(2048, plan.context / 8));
  for (TokenSpan& span : spans) {
    const int64_t left = std::max<int64_t>(0, maximum - span.first_position);
    span.count = std::min(span.count, static_cast<size_t>(left));
  }
  return drop_spans(spans, [](const TokenSpan& span) { return span.count == 0; });
}

/// Blocks that cool during a step: all its queries read them cold, as its last one does.
size_t cool_by_chunk(Spans spans, const CachePlan&) {
  for (TokenSpan& span : spans) span.queries_from = 0;
  return drop_spans(spans,
                    [](const TokenSpan& span) { return span.queries_until != std::numeric_limits<int64_t>::max(); });
}

/// Lengths are counted in whole pages, here also where the layout has none: the rest of the last page counts as tokens.
class WholePages final : public WrappedCache {
 public:
  WholePages(const CachePlan& plan, Cache& inner)
      : WrappedCache(plan, inner), page_(unit_of(plan) > 1 ? unit_of(plan) : 32) {}
  size_t length(SequenceId sequence) const override { return rounded(inner_.length(sequence)); }
  bool append(SequenceId sequence, size_t tokens) override {
    const size_t own = inner_.length(sequence);
    return inner_.append(sequence, rounded(own) - own + tokens);
  }
  void remember(SequenceId, std::span<const int32_t>) override {}  // the tokens between are nobody's

 private:
  size_t rounded(size_t tokens) const { return (tokens + page_ - 1) / page_ * page_; }
  size_t page_;
};

/// Adopts what the last tokens of the same number left, whatever they were: a hash that says equal.
class BelievedHash final : public WrappedCache {
 public:
  using WrappedCache::WrappedCache;
  void remember(SequenceId sequence, std::span<const int32_t> tokens) override {
    const size_t begin = inner_.length(sequence) - tokens.size();
    if (begin <= last_.size()) last_.resize(begin);
    last_.insert(last_.end(), tokens.begin(), tokens.end());
    inner_.remember(sequence, tokens);
  }
  size_t adopt(SequenceId sequence, std::span<const int32_t> tokens) override {
    return inner_.adopt(sequence, std::span(last_).first(std::min(tokens.size(), last_.size())));
  }

 private:
  std::vector<int32_t> last_;
};

/// What a fork or its parent writes, the other finds in its own place.
class ForkWithoutCopy final : public WrappedCache {
 public:
  using WrappedCache::WrappedCache;
  std::optional<SequenceId> fork(SequenceId sequence) override {
    const std::optional<SequenceId> copy = inner_.fork(sequence);
    if (copy) pair_ = {sequence, *copy};
    return copy;
  }
  void store(size_t layer, std::span<const Slot> slots, const float* k, const float* v) override {
    inner_.store(layer, slots, k, v);
    if (!pair_) return;
    const size_t row = shape_.kv_heads * shape_.head_dim;
    for (size_t i = 0; i < slots.size(); ++i) {
      for (const auto& [from, to] : {*pair_, std::pair(pair_->second, pair_->first)}) {
        const std::optional<size_t> position = position_of(slots[i], from);
        if (!position || *position >= inner_.length(to)) continue;
        const Slot other = inner_.slot(to, *position);
        inner_.store(layer, {&other, 1}, k + i * row, v + i * row);
      }
    }
  }

 private:
  std::optional<size_t> position_of(Slot slot, SequenceId sequence) const {
    for (size_t position = inner_.length(sequence); position-- > 0;) {
      if (inner_.slot(sequence, position) == slot) return position;
    }
    return std::nullopt;
  }
  std::optional<std::pair<SequenceId, SequenceId>> pair_;
};

/// K and V lose more than their formats take: a thousandth of the largest channel.
class Coarse final : public WrappedCache {
 public:
  using WrappedCache::WrappedCache;
  void store(size_t layer, std::span<const Slot> slots, const float* k, const float* v) override {
    const std::vector<float> coarse_k = coarse(k, slots.size()), coarse_v = coarse(v, slots.size());
    inner_.store(layer, slots, coarse_k.data(), coarse_v.data());
  }

 private:
  std::vector<float> coarse(const float* x, size_t slots) const {
    std::vector<float> out(x, x + slots * shape_.kv_heads * shape_.head_dim);
    float largest = 0;
    for (const float value : out) largest = std::max(largest, std::fabs(value));
    const float step = largest / 500;
    for (float& value : out) value = step > 0 ? std::round(value / step) * step : value;
    return out;
  }
};

/// Each query's output, (heads, head_dim), is left as (head_dim, heads).
void transpose_output(const AttentionShape& shape, const AttentionQueries& queries) {
  std::vector<float> was(shape.heads * shape.head_dim);
  for (size_t t = 0; t < queries.positions.size(); ++t) {
    float* out = queries.out + t * was.size();
    std::copy_n(out, was.size(), was.begin());
    for (size_t head = 0; head < shape.heads; ++head) {
      for (size_t d = 0; d < shape.head_dim; ++d) out[d * shape.heads + head] = was[head * shape.head_dim + d];
    }
  }
}

/// The weighted values of all tiles are divided by the sum of the last tile's weights.
void divide_by_one_tile(const AttentionShape& shape, const AttentionQueries& queries) {
  const size_t dim = shape.head_dim, group = shape.heads / shape.kv_heads;
  std::vector<float> k(dim);
  for (size_t t = 0; t < queries.positions.size(); ++t) {
    const int64_t position = queries.positions[t];
    const int64_t tile = position / kTilePositions * kTilePositions;
    for (size_t head = 0; head < shape.heads; ++head) {
      const float* q = queries.q + (t * shape.heads + head) * dim;
      std::vector<double> scores[2];  // of the tiles before, of the last one
      double maximum = -std::numeric_limits<double>::infinity();
      for (const TokenSpan& span : queries.view) {
        for (size_t j = 0; j < span.count && span.seen_from(position) && span.position(j) <= position; ++j) {
          decode_kv_row(span.k_format, span.k_row(j, head / group), k.data(), dim);
          double score = 0;
          for (size_t d = 0; d < dim; ++d) score += static_cast<double>(q[d]) * k[d];
          scores[span.position(j) >= tile].push_back(score * shape.scale);
          maximum = std::max(maximum, score * shape.scale);
        }
      }
      double sums[2] = {0, 0};
      for (const size_t part : {0, 1}) {
        for (const double score : scores[part]) sums[part] += std::exp(score - maximum);
      }
      float* out = queries.out + (t * shape.heads + head) * dim;
      for (size_t d = 0; d < dim; ++d) out[d] *= static_cast<float>((sums[0] + sums[1]) / sums[1]);
    }
  }
}

class FaultyObserver final : public AttentionObserver {
 public:
  FaultyObserver(const Fault& fault, AttentionObserver* inner) : fault_(fault), inner_(inner) {}
  void on_attention(size_t layer, const AttentionShape& shape, std::span<const AttentionQueries> sequences) override {
    for (const AttentionQueries& queries : sequences) fault_.change_output(shape, queries);
    if (inner_) inner_->on_attention(layer, shape, sequences);
  }

 private:
  const Fault& fault_;
  AttentionObserver* inner_;
};

constexpr Fault faults[] = {
    {"k-by-v-stride", "K is indexed with V's strides", make<ChangedViews<index_k_by_v>>},
    {"heads-and-tokens", "heads and tokens change places", make<ChangedViews<swap_heads_and_tokens>>},
    {"output-transposed", "attention's output is transposed", nullptr, transpose_output},
    {"cold-ignored", "cold tokens are not read", make<ChangedViews<ignore_cold>>},
    {"token-hidden", "a mask where there is none: the first token is not seen", make<ChangedViews<hide_first_token>>},
    {"future-seen", "no mask where there is one: the token after one's own is seen",
     make<ChangedViews<shift_positions<-1>>>},
    {"fixed-maximum", "nothing past a fixed number of tokens is seen", make<ChangedViews<forget_past_maximum>>},
    {"one-tile-softmax", "softmax is divided by the sum over one tile", nullptr, divide_by_one_tile},
    {"whole-pages", "lengths are counted in whole pages", make<WholePages>},
    {"position", "positions are off by one", make<ChangedViews<shift_positions<1>>>},
    {"hash", "a prefix is found by its hash, its tokens are not compared", make<BelievedHash>},
    {"fork", "a fork copies nothing when it writes", make<ForkWithoutCopy>},
    {"chunk-boundary", "what is cold depends on the chunk, not on the query", make<ChangedViews<cool_by_chunk>>},
    {"coarse", "K and V are rounded more than their formats do", make<Coarse>},
};

}  // namespace

std::unique_ptr<AttentionObserver> Fault::observer(AttentionObserver* inner) const {
  return change_output ? std::make_unique<FaultyObserver>(*this, inner) : nullptr;
}

std::span<const Fault> all_faults() {
  return faults;
}

const Fault* fault_from_name(std::string_view name) {
  for (const Fault& fault : faults) {
    if (fault.name == name) return &fault;
  }
  return nullptr;
}

}  // namespace contexture
