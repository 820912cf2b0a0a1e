#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "tensor/format.h"

namespace contexture {

/// Which part of a context a span is of, for people and traces: attention does not look at it.
enum class SpanKind : uint8_t { all, sinks, cold, hot };
inline constexpr const char* kSpanKinds[] = {"all", "sinks", "cold", "hot"};

/// A run of tokens of one sequence in one layer, wherever it lies: a page, a whole contiguous cache, a rank's shard.
/// All that attention knows of a cache. The addresses are computed by the cache alone.
struct TokenSpan {
  Format k_format = Format::f16;
  Format v_format = Format::f16;
  const std::byte* k = nullptr;  // (count, kv_heads) rows of head_dim (tensor/kv_row.h), with the strides below
  const std::byte* v = nullptr;
  size_t k_token_stride = 0, k_head_stride = 0;  // bytes
  size_t v_token_stride = 0, v_head_stride = 0;
  size_t count = 0;             // tokens
  int64_t first_position = 0;   // absolute
  int64_t position_stride = 1;  // 1 in a page, N on a rank that holds every N-th token
  // Queries at positions in [queries_from, queries_until) see it; to others it is not there. A cache that holds a token
  // twice, once exact and once quantised, says so which of its queries reads which: each must see every token once.
  // Among the queries of a step only one of the two bounds may lie: attention takes a span that the first and the last
  // of some queries see for one that all between see, and likewise one that neither sees.
  int64_t queries_from = 0;
  int64_t queries_until = std::numeric_limits<int64_t>::max();
  SpanKind kind = SpanKind::all;

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

/// Everything that a sequence holds in one layer. For every query, the spans that it sees ascend by position.
using CacheView = std::span<const TokenSpan>;

}  // namespace contexture
