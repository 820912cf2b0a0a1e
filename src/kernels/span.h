#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/format.h"

namespace contexture {

/// A run of tokens of one sequence in one layer, wherever it lies: a page, a whole contiguous cache, a rank's shard.
/// All that attention knows of a cache. The addresses are computed by the cache alone.
struct TokenSpan {
  Format k_format = Format::f16;
  Format v_format = Format::f16;
  const std::byte* k = nullptr;  // (count, kv_heads, head_dim) with the strides below
  const std::byte* v = nullptr;
  size_t k_token_stride = 0, k_head_stride = 0;  // bytes
  size_t v_token_stride = 0, v_head_stride = 0;
  size_t count = 0;             // tokens
  int64_t first_position = 0;   // absolute
  int64_t position_stride = 1;  // 1 in a page, N on a rank that holds every N-th token
};

/// Everything that a sequence holds in one layer, by ascending position.
using CacheView = std::span<const TokenSpan>;

}  // namespace contexture
