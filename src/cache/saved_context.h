#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "cache/cache.h"

namespace contexture {

/// A mixed cache's: sinks, the last tokens, cold ones.
constexpr size_t kMostSavedRuns = 3;

/// K and V of each run begin at multiples of so many bytes.
constexpr size_t kSavedAlignment = 16;
constexpr size_t saved_aligned(size_t bytes) {
  return (bytes + kSavedAlignment - 1) / kSavedAlignment * kSavedAlignment;
}

/// Tokens of a saved context that are held alike: positions [first, first + count). K of every layer lies as (kv_heads,
/// count) rows, V after it likewise.
struct SavedRun {
  Format k_format = Format::f16, v_format = Format::f16;
  bool cold = false;
  int64_t first = 0, count = 0;

  bool operator==(const SavedRun&) const = default;
};

/// A sequence's context taken out of its cache: all about it but the rows, which are the cache's own bytes. Restored in
/// a cache of the same plan it is as if it had never been away, to the bit.
struct SavedContext {
  size_t layers = 0, kv_heads = 0, head_dim = 0;
  Rotation rotation;
  int64_t length = 0;  // tokens
  std::vector<SavedRun> runs;

  /// Bytes of a layer's rows: run after run, K and V each from a multiple of 16 bytes on.
  size_t layer_bytes() const;
  /// Throws Error where this cannot be: tokens that no run holds, or run beyond the length, more bytes than can be
  /// counted. For contexts that come from outside.
  void check() const;
};

SavedContext describe_context(const Cache& cache, SequenceId sequence);

using ByteSink = std::function<void(std::span<const std::byte>)>;
/// Hands a layer's rows to the sink piece by piece, layer_bytes together.
void save_layer(const Cache& cache, SequenceId sequence, const SavedContext& saved, size_t layer, const ByteSink& sink);

/// What restoring did beside copying.
struct Restored {
  size_t converted = 0;  // rows, of all layers, that were saved in another format or rotation than the cache's
  size_t clamped = 0;    // of their values (encode_kv_row)
};

/// Fills an empty sequence of a cache whose model has the same shape. `rows(layer)`: layer_bytes. What the cache holds
/// as it was saved is copied; the rest is decoded, from the finest rows there are, and encoded anew. Nothing where the
/// cache has no room.
[[nodiscard]] std::optional<Restored> restore_context(Cache& cache, SequenceId sequence, const SavedContext& saved,
                                                      const std::function<const std::byte*(size_t layer)>& rows);

/// A sequence swapped out to memory.
struct SwappedContext {
  SavedContext saved;
  std::vector<std::byte> rows;  // (layers, layer_bytes)
};

SwappedContext swap_out(const Cache& cache, SequenceId sequence);
/// Into an empty sequence; false where the cache has no room.
[[nodiscard]] bool swap_in(Cache& cache, SequenceId sequence, const SwappedContext& swapped);

}  // namespace contexture
