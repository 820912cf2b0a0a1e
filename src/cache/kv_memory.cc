#include "cache/kv_memory.h"

#include <atomic>
#include <cassert>
#include <cstring>

#include "base/error.h"
#include "base/log.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

/// Bytes of K, or of V.
size_t side_bytes(const CacheShape& shape, size_t pages, size_t page_tokens, Format format) {
  size_t bytes = kv_row_bytes(format, shape.head_dim);
  bool overflow = false;
  for (const size_t factor : {shape.layers, pages, shape.kv_heads, page_tokens}) {
    overflow |= __builtin_mul_overflow(bytes, factor, &bytes);
  }
  if (overflow || bytes > SIZE_MAX / 4) {
    fail("a cache of {} · {} tokens has more bytes than can be counted; ask for fewer", pages, page_tokens);
  }
  return bytes;
}

}  // namespace

KvMemory::KvMemory(const CacheShape& shape, size_t pages, size_t page_tokens)
    : shape_(shape),
      pages_(pages),
      page_tokens_(page_tokens),
      k_row_(kv_row_bytes(shape.k_format, shape.head_dim)),
      v_row_(kv_row_bytes(shape.v_format, shape.head_dim)),
      k_(side_bytes(shape, pages, page_tokens, shape.k_format)),
      v_(side_bytes(shape, pages, page_tokens, shape.v_format)) {}

size_t KvMemory::bytes_for(const CacheShape& shape, size_t pages, size_t page_tokens) {
  return AlignedArray<std::byte>::bytes_for(side_bytes(shape, pages, page_tokens, shape.k_format)) +
         AlignedArray<std::byte>::bytes_for(side_bytes(shape, pages, page_tokens, shape.v_format));
}

size_t KvMemory::token_bytes(const CacheShape& shape) {
  return shape.layers * shape.kv_heads *
         (kv_row_bytes(shape.k_format, shape.head_dim) + kv_row_bytes(shape.v_format, shape.head_dim));
}

void KvMemory::store(size_t layer, std::span<const Slot> slots, const float* k, const float* v) {
  size_t clamped = 0;
  for (const Slot slot : slots) {
    const size_t page = static_cast<size_t>(slot) / page_tokens_, token = static_cast<size_t>(slot) % page_tokens_;
    for (size_t head = 0; head < shape_.kv_heads; ++head) {
      const size_t to = row(layer, page, head, token);
      clamped += encode_kv_row(shape_.k_format, k, k_.data() + to * k_row_, shape_.head_dim);
      clamped += encode_kv_row(shape_.v_format, v, v_.data() + to * v_row_, shape_.head_dim);
      k += shape_.head_dim;
      v += shape_.head_dim;
    }
  }
  static std::atomic<bool> said{false};
  if (clamped > 0 && !said.exchange(true)) {
    log_warning(
        "layer {}: K or V has values beyond what its format holds, and they are clamped; f32 and bf16 hold them "
        "(--k-format, --v-format, of a mixed cache also --cold-k-format, --cold-v-format)",
        layer);
  }
  clamped_ += clamped;
}

TokenSpan KvMemory::span(size_t page, size_t count, int64_t first_position, size_t first_token) const {
  const size_t first = row(0, page, 0, first_token), layer_rows = row(1, 0, 0, 0);
  return {.k_format = shape_.k_format,
          .v_format = shape_.v_format,
          .k = k_.data() + first * k_row_,
          .v = v_.data() + first * v_row_,
          .k_token_stride = k_row_,
          .k_head_stride = page_tokens_ * k_row_,
          .v_token_stride = v_row_,
          .v_head_stride = page_tokens_ * v_row_,
          .k_layer_stride = layer_rows * k_row_,
          .v_layer_stride = layer_rows * v_row_,
          .count = count,
          .first_position = first_position,
          .position_stride = 1};
}

void KvMemory::restore(size_t layer, size_t page, size_t first_token, const TokenSpan& rows) {
  assert(rows.k_format == shape_.k_format && rows.v_format == shape_.v_format);
  assert(first_token + rows.count <= page_tokens_);
  for (size_t head = 0; head < shape_.kv_heads; ++head) {
    for (size_t token = 0; token < rows.count; ++token) {
      const size_t to = row(layer, page, head, first_token + token);
      std::memcpy(k_.data() + to * k_row_, rows.k_row(token, head), k_row_);
      std::memcpy(v_.data() + to * v_row_, rows.v_row(token, head), v_row_);
    }
  }
}

void KvMemory::copy(size_t from_page, size_t to_page, size_t tokens) {
  if (tokens == 0) return;  // where no page has room for one there is no memory, and memcpy takes no null
  for (size_t layer = 0; layer < shape_.layers; ++layer) {
    for (size_t head = 0; head < shape_.kv_heads; ++head) {
      const size_t from = row(layer, from_page, head, 0), to = row(layer, to_page, head, 0);
      std::memcpy(k_.data() + to * k_row_, k_.data() + from * k_row_, tokens * k_row_);
      std::memcpy(v_.data() + to * v_row_, v_.data() + from * v_row_, tokens * v_row_);
    }
  }
}

}  // namespace contexture
