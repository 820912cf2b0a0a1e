#pragma once

#include <numeric>
#include <vector>

#include "kernels/attention.h"
#include "support/random.h"
#include "tensor/kv_row.h"

namespace contexture {

/// Random K and V of one sequence, in spans of the given lengths and formats, each with strides of its own.
class RandomContext {
 public:
  struct Run {
    size_t tokens;
    Format k_format, v_format;
  };

  RandomContext(std::mt19937& random, const AttentionShape& shape, const std::vector<Run>& runs) : shape_(shape) {
    for (const Run& run : runs) add(random, run);
  }

  size_t tokens() const { return tokens_; }
  std::vector<TokenSpan> spans;

 private:
  void add(std::mt19937& random, const Run& run) {
    TokenSpan span{.k_format = run.k_format, .v_format = run.v_format, .count = run.tokens};
    span.first_position = static_cast<int64_t>(tokens_);
    span.k = rows(random, run.k_format, run.tokens, span.k_token_stride, span.k_head_stride);
    span.v = rows(random, run.v_format, run.tokens, span.v_token_stride, span.v_head_stride);
    spans.push_back(span);
    tokens_ += run.tokens;
  }

  /// (head, token, channel)
  const std::byte* rows(std::mt19937& random, Format format, size_t count, size_t& token_stride, size_t& head_stride) {
    token_stride = kv_row_bytes(format, shape_.head_dim);
    head_stride = token_stride * count;
    memory_.emplace_back(head_stride * shape_.kv_heads);
    for (size_t row = 0; row < count * shape_.kv_heads; ++row) {
      encode_kv_row(format, random_floats(random, shape_.head_dim).data(), memory_.back().data() + row * token_stride,
                    shape_.head_dim);
    }
    return memory_.back().data();
  }

  AttentionShape shape_;
  size_t tokens_ = 0;
  std::vector<std::vector<std::byte>> memory_;
};

inline AttentionShape shape_of(size_t heads, size_t kv_heads, size_t head_dim) {
  return {
      .heads = heads, .kv_heads = kv_heads, .head_dim = head_dim, .scale = 1 / std::sqrt(static_cast<float>(head_dim))};
}

/// Queries at the last positions of a context, and what `attend` makes of them.
struct AttendedQueries {
  std::vector<float> q, out;
  std::vector<int64_t> positions;

  AttendedQueries(std::mt19937& random, const AttentionShape& shape, size_t tokens, size_t queries, float gain = 1)
      : q(random_floats(random, queries * shape.heads * shape.head_dim, gain)), out(q.size()), positions(queries) {
    std::iota(positions.begin(), positions.end(), static_cast<int64_t>(tokens - queries));
  }

  AttentionQueries over(CacheView view) { return {q.data(), out.data(), positions, view}; }

  void attend_to(CacheView view, const AttentionShape& shape, ThreadPool& pool) {
    AttentionScratch scratch(shape, pool.threads());
    const AttentionQueries queries = over(view);
    attend({&queries, 1}, shape, scratch, pool);
  }
};

}  // namespace contexture
