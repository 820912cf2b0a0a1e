#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/span.h"

namespace contexture {

using SequenceId = int32_t;
/// Where a token's K and V lie in every layer: a number that only the cache that gave it understands.
using Slot = int64_t;

/// What a token's K and V are.
struct CacheShape {
  size_t layers = 0;
  size_t kv_heads = 0;
  size_t head_dim = 0;
  Format k_format = Format::f16;
  Format v_format = Format::f16;
};

/// Everything that decides a cache's bytes.
struct CachePlan {
  std::string_view layout = "contiguous";
  CacheShape shape;
  size_t sequences = 1;     // at once
  size_t context = 0;       // tokens a sequence
  size_t page_tokens = 32;  // paged: a power of two from 8 to 256
  size_t pool_tokens = 0;   // paged: of all sequences together; 0: enough for every one to fill its context
};

/// Holds the context of sequences. Sequences are written by append and store, read through views; attention knows
/// nothing else. Not thread-safe: one step at a time; store and view are called for one step's layers in order.
class Cache {
 public:
  virtual ~Cache() = default;

  const CacheShape& shape() const { return shape_; }

  /// A new, empty sequence; nothing where no more fit.
  [[nodiscard]] virtual std::optional<SequenceId> create() = 0;
  /// A new sequence that starts as a copy of this one; nothing where no more fit. Writing to one never shows in the
  /// other.
  [[nodiscard]] virtual std::optional<SequenceId> fork(SequenceId sequence) = 0;
  virtual void free(SequenceId sequence) = 0;

  /// Room for `tokens` more, or false with nothing changed.
  [[nodiscard]] virtual bool append(SequenceId sequence, size_t tokens) = 0;
  /// Forgets all but the first `length` tokens.
  virtual void truncate(SequenceId sequence, size_t length) = 0;
  /// Tokens, as appended.
  virtual size_t length(SequenceId sequence) const = 0;

  /// Tells the ids of the tokens after those told so far, once all layers hold them: sequences to come that begin alike
  /// may then adopt them. A layout that shares nothing ignores it.
  virtual void remember(SequenceId, std::span<const int32_t>) {}
  /// Gives an empty sequence as many of these tokens, from the first on, as the cache holds already; how many.
  virtual size_t adopt(SequenceId, std::span<const int32_t>) { return 0; }

  /// Where the token at this position is kept; position < length.
  virtual Slot slot(SequenceId sequence, size_t position) const = 0;
  /// Writes K and V of one layer, in the cache's formats. k, v (slots, kv_heads, head_dim).
  virtual void store(size_t layer, std::span<const Slot> slots, const float* k, const float* v) = 0;
  /// Appends the sequence's spans in one layer to `spans`, by ascending position; at most spans_of(plan).
  virtual void view(size_t layer, SequenceId sequence, std::vector<TokenSpan>& spans) const = 0;

 protected:
  explicit Cache(const CacheShape& shape) : shape_(shape) {}
  const CacheShape shape_;
};

/// The list of layouts is in cache.cc.
std::vector<std::string_view> cache_layouts();

/// The exact bytes that make_cache allocates for K and V. Throws Error where the plan cannot be carried out: an unknown
/// layout, a format that attention does not read, more bytes than can be counted.
size_t bytes_of(const CachePlan& plan);

/// Spans of a sequence's view, at most.
size_t spans_of(const CachePlan& plan);

/// Throws Error as bytes_of, and where memory is short.
std::unique_ptr<Cache> make_cache(const CachePlan& plan);

}  // namespace contexture
