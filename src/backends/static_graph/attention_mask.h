#pragma once

#include <cstddef>
#include <cstdint>

#include "backends/static_graph/fixed_kv.h"
#include "contexture/graph_backend.h"

namespace contexture {

/// Writes the input atten_mask (A, C) of a graph: the window's columns, then the chunk's own, which are causal.
class AttentionMask {
 public:
  /// The numbers that the tensor's encoding has for "attend" (real 0) and "masked" (real -255 in 16 bits: raw 0; -65535
  /// in float). Throws Error for an encoding that cannot say both.
  explicit AttentionMask(const cxg_tensor& tensor);

  size_t element_bytes() const { return element_bytes_; }
  /// All of it: `tokens` rows of `context` columns.
  void fill(std::byte* mask, size_t tokens, size_t context, Columns visible) const;
  /// The columns that came since the last time, in every row.
  void show(std::byte* mask, size_t tokens, size_t context, Columns fresh) const;

 private:
  uint32_t type_;
  size_t element_bytes_;
  float attend_, masked_;
};

}  // namespace contexture
