#pragma once

#include <span>

#include "base/aligned.h"
#include "cache/cache.h"

namespace contexture {

/// The memory of a cache: pages of a fixed number of tokens. K and V (layer, page, kv_head, token, channel), each in
/// its own format: a head's tokens follow each other, since attention streams them a head at a time. A slot is page ·
/// page_tokens + token.
class KvMemory {
 public:
  KvMemory(const CacheShape& shape, size_t pages, size_t page_tokens);
  /// What the constructor allocates. Throws Error where that has more bytes than can be counted.
  static size_t bytes_for(const CacheShape& shape, size_t pages, size_t page_tokens);

  /// Of K and V of one token in all layers.
  static size_t token_bytes(const CacheShape& shape);

  /// k, v (slots, kv_heads, head_dim).
  void store(size_t layer, std::span<const Slot> slots, const float* k, const float* v);
  /// `count` tokens of a page, from its `first_token` on, in all layers.
  TokenSpan span(size_t page, size_t count, int64_t first_position, size_t first_token = 0) const;
  /// Writes rows as they were stored, in the same formats, to a page from its `first_token` on.
  void restore(size_t layer, size_t page, size_t first_token, const TokenSpan& rows);
  /// Copies the first `tokens` tokens of a page, in all layers.
  void copy(size_t from_page, size_t to_page, size_t tokens);

  const CacheShape& shape() const { return shape_; }
  size_t clamped_values() const { return clamped_; }

 private:
  /// The one place that knows where a token's head lies: its row of head_dim channels, counted from the start.
  size_t row(size_t layer, size_t page, size_t head, size_t token) const {
    return ((layer * pages_ + page) * shape_.kv_heads + head) * page_tokens_ + token;
  }

  CacheShape shape_;
  size_t pages_, page_tokens_, k_row_, v_row_, clamped_ = 0;
  AlignedArray<std::byte> k_, v_;
};

}  // namespace contexture
