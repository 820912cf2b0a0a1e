#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <span>
#include <vector>

#include "tensor/format.h"

namespace contexture {

/// Which part of a context a span is of, for people and traces: attention does not look at it.
enum class SpanKind : uint8_t { all, sinks, cold, hot };
inline constexpr const char* kSpanKinds[] = {"all", "sinks", "cold", "hot"};

/// A run of tokens of one sequence, wherever it lies: a page, a whole contiguous cache, a rank's shard. All that
/// attention knows of a cache. The addresses are computed by the cache alone: those of the first layer, from which the
/// others' are equally far apart.
struct TokenSpan {
  Format k_format = Format::f16;
  Format v_format = Format::f16;
  SpanKind kind = SpanKind::all;
  const std::byte* k = nullptr;  // (count, kv_heads) rows of head_dim (tensor/kv_row.h), with the strides below
  const std::byte* v = nullptr;
  size_t k_token_stride = 0, k_head_stride = 0;  // bytes
  size_t v_token_stride = 0, v_head_stride = 0;
  size_t k_layer_stride = 0, v_layer_stride = 0;
  size_t count = 0;             // tokens
  int64_t first_position = 0;   // absolute
  int64_t position_stride = 1;  // 1 in a page, N on a rank that holds every N-th token
  // Queries at positions in [queries_from, queries_until) see it; to others it is not there. A cache that holds a token
  // twice, once exact and once quantised, says so which of its queries reads which: each must see every token once.
  // Among the queries of a step only one of the two bounds may lie: attention takes a span that the first and the last
  // of some queries see for one that all between see, and likewise one that neither sees.
  int64_t queries_from = 0;
  int64_t queries_until = std::numeric_limits<int64_t>::max();

  bool seen_from(int64_t query_position) const {
    return query_position >= queries_from && query_position < queries_until;
  }
  int64_t position(size_t token) const { return first_position + static_cast<int64_t>(token) * position_stride; }
  const std::byte* k_row(size_t token, size_t kv_head) const {
    return k + token * k_token_stride + kv_head * k_head_stride;
  }
  const std::byte* v_row(size_t token, size_t kv_head) const {
    return v + token * v_token_stride + kv_head * v_head_stride;
  }
  /// The same tokens where they lie in a layer: a span of that layer alone.
  TokenSpan in_layer(size_t layer) const {
    TokenSpan span = *this;
    span.k += layer * k_layer_stride;
    span.v += layer * v_layer_stride;
    span.k_layer_stride = span.v_layer_stride = 0;
    return span;
  }
  /// Some of its tokens, from `token` on.
  TokenSpan part(size_t token, size_t tokens) const {
    TokenSpan span = *this;
    span.k = k_row(token, 0);
    span.v = v_row(token, 0);
    span.count = tokens;
    span.first_position = position(token);
    return span;
  }
};

/// Everything that a sequence holds, its block table, seen in one layer: made once a step, and looked at layer after
/// layer. For every query, the spans that it sees ascend by position.
class CacheView {
 public:
  CacheView() = default;
  CacheView(std::span<const TokenSpan> table, size_t layer = 0) : table_(table), layer_(layer) {}
  CacheView(const std::vector<TokenSpan>& table) : table_(table) {}
  CacheView(const TokenSpan* first, size_t count) : table_(first, count) {}

  /// As the cache gave them: with the addresses of the first layer.
  std::span<const TokenSpan> table() const { return table_; }
  size_t layer() const { return layer_; }
  CacheView in_layer(size_t layer) const { return {table_, layer}; }
  CacheView part(size_t first, size_t count) const { return {table_.subspan(first, count), layer_}; }

  size_t size() const { return table_.size(); }
  bool empty() const { return table_.empty(); }
  /// In the view's layer.
  TokenSpan operator[](size_t i) const { return table_[i].in_layer(layer_); }

  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = TokenSpan;
    using difference_type = std::ptrdiff_t;
    using pointer = const TokenSpan*;
    using reference = TokenSpan;

    Iterator(const TokenSpan* at, size_t layer) : at_(at), layer_(layer) {}
    TokenSpan operator*() const { return at_->in_layer(layer_); }
    Iterator& operator++() { return ++at_, *this; }
    bool operator==(const Iterator& other) const { return at_ == other.at_; }

   private:
    const TokenSpan* at_;
    size_t layer_;
  };
  Iterator begin() const { return {table_.data(), layer_}; }
  Iterator end() const { return {table_.data() + table_.size(), layer_}; }

 private:
  std::span<const TokenSpan> table_;
  size_t layer_ = 0;
};

}  // namespace contexture
